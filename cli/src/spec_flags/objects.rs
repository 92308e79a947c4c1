//! `--secret` and `--config`: the files that tasks get from objects.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};
use swarm_model::{OBJECT_FILE_MODE_DEFAULT, ObjectKind, REFERENCES, ReferenceList};

use super::{
    container::container,
    csv,
    draft::Draft,
    key_value::{MODE_MAX, parse_octal},
};

/// User and group of a file of which nothing is said.
const OWNER_DEFAULT: &str = "0";

/// The objects that tasks get as files.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Secrets and configs")]
pub(super) struct ObjectFlags {
    /// Secret, the file /run/secrets/TARGET: NAME, or source=,target=,uid=,gid=,mode=; can be repeated
    #[arg(long, value_name = "SECRET", value_parser = parse_file)]
    secret: Vec<FileFlag>,
    /// Config, the file /TARGET: NAME, or source=,target=,uid=,gid=,mode=; can be repeated
    #[arg(long, value_name = "CONFIG", value_parser = parse_file)]
    config: Vec<FileFlag>,
}

impl ObjectFlags {
    fn of(&self, kind: ObjectKind) -> &[FileFlag] {
        match kind {
            ObjectKind::Secret => &self.secret,
            ObjectKind::Config => &self.config,
            // Networks are no files: they have flags of their own.
            ObjectKind::Network => &[],
        }
    }

    /// The names of the objects.
    pub(super) fn names(&self) -> Vec<(ObjectKind, &str)> {
        let of = |kind| self.of(kind).iter().map(move |file| (kind, file.source.as_str()));
        REFERENCES.iter().flat_map(|list| of(list.kind)).collect()
    }

    /// Adds the files to a spec. A file of the same object with the same target is replaced. The server refuses files that
    /// cannot go together.
    ///
    /// # Errors
    /// An object whose id is not there.
    pub(super) fn apply(&self, draft: &mut Draft, ids: &ObjectIds) -> anyhow::Result<()> {
        for list in REFERENCES {
            let item = |file: &FileFlag| Ok(file.reference(list, ids.get(list.kind, &file.source)?));
            let items = self.of(list.kind).iter().map(item).collect::<anyhow::Result<Vec<_>>>()?;
            let key = |item: &Value| Some((name(list, item)?.to_owned(), target(list, item)?.to_owned()));
            draft.merge(&container(list.field), items, |a, b| key(a) == key(b));
        }
        Ok(())
    }
}

/// Takes the files of an object out of a spec: those of the object of this name, or else the one with this target.
pub(super) fn discard(draft: &mut Draft, kind: ObjectKind, text: &str) {
    for list in REFERENCES.iter().filter(|list| list.kind == kind) {
        let path = container(list.field);
        let is_name = draft.list(&path).iter().any(|item| name(list, item) == Some(text));
        let of = if is_name { name } else { target };
        draft.discard(&path, &format!("--{kind}-rm {text}"), |item| of(list, item) == Some(text));
    }
}

/// The name of the object that an item of a list names.
fn name<'v>(list: &ReferenceList, item: &'v Value) -> Option<&'v str> {
    item.get(list.name)?.as_str()
}

/// The target of its file.
fn target<'v>(list: &ReferenceList, item: &'v Value) -> Option<&'v str> {
    let given = item.pointer("/File/Name").and_then(Value::as_str).filter(|target| !target.is_empty());
    given.or_else(|| name(list, item))
}

/// The ids of objects. The API takes them beside the names, and whoever makes a spec looks them up.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectIds(BTreeMap<(ObjectKind, String), String>);

impl ObjectIds {
    /// Adds one.
    pub(crate) fn insert(&mut self, kind: ObjectKind, name: &str, id: &str) {
        self.0.insert((kind, name.to_owned()), id.to_owned());
    }

    /// The id of an object.
    ///
    /// # Errors
    /// The object was not looked up.
    pub(super) fn get(&self, kind: ObjectKind, name: &str) -> anyhow::Result<&str> {
        let id = self.0.get(&(kind, name.to_owned()));
        id.map(String::as_str).with_context(|| format!("{kind} not found: {name}"))
    }
}

/// A file as a flag asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileFlag {
    source: String,
    target: String,
    uid: String,
    gid: String,
    mode: u32,
}

impl FileFlag {
    fn new(source: &str) -> Self {
        Self {
            source: source.to_owned(),
            target: source.to_owned(),
            uid: OWNER_DEFAULT.to_owned(),
            gid: OWNER_DEFAULT.to_owned(),
            mode: OBJECT_FILE_MODE_DEFAULT,
        }
    }

    /// As the API takes it.
    fn reference(&self, list: &ReferenceList, id: &str) -> Value {
        let Self { source, target, uid, gid, mode } = self;
        let file = json!({"Name": target, "UID": uid, "GID": gid, "Mode": mode});
        json!({"File": file, (list.id): id, (list.name): source})
    }

