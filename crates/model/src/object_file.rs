//! The files that tasks get from named objects, such as secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{ContainerSpec, Invalid, ObjectReference, REFERENCES, ReferenceList, says_nothing};

/// Permission bits of a file of which nothing is said: all may read it (swarm-behaviour §12.1).
pub const OBJECT_FILE_MODE_DEFAULT: u32 = 0o444;
/// Bytes of a path, as Linux has it: one less than `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4095;
/// Bytes of one name in a path, as Linux has it.
const PATH_PART_BYTES_MAX: usize = 255;

/// A file that the tasks of a service get: an object that its container spec names, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFile {
    /// The object.
    pub reference: ObjectReference,
    /// Path in the container, absolute.
    pub path: String,
    /// The target as the user gave it, for templates and messages; the name of the object if none was given.
    pub target: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
}

impl ObjectFile {
    /// The object for people: `secret 'key'`.
    pub fn label(&self) -> String {
        format!("{} '{}'", self.reference.kind, self.reference.name)
    }
}

impl ContainerSpec {
    /// The files that its lists of objects come to (swarm-behaviour §7.4): those of secrets, then those of configs.
    ///
    /// # Errors
    /// An item that says too little or what cannot be, or two files in one place.
    pub fn object_files(&self) -> Result<Vec<ObjectFile>, Invalid> {
        let mut files: Vec<ObjectFile> = Vec::new();
        // The place of each file in the list, by its path.
        let mut places = BTreeMap::new();
        for list in REFERENCES {
            let items = match self.extra.get(list.field) {
                Some(Value::Array(items)) => items.as_slice(),
                Some(other) if !says_nothing(other) => {
                    return Err(Invalid(format!("ContainerSpec.{} {other}: a list is expected", list.field)));
                }
                _ => &[],
            };
            for (at, item) in items.iter().enumerate() {
                let file = read(list, item, &format!("ContainerSpec.{}[{at}]", list.field))?;
                check_place(&file, &files, &places)?;
                places.insert(file.path.clone(), files.len());
                files.push(file);
            }
        }
        Ok(files)
    }
}

fn read(list: &ReferenceList, item: &Value, path: &str) -> Result<ObjectFile, Invalid> {
    let fields = item.as_object().ok_or_else(|| {
        Invalid(format!("{path} {item}: an object with {}, {} and File is expected", list.id, list.name))
    })?;
    let (id, name) = (text(fields, list.id, path)?, text(fields, list.name, path)?);
    if id.is_empty() || name.is_empty() {
        let (id_field, name_field) = (list.id, list.name);
        let given = format!("{id_field} \"{id}\" and {name_field} \"{name}\"");
        return Err(Invalid(format!("{path}: {given} must both be there, and belong to one {}", list.kind)));
    }
    let nothing = Map::new();
    let file = match fields.get("File") {
        None | Some(Value::Null) => &nothing,
        Some(Value::Object(file)) => file,
        Some(other) => return Err(Invalid(format!("{path}.File {other}: an object is expected"))),
    };
    let runtime = fields.get("Runtime").filter(|runtime| !runtime.is_null());
    if runtime.is_some_and(|runtime| file.is_empty() || !says_nothing(runtime)) {
        return Err(Invalid(format!(
            "{path}.Runtime is for credential specs of Windows, which is not supported: give a File"
        )));
    }
    let file_path = format!("{path}.File");
    let (target, target_field) = match text(file, "Name", &file_path)? {
        "" => (name, format!("{path}.{}", list.name)),
        target => (target, format!("{file_path}.Name")),
    };
    Ok(ObjectFile {
        reference: ObjectReference { kind: list.kind, id: id.to_owned(), name: name.to_owned() },
        path: absolute(list.folder, target)
            .map_err(|problem| Invalid(format!("{target_field} {target:?}: the target {problem}")))?,
        target: target.to_owned(),
        uid: owner(file, "UID", &file_path)?,
        gid: owner(file, "GID", &file_path)?,
        mode: match file.get("Mode") {
            None | Some(Value::Null) => OBJECT_FILE_MODE_DEFAULT,
            Some(mode) => mode.as_u64().and_then(unix_mode).ok_or_else(|| {
                Invalid(format!(
                    "{file_path}.Mode {mode}: permission bits as a decimal number are expected, at most {} (octal 7777)",
                    0o7777
                ))
            })?,
        },
    })
}

