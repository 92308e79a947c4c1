//! Named objects, such as secrets: people make them, and services use them. All kinds are kept, changed and removed in one
//! way. Only their contents differ.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ConfigContent, ContainerSpec, Invalid, Labels, NetworkContent, ObjectId, SecretBytes, SecretContent, ServiceSpec,
    Timestamp, validate::validate_labels,
};

/// Longest name of an object, as in Swarm. It is a part of paths and of file names.
pub const OBJECT_NAME_LEN_MAX: usize = 64;

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Data that only the tasks that use it may see.
    Secret,
    /// Data that tasks get as a file.
    Config,
    /// A network across nodes that tasks join.
    Network,
}

impl ObjectKind {
    /// The kind in a word, such as `secret`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object. Keys of one kind stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// An object. Its name and its content stay as they were when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedObject {
    /// Its id.
    pub id: ObjectId,
    /// Log index of its last change: what `?version=` names.
    pub version: u64,
    /// When it was made (the cluster's clock).
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Its name, which no other object of its kind has, without regard to case.
    pub name: String,
    /// Its labels: all of it that can be changed.
    pub labels: Labels,
    /// Its content.
    pub content: Arc<ObjectContent>,
}

impl NamedObject {
    /// Its kind and its id.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.content.kind(), id: self.id }
    }
}

/// The content of an object, by its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectContent {
    /// Of a secret.
    Secret(SecretContent),
    /// Of a config.
    Config(ConfigContent),
    /// Of a network.
    Network(NetworkContent),
}

impl ObjectContent {
    /// The kind of such an object.
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Secret(_) => ObjectKind::Secret,
            Self::Config(_) => ObjectKind::Config,
            Self::Network(_) => ObjectKind::Network,
        }
    }

    /// The data; none for an object that is no data.
    pub const fn data(&self) -> Option<&SecretBytes> {
        match self {
            Self::Secret(content) => Some(&content.data),
            Self::Config(content) => Some(&content.data),
            Self::Network(_) => None,
        }
    }

    /// The language of the placeholders in the data; none if the data has no placeholders.
    pub const fn templating(&self) -> Option<Templating> {
        match self {
            Self::Secret(content) => content.templating,
            Self::Config(content) => content.templating,
            Self::Network(_) => None,
        }
    }

    /// The content of a secret, if it is one.
    pub const fn as_secret(&self) -> Option<&SecretContent> {
        match self {
            Self::Secret(content) => Some(content),
            _ => None,
        }
    }

    /// The content of a config, if it is one.
    pub const fn as_config(&self) -> Option<&ConfigContent> {
        match self {
            Self::Config(content) => Some(content),
            _ => None,
        }
    }

    /// The content of a network, if it is one.
    pub const fn as_network(&self) -> Option<&NetworkContent> {
        match self {
            Self::Network(content) => Some(content),
            _ => None,
        }
    }
}

/// The language of the placeholders in an object's data, such as `{{env "NAME"}}` (swarm-behaviour §7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Templating {
    /// Go's templates.
    Golang,
}

impl Templating {
    /// The name of it that clients use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Golang => "golang",
        }
    }
}

/// A list of a container spec that names objects.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceList {
    /// The field.
    pub field: &'static str,
    /// The kind of what it names.
    pub kind: ObjectKind,
    /// The field of an item that has the id.
    pub id: &'static str,
    /// The field of an item that has the name.
    pub name: &'static str,
    /// Folder of the files in the container whose target is not absolute.
    pub folder: &'static str,
}

/// The lists of a container spec that name objects.
pub const REFERENCES: &[ReferenceList] = &[
    ReferenceList {
        field: "Secrets",
        kind: ObjectKind::Secret,
        id: "SecretID",
        name: "SecretName",
        folder: "/run/secrets",
    },
    ReferenceList { field: "Configs", kind: ObjectKind::Config, id: "ConfigID", name: "ConfigName", folder: "" },
];

/// An object as a container spec names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its id, as the user gave it.
    pub id: String,
    /// Its name, for people.
    pub name: String,
}

impl ObjectReference {
    /// The key, if the id is one.
    pub fn key(&self) -> Option<ObjectKey> {
        Some(ObjectKey { kind: self.kind, id: self.id.parse().ok()? })
    }
}