    /// From the API; none if it is not as this program writes it.
    fn read(list: &ReferenceList, item: &Value) -> Option<Self> {
        let mut flag = Self { target: target(list, item)?.to_owned(), ..Self::new(name(list, item)?) };
        let Some(file) = item.get("File").filter(|file| !file.is_null()) else { return Some(flag) };
        for (field, owner) in [("UID", &mut flag.uid), ("GID", &mut flag.gid)] {
            match file.get(field).map(Value::as_str) {
                None | Some(Some("")) => {}
                Some(text) => *owner = text?.to_owned(),
            }
        }
        if let Some(mode) = file.get("Mode") {
            flag.mode = u32::try_from(mode.as_u64()?).ok().filter(|mode| *mode <= MODE_MAX)?;
        }
        Some(flag)
    }

    /// As a flag is written, without what is a default.
    fn text(&self) -> String {
        let Self { source, target, uid, gid, mode } = self;
        let default = Self::new(source);
        if *self == default && !source.contains(['=', ',', '"']) {
            return source.clone();
        }
        let mut fields = vec![format!("source={source}")];
        for (key, value, default) in
            [("target", target, source), ("uid", uid, &default.uid), ("gid", gid, &default.gid)]
        {
            if value != default {
                fields.push(format!("{key}={value}"));
            }
        }
        if *mode != default.mode {
            fields.push(format!("mode=0{mode:03o}"));
        }
        let quoted = |field: String| match field.contains([',', '"']) {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field,
        };
        fields.into_iter().map(quoted).collect::<Vec<_>>().join(",")
    }
}

/// The value of a field that names objects, as people write it; none if the field names none, or the value is not one that this
/// program writes.
pub(crate) fn notation(field: &str, value: &Value) -> Option<String> {
    let list = REFERENCES.iter().find(|list| list.field == field)?;
    match value {
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| notation(field, item)).collect();
            Some(format!("[{}]", texts?.join("; ")))
        }
        item => FileFlag::read(list, item).map(|flag| flag.text()),
    }
}

/// Reads `NAME`, or `source=NAME,target=PATH,uid=N,gid=N,mode=0444`.
fn parse_file(text: &str) -> Result<FileFlag, String> {
    const EXAMPLE: &str = "write for example source=key,target=tls.key,mode=0400";
    if let [name] = csv::split(text)?.as_slice()
        && !name.contains('=')
    {
        return if name.is_empty() { Err(format!("a name is missing; {EXAMPLE}")) } else { Ok(FileFlag::new(name)) };
    }
    let mut file = FileFlag { target: String::new(), ..FileFlag::new("") };
    for (key, value) in csv::pairs(text)? {
        let value = value.ok_or_else(|| format!("'{key}' in '{text}' needs a value; {EXAMPLE}"))?;
        match key.as_str() {
            "source" | "src" => file.source = value,
            "target" => file.target = value,
            "uid" => file.uid = value,
            "gid" => file.gid = value,
            "mode" => {
                file.mode = parse_mode(&value).ok_or_else(|| {
                    format!(
                        "the mode '{value}' in '{text}' must be octal with a 0 in front, 0 to 07777, for example 0440"
                    )
                })?;
            }
            _ => return Err(format!("unknown key '{key}' in '{text}'; there are source, target, uid, gid, mode")),
        }
    }
    if file.source.is_empty() {
        return Err(format!("'{text}' has no source; {EXAMPLE}"));
    }
    if file.target.is_empty() {
        file.target.clone_from(&file.source);
    }
    for owner in [&mut file.uid, &mut file.gid].into_iter().filter(|owner| owner.is_empty()) {
        OWNER_DEFAULT.clone_into(owner);
    }
    Ok(file)
}