/// A text; an empty one if the field is not there.
fn text<'v>(fields: &'v Map<String, Value>, field: &str, path: &str) -> Result<&'v str, Invalid> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Invalid(format!("{path}.{field} {other}: a text is expected"))),
    }
}

/// The number of a user or of a group. Containers have names of their own for them, which nobody knows here. The last
/// number is none: to the kernel it means "leave it as it is".
fn owner(file: &Map<String, Value>, field: &str, path: &str) -> Result<u32, Invalid> {
    let text = text(file, field, path)?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        _ if text.is_empty() => Ok(0),
        Ok(id) if is_number && id < u32::MAX => Ok(id),
        _ => Err(Invalid(format!(
            "{path}.{field} {text:?}: a number from 0 to {} is expected, names are not looked up",
            u32::MAX - 1
        ))),
    }
}

/// The bits of a mode as Unix has them. Clients send those of Go: the lower twelve are the same, but Go writes "set user
/// id", "set group id" and "sticky" further up. Bits that say that something is no plain file are refused.
fn unix_mode(go: u64) -> Option<u32> {
    const MOVED: [(u64, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
    let (mut rest, mut mode) = (go, 0);
    for (bit, unix) in MOVED {
        if go & bit != 0 {
            rest &= !bit;
            mode |= unix;
        }
    }
    u32::try_from(rest).ok().filter(|rest| *rest <= 0o7777).map(|rest| rest | mode)
}

/// The path of a target. Two paths that are not the same text name two files.
fn absolute(folder: &str, target: &str) -> Result<String, &'static str> {
    let path = if target.starts_with('/') { target.to_owned() } else { format!("{folder}/{target}") };
    if path.contains('\0') {
        return Err("has a NUL character in it");
    }
    for part in path[1..].split('/') {
        match part {
            "" => return Err("must be the path of a file: without a / at its end, and without two of them in a row"),
            "." | ".." => return Err("must be a plain path, without . and .. in it"),
            part if part.len() > PATH_PART_BYTES_MAX => return Err("has a name of more than 255 bytes in it"),
            _ => {}
        }
    }
    if path.len() > PATH_BYTES_MAX { Err("has more than 4095 bytes") } else { Ok(path) }
}

/// Refuses a file that is where another one is, and one that would lie in a file or have a file in it.
fn check_place(file: &ObjectFile, others: &[ObjectFile], places: &BTreeMap<String, usize>) -> Result<(), Invalid> {
    let found = |path: &str| places.get(path).and_then(|at| others.get(*at));
    if let Some(other) = found(&file.path) {
        let (one, two) = (&other.reference, &file.reference);
        return Err(Invalid(match one.kind == two.kind && other.target == file.target {
            true => format!(
                "{} references '{}' and '{}' have a conflicting target: '{}'",
                one.kind, one.name, two.name, file.target
            ),
            false => format!(
                "{} and {} would both be {}: give one of them another target",
                other.label(),
                file.label(),
                file.path
            ),
        }));
    }
    let folders = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
    let inside = format!("{}/", file.path);
    let first_inside = places.range(inside.clone()..).next().filter(|(path, _)| path.starts_with(&inside));
    let pair = folders
        .filter_map(found)
        .next()
        .map(|outer| (outer, file))
        .or_else(|| first_inside.and_then(|(_, at)| others.get(*at)).map(|inner| (file, inner)));
    match pair {
        None => Ok(()),
        Some((outer, inner)) => Err(Invalid(format!(
            "{} would be the file {}, and {} would lie in it as {}: give one of them another target",
            outer.label(),
            outer.path,
            inner.label(),
            inner.path
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::ObjectKind;

    fn files(spec: Value) -> Result<Vec<ObjectFile>, String> {
        serde_json::from_value::<ContainerSpec>(spec).expect("a spec").object_files().map_err(|error| error.to_string())
    }

    fn secret(name: &str, file: Value) -> Value {
        json!({"SecretID": "id", "SecretName": name, "File": file})
    }

    fn config(name: &str, file: Value) -> Value {
        json!({"ConfigID": "id", "ConfigName": name, "File": file})
    }

    #[test]
    fn files_are_where_and_as_docker_has_them() {
        let found = files(json!({
            "Secrets": [
                secret("tls.key", json!({"Name": "tls.key", "UID": "0", "GID": "0", "Mode": 292})),
                secret("a", json!(null)),
                secret("b", json!({"Name": "", "UID": "", "Mode": 0})),
                secret("c", json!({"Name": "nested/deep/c", "UID": "1000", "GID": "4294967294", "Mode": 256})),
                secret("d", json!({"Name": "/etc/d"})),
            ],
            "Configs": [
                {"ConfigID": "id", "ConfigName": "a"},
                config("b", json!({"Name": "etc/b.conf", "Mode": 0o7755})),
                // Set user id, set group id, sticky, as Go has them.
                config("c", json!({"Name": "/cfg/c", "Mode": (1 << 23) | (1 << 22) | (1 << 20) | 0o750})),
            ],
        }));
        let found = found.expect("good files");
        let shown: Vec<_> =
            found.iter().map(|f| (f.label(), f.target.as_str(), f.path.as_str(), f.uid, f.gid, f.mode)).collect();
        assert_eq!(
            shown,
            [
                ("secret 'tls.key'".to_owned(), "tls.key", "/run/secrets/tls.key", 0, 0, 0o444),
                ("secret 'a'".into(), "a", "/run/secrets/a", 0, 0, 0o444),
                ("secret 'b'".into(), "b", "/run/secrets/b", 0, 0, 0),
                ("secret 'c'".into(), "nested/deep/c", "/run/secrets/nested/deep/c", 1000, 4_294_967_294, 0o400),
                ("secret 'd'".into(), "/etc/d", "/etc/d", 0, 0, 0o444),
                ("config 'a'".into(), "a", "/a", 0, 0, 0o444),
                ("config 'b'".into(), "etc/b.conf", "/etc/b.conf", 0, 0, 0o7755),
                ("config 'c'".into(), "/cfg/c", "/cfg/c", 0, 0, 0o7750),
            ]
        );
        let reference = ObjectReference { kind: ObjectKind::Secret, id: "id".into(), name: "tls.key".into() };
        assert_eq!(found[0].reference, reference);
        for nothing in [json!({}), json!({"Secrets": null, "Configs": []}), json!({"Secrets": {}, "Configs": ""})] {
            assert_eq!(files(nothing), Ok(Vec::new()));
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_its_place_and_its_value() {
        let of_secret = |file: Value| json!({"Secrets": [secret("first", json!(null)), secret("s", file)]});
        for (spec, expected) in [
            (json!({"Secrets": "x"}), "ContainerSpec.Secrets \"x\": a list is expected"),
            (
                json!({"Configs": ["x"]}),
                "ContainerSpec.Configs[0] \"x\": an object with ConfigID, ConfigName and File is expected",
            ),
            (
                json!({"Secrets": [{"SecretID": "x"}]}),
                "ContainerSpec.Secrets[0]: SecretID \"x\" and SecretName \"\" must both be there, and belong to one secret",
            ),
            (
                json!({"Configs": [{"ConfigName": "x"}]}),
                "ContainerSpec.Configs[0]: ConfigID \"\" and ConfigName \"x\" must",
            ),
            (json!({"Configs": [{"ConfigID": 5}]}), "ContainerSpec.Configs[0].ConfigID 5: a text is expected"),
            (
                json!({"Configs": [{"ConfigID": "x", "ConfigName": "x", "Runtime": {}}]}),
                "ContainerSpec.Configs[0].Runtime is for credential specs of Windows",
            ),
            (of_secret(json!("x")), "ContainerSpec.Secrets[1].File \"x\": an object is expected"),
            (of_secret(json!({"UID": "www-data"})), "Secrets[1].File.UID \"www-data\": a number from 0 to 4294967294"),
            (of_secret(json!({"UID": 5})), "Secrets[1].File.UID 5: a text is expected"),
            (of_secret(json!({"GID": "+5"})), "Secrets[1].File.GID \"+5\": a number"),
            (of_secret(json!({"GID": "4294967295"})), "File.GID \"4294967295\": a number"),
            (of_secret(json!({"Mode": -1})), "Secrets[1].File.Mode -1: permission bits as a decimal number"),
            (of_secret(json!({"Mode": "0444"})), "File.Mode \"0444\": permission bits"),
            (
                of_secret(json!({"Mode": 4096})),
                "File.Mode 4096: permission bits as a decimal number are expected, at most 4095",
            ),
            // A folder, to Go.
            (of_secret(json!({"Mode": 2_147_484_013_u64})), "File.Mode 2147484013: permission bits"),
            (of_secret(json!({"Name": "../s"})), "Secrets[1].File.Name \"../s\": the target must be a plain path"),
            (of_secret(json!({"Name": "/etc/./s"})), "the target must be a plain path"),
            (of_secret(json!({"Name": "/"})), "File.Name \"/\": the target must be the path of a file"),
            (of_secret(json!({"Name": "a/"})), "the target must be the path of a file"),
            (of_secret(json!({"Name": "a//b"})), "the target must be the path of a file"),
            (of_secret(json!({"Name": "a\0"})), "File.Name \"a\\0\": the target has a NUL character"),
            (of_secret(json!({"Name": "x".repeat(256)})), "a name of more than 255 bytes"),
            (of_secret(json!({"Name": "/x".repeat(2048)})), "more than 4095 bytes"),
            (
                json!({"Secrets": [{"SecretID": "x", "SecretName": ".."}]}),
                "ContainerSpec.Secrets[0].SecretName \"..\": the target must be a plain path",
            ),
        ] {
            let error = files(spec.clone()).expect_err(expected);
            assert!(error.contains(expected), "{spec}: {error}");
        }
    }

    #[test]
    fn two_files_are_in_two_places() {
        let at = |name: &str| json!({"Name": name});
        for (spec, expected) in [
            (
                json!({"Secrets": [secret("a", at("x")), secret("b", at("x"))]}),
                "secret references 'a' and 'b' have a conflicting target: 'x'",
            ),
            (
                json!({"Configs": [config("a", at("/x")), config("b", at("/x"))]}),
                "config references 'a' and 'b' have a conflicting target: '/x'",
            ),
            (
                json!({"Configs": [config("a", at("/x")), config("b", at("x"))]}),
                "config 'a' and config 'b' would both be /x: give one of them another target",
            ),
            (
                json!({"Secrets": [secret("a", at("x"))], "Configs": [config("b", at("run/secrets/x"))]}),
                "secret 'a' and config 'b' would both be /run/secrets/x: give one of them another target",
            ),
            (
                json!({"Secrets": [secret("a", at("x")), secret("b", at("x/y/z"))]}),
                "secret 'a' would be the file /run/secrets/x, and secret 'b' would lie in it as /run/secrets/x/y/z",
            ),
            (
                json!({"Secrets": [secret("a", at("x/y")), secret("c", at("x.y")), secret("b", at("x"))]}),
                "secret 'b' would be the file /run/secrets/x, and secret 'a' would lie in it as /run/secrets/x/y",
            ),
        ] {
            let error = files(spec.clone()).expect_err(expected);
            assert!(error.starts_with(expected), "{spec}: {error}");
        }
        let beside = json!({"Secrets": [secret("a", at("x")), secret("b", at("x.y")), secret("a", at("xy/z"))]});
        assert_eq!(files(beside).map(|files| files.len()), Ok(3));
    }

    proptest! {
        #[test]
        fn any_item_is_a_file_or_refused(
            target in "\\PC{0,12}|[/.a\0]{0,8}",
            owner in "\\PC{0,8}|[0-9]{0,11}",
            mode in any::<u64>(),
        ) {
            let file = json!({"Name": target, "UID": owner, "Mode": mode});
            if let Ok(found) = files(json!({"Configs": [config("c", file.clone())], "Secrets": [secret("s", file)]})) {
                for file in found {
                    prop_assert!(file.path.starts_with('/') && file.mode <= 0o7777, "{:?}", file);
                    prop_assert!(file.path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
                }
            }
        }
    }
}
