//! The files of a task: what its secrets and configs become in its container (swarm-behaviour §7.4, §7.5).

use std::{cell::Cell, collections::BTreeMap};

use swarm_model::{ObjectFile, ObjectKind, SecretBytes};
use swarm_template::spec::Sources;
use swarm_wire::agent::AssignedObject;

use super::create;
use crate::{executor::ContainerRequest, template};

/// A file of a task.
#[derive(Debug)]
pub(super) struct TaskFile {
    /// The object that it comes from, for people: `secret NAME`.
    pub(super) of: String,
    pub(super) data: SecretBytes,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    /// Whether something of a secret is in it.
    pub(super) is_secret: bool,
}

/// The files of a task, in the order in which its spec names them.
///
/// # Errors
/// An object is not there, or its template cannot be filled in; for people.
pub(super) fn task_files(request: &ContainerRequest) -> Result<Vec<TaskFile>, String> {
    let spec = &request.spec.task.container_spec;
    let files = spec.object_files().map_err(|error| error.to_string())?;
    let env = create::env(request)?;
    // Of two variables with one name the last one wins, as in a container.
    let env = env.iter().filter_map(|pair| pair.split_once('=')).collect();
    files.iter().map(|file| task_file(file, &files, &env, request)).collect()
}

fn task_file(
    file: &ObjectFile,
    files: &[ObjectFile],
    env: &BTreeMap<&str, &str>,
    request: &ContainerRequest,
) -> Result<TaskFile, String> {
    let of = format!("{} {}", file.reference.kind, file.reference.name);
    let object = object(file, request).ok_or_else(|| format!("{of} did not arrive at the node"))?;
    let data = data(&of, object)?;
    let sources = Filled { files, env, request, read_secret: Cell::new(false) };
    let data = if object.content.templating().is_some() {
        let text = text(&of, data)?;
        let filled = template::expand_payload(text, request, &sources).map_err(|error| format!("{of}: {error}"))?;
        filled.into_bytes().into()
    } else {
        data.clone()
    };
    let is_secret = file.reference.kind == ObjectKind::Secret || sources.read_secret.get();
    Ok(TaskFile { of, data, uid: file.uid, gid: file.gid, mode: file.mode, is_secret })
}

/// The data of an object, which must be of a kind that has some.
fn data<'a>(of: &str, object: &'a AssignedObject) -> Result<&'a SecretBytes, String> {
    object.content.data().ok_or_else(|| format!("{of} is no data: it cannot be a file"))
}

fn object<'a>(file: &ObjectFile, request: &'a ContainerRequest) -> Option<&'a AssignedObject> {
    let key = file.reference.key()?;
    request.objects.iter().find(|object| object.key() == key).map(|object| &**object)
}

fn text<'a>(of: &str, data: &'a SecretBytes) -> Result<&'a str, String> {
    std::str::from_utf8(data.expose()).map_err(|_| format!("{of} is not UTF-8 text, which templates need"))
}

/// The sources that a template in a secret or config reads: the files of its own service, and its environment.
struct Filled<'a> {
    files: &'a [ObjectFile],
    env: &'a BTreeMap<&'a str, &'a str>,
    request: &'a ContainerRequest,
    read_secret: Cell<bool>,
}

impl Filled<'_> {
    /// The data of an object of this kind, as it was made: templates in it are not filled in.
    fn data(&self, kind: ObjectKind, target: &str) -> Result<String, String> {
        let of_kind = || self.files.iter().filter(|file| file.reference.kind == kind);
        let by_target = of_kind().find(|file| file.target == target);
        let file = by_target.or_else(|| of_kind().find(|file| file.reference.name == target));
        let object = file.and_then(|file| object(file, self.request));
        let object = object.ok_or_else(|| format!("the service has no {kind} with the target {target}"))?;
        let of = format!("{kind} {}", object.name);
        text(&of, data(&of, object)?).map(str::to_owned)
    }
}

impl Sources for Filled<'_> {
    fn secret(&self, target: &str) -> Result<String, String> {
        self.read_secret.set(true);
        self.data(ObjectKind::Secret, target)
    }

    fn config(&self, target: &str) -> Result<String, String> {
        self.data(ObjectKind::Config, target)
    }

    fn env(&self, name: &str) -> Result<String, String> {
        let value = self.env.get(name).map(|value| (*value).to_owned());
        value.ok_or_else(|| format!("the service has no environment variable {name}"))
    }
}