/// Permission bits in octal, with a 0 in front. Without one Docker takes a number for a decimal one, and people do not.
fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").or_else(|| text.starts_with('0').then_some(text))?;
    parse_octal(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec_flags::testing::{edited, spec};

    #[test]
    fn files_are_written_as_docker_writes_them() {
        let line = ["--secret", "key", "--secret", "source=db,target=/etc/db,uid=1000,gid=7,mode=0400"];
        let line = [&line[..], &["--config", "SRC=site.conf", "--config", "target=\"a,b\"", "x"]].concat();
        // A quote in the middle of a field is none of CSV.
        assert!(spec(&line).is_err_and(|e| e.contains("middle of a field")));
        let line = [&line[..7], &["\"target=a,b\",source=c", "x"]].concat();
        let container = serde_json::to_value(spec(&line).unwrap().task_template.container_spec).unwrap();
        let item = |kind: &str, source: &str, target: &str, (uid, gid, mode): (&str, &str, u32)| {
            let id = format!("id-of-{}-{source}", kind.to_lowercase());
            let file = json!({"Name": target, "UID": uid, "GID": gid, "Mode": mode});
            json!({"File": file, (format!("{kind}ID")): id, (format!("{kind}Name")): source})
        };
        let plain = ("0", "0", 292);
        let secrets = [item("Secret", "key", "key", plain), item("Secret", "db", "/etc/db", ("1000", "7", 256))];
        let configs = [item("Config", "site.conf", "site.conf", plain), item("Config", "c", "a,b", plain)];
        assert_eq!((&container["Secrets"], &container["Configs"]), (&json!(secrets), &json!(configs)));
        // The id must have been looked up.
        let flags = ObjectFlags { secret: vec![FileFlag::new("key")], config: Vec::new() };
        let error = flags.apply(&mut Draft::of(json!({})), &ObjectIds::default()).unwrap_err();
        assert_eq!(error.to_string(), "secret not found: key");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "a name is missing"),
            ("target=x", "'target=x' has no source; write for example source=key"),
            ("source=,target=x", "has no source"),
            ("key,mode=0400", "'key' in 'key,mode=0400' needs a value"),
            (
                "source=key,owner=5",
                "unknown key 'owner' in 'source=key,owner=5'; there are source, target, uid, gid, mode",
            ),
            ("source=key,mode=440", "the mode '440' in 'source=key,mode=440' must be octal with a 0 in front"),
            ("source=key,mode=0448", "the mode '0448'"),
            ("source=key,mode=0o+44", "the mode '0o+44'"),
            ("source=key,mode=0o", "the mode '0o'"),
            ("source=key,mode=010000", "0 to 07777"),
            ("source=key,mode=", "the mode ''"),
            ("source=key,mode=r", "the mode 'r'"),
        ] {
            assert!(parse_file(text).is_err_and(|error| error.contains(part)), "{text}: {:?}", parse_file(text));
        }
        let owned = parse_file("source=key,uid=,gid=").map(|file| (file.uid, file.gid));
        assert_eq!(owned, Ok((OWNER_DEFAULT.to_owned(), OWNER_DEFAULT.to_owned())));
        let mode = |text: &str| parse_file(&format!("src=key,mode={text}")).map(|file| file.mode);
        assert_eq!([mode("0"), mode("00"), mode("0o440"), mode("07777")], [Ok(0), Ok(0), Ok(0o440), Ok(0o7777)]);
    }

    #[test]
    fn the_same_file_takes_its_place() {
        let before = json!({"TaskTemplate": {"ContainerSpec": {"Secrets": [
            {"File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "old", "SecretName": "key"},
            {"File": {"Name": "x", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "old", "SecretName": "key"}]}}});
        let after = edited(before.clone(), &["--secret-add", "source=key,mode=0400"]).unwrap();
        let mut expected = before;
        expected["TaskTemplate"]["ContainerSpec"]["Secrets"][0] = json!({
            "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 256}, "SecretID": "id-of-secret-key", "SecretName": "key"});
        assert_eq!(after, expected);
        // By its target, where no object has that name.
        let after = edited(after, &["--secret-rm", "x"]).unwrap();
        assert_eq!(after["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array().map(Vec::len), Some(1));
        assert_eq!(edited(after, &["--secret-rm", "key"]), Ok(json!({"TaskTemplate": {"ContainerSpec": {}}})));
    }

    #[test]
    fn only_what_this_program_writes_has_a_notation() {
        for (field, value, text) in [
            ("Secrets", json!({"SecretName": "key", "SecretID": "x"}), Some("key")),
            ("Configs", json!([{"ConfigName": "a", "File": null}, {"ConfigName": "b"}]), Some("[a; b]")),
            ("Secrets", json!({"ConfigName": "key"}), None),
            ("Secrets", json!({"SecretName": "key", "File": {"GID": "5"}}), Some("source=key,gid=5")),
            ("Secrets", json!({"SecretName": "key", "File": {"Mode": 1 << 23}}), None),
            ("Secrets", json!({"SecretName": "key", "File": {"UID": 5}}), None),
            ("Secrets", json!("x"), None),
            ("Mounts", json!({"SecretName": "key"}), None),
        ] {
            assert_eq!(notation(field, &value).as_deref(), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_file_or_refused(text in "\\PC{0,20}|(source|target|mode|uid|src|x)=?[a-z0-9/=,\"]{0,20}") {
            if let Ok(file) = parse_file(&text) {
                let item = file.reference(&REFERENCES[0], "id");
                prop_assert_eq!(FileFlag::read(&REFERENCES[0], &item), Some(file));
            }
        }

        #[test]
        fn what_is_shown_can_be_written(
            (source, target) in ("[a-z,=\"./]{1,6}", "[a-z,=\"./ü]{1,8}"),
            (uid, gid) in ("[0-9]{1,4}", "[0-9]{1,4}"),
            mode in 0..=MODE_MAX,
        ) {
            let file = FileFlag { source, target, uid, gid, mode };
            prop_assert_eq!(parse_file(&file.text()), Ok(file));
        }
    }
}