impl ServiceSpec {
    /// Whether its tasks use named objects.
    pub fn names_objects(&self) -> bool {
        self.objects().next().is_some()
    }

    /// The named objects that its tasks use.
    pub fn objects(&self) -> impl Iterator<Item = ObjectKey> + '_ {
        let files = self.task_template.container_spec.references().into_iter().filter_map(|reference| reference.key());
        files.chain(self.network_ids().map(|id| ObjectKey { kind: ObjectKind::Network, id }))
    }
}

impl ContainerSpec {
    /// The objects that it names. The lists of them are kept as they came: managers of 0.1.0 know nothing of them, and
    /// compare specs in the same way.
    pub fn references(&self) -> Vec<ObjectReference> {
        let lists = REFERENCES.iter().filter_map(|list| Some((list, self.extra.get(list.field)?.as_array()?)));
        let items = lists.flat_map(|(list, items)| items.iter().map(move |item| (list, item)));
        let text = |item: &Value, field: &str| item.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        items
            .map(|(list, item)| ObjectReference {
                kind: list.kind,
                id: text(item, list.id),
                name: text(item, list.name),
            })
            .collect()
    }
}

/// Checks the name and the labels of an object (swarm-behaviour §1.2).
///
/// # Errors
/// The first rule that they break.
pub fn validate_object(name: &str, labels: &Labels) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid("name must be provided".into()));
    }
    let edge = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| edge(c) || matches!(c, '-' | '_' | '.');
    if name.len() > OBJECT_NAME_LEN_MAX || !name.chars().all(inner) || !name.starts_with(edge) || !name.ends_with(edge)
    {
        return Err(Invalid(format!(
            "invalid name, only {OBJECT_NAME_LEN_MAX} [a-zA-Z0-9-_.] characters allowed, and the start and end character \
             must be [a-zA-Z0-9]: '{name}'"
        )));
    }
    validate_labels(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_as_in_swarm() {
        let longest = "a".repeat(OBJECT_NAME_LEN_MAX);
        for name in ["a", "7", "tls.key", "a-_.b", "A__b", &longest] {
            assert_eq!(validate_object(name, &Labels::new()), Ok(()), "{name}");
        }
        let too_long = "a".repeat(OBJECT_NAME_LEN_MAX + 1);
        for name in ["", ".a", "a.", "-a", "a_", "a b", "a/b", "é", "..", &too_long] {
            let error = validate_object(name, &Labels::new()).expect_err(name).to_string();
            assert!(
                name.is_empty() || error.starts_with("invalid name, only 64 ") && error.ends_with(&format!("'{name}'"))
            );
        }
        assert!(validate_object("a", &Labels::from([(String::new(), "x".into())])).is_err());
    }

    #[test]
    fn a_spec_names_its_objects() {
        let read = |json| serde_json::from_value::<ContainerSpec>(json).expect("test spec").references();
        let id = ObjectId(7);
        let found = read(json!({"Secrets": [{"SecretID": id.to_string(), "SecretName": "key"}, {"SecretName": "x"}]}));
        assert_eq!(found[0], ObjectReference { kind: ObjectKind::Secret, id: id.to_string(), name: "key".into() });
        assert_eq!(found[0].key(), Some(ObjectKey { kind: ObjectKind::Secret, id }));
        assert_eq!((found.len(), found[1].key()), (2, None));
        for nothing in [json!({}), json!({"Secrets": []}), json!({"Secrets": {}}), json!({"Secrets": "x"})] {
            assert_eq!(read(nothing), []);
        }
    }

    #[test]
    fn an_object_is_read_from_the_log_as_it_was_written() {
        let object = NamedObject {
            id: ObjectId(7),
            version: 3,
            created_at: Timestamp(5),
            updated_at: Timestamp(6),
            name: "key".into(),
            labels: Labels::from([("a".into(), "b".into())]),
            content: Arc::new(ObjectContent::Secret(SecretContent {
                data: b"\x00\xffs3cret".to_vec().into(),
                templating: Some(Templating::Golang),
            })),
        };
        let bytes = rmp_serde::to_vec_named(&object).expect("it can be written");
        assert_eq!(rmp_serde::from_slice::<NamedObject>(&bytes).expect("it can be read"), object);
        assert_eq!(object.key().to_string(), format!("secret {}", object.id));
    }
}
