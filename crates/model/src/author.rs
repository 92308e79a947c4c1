//! Authors of changes.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Longest text of a principal, in characters; what is longer is cut. Linux allows names of users up to 256 bytes, host
/// names have at most 253.
const TEXT_LEN_MAX: usize = 256;

const USER: &str = "user";
const NODE: &str = "node";
const POLICY: &str = "policy";
/// The only policy that changes what users set: `FailureAction: rollback`.
const UPDATE: &str = "update";

/// A user, a node or a policy that acts. The manager finds out which one; it never believes what the caller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A user of the machine whose socket was called.
    User {
        /// The number.
        uid: u32,
        /// The name that the machine knew for the number.
        name: Option<Arc<str>>,
    },
    /// A node of the cluster, by its certificate.
    Node(NodeName),
    /// The failure action of a service's update.
    UpdatePolicy,
    /// Another kind, of a later version: it is kept and shown as it came.
    Other {
        /// The kind.
        kind: Arc<str>,
        /// The name.
        name: Arc<str>,
        /// The id; may be empty.
        id: Arc<str>,
    },
}

/// A node as it was called at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// The node.
    pub id: NodeId,
    /// Its host name; empty if it had not said it yet.
    pub name: Arc<str>,
}

/// The author of a change: a principal, and the node whose socket was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Author {
    /// The principal.
    pub principal: Principal,
    /// The node whose socket was called; none for a change that no call asked for.
    pub node: Option<NodeName>,
}

impl Principal {
    /// A user, by number and name.
    pub fn user(uid: u32, name: Option<&str>) -> Self {
        Self::User { uid, name: name.map(plain).filter(|name| !name.is_empty()) }
    }

    /// The kind of the principal, such as `user` or `node`.
    pub fn kind(&self) -> &str {
        match self {
            Self::User { .. } => USER,
            Self::Node(_) => NODE,
            Self::UpdatePolicy => POLICY,
            Self::Other { kind, .. } => kind,
        }
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &str {
        match self {
            Self::User { name, .. } => name.as_deref().unwrap_or_default(),
            Self::Node(node) => &node.name,
            Self::UpdatePolicy => UPDATE,
            Self::Other { name, .. } => name,
        }
    }

    /// Its id: the number of a user, the id of a node; empty if it has none.
    pub fn id(&self) -> String {
        match self {
            Self::User { uid, .. } => uid.to_string(),
            Self::Node(node) => node.id.to_string(),
            Self::UpdatePolicy => String::new(),
            Self::Other { id, .. } => id.as_ref().to_owned(),
        }
    }

    /// The principal of which these are kind, name and id. What this version does not know stays as it is.
    pub fn from_parts(kind: &str, name: &str, id: &str) -> Self {
        let known = match kind {
            USER => id.parse().ok().map(|uid| Self::user(uid, Some(name))),
            NODE => id.parse().ok().map(|id| Self::Node(NodeName::new(id, name))),
            POLICY if name == UPDATE => Some(Self::UpdatePolicy),
            _ => None,
        };
        // `007` is no number of a user that would be written so again.
        known.filter(|known| known.id() == id).unwrap_or_else(|| Self::Other {
            kind: plain(kind),
            name: plain(name),
            id: plain(id),
        })
    }
}

impl NodeName {
    /// A node and its host name.
    pub fn new(id: NodeId, name: &str) -> Self {
        Self { id, name: plain(name) }
    }
}

impl Author {
    /// The author of a change that no call asked for.
    pub fn of(principal: Principal) -> Self {
        Self { principal, node: None }
    }
}

/// A text for a line of a log or a table: nothing in it steers a terminal, and it has an end.
fn plain(text: &str) -> Arc<str> {
    let is_plain = |c: char| !c.is_control();
    if text.len() <= TEXT_LEN_MAX && text.chars().all(is_plain) {
        return text.into();
    }
    let shown = |c| if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER };
    text.chars().take(TEXT_LEN_MAX).map(shown).collect::<String>().into()
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { uid, name: Some(name) } => write!(f, "user {name} ({uid})"),
            Self::User { uid, name: None } => write!(f, "user {uid}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::UpdatePolicy => f.write_str("the update policy"),
            Self::Other { kind, name, id } => {
                write!(f, "{kind} {}", if name.is_empty() { id } else { name })
            }
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { self.id.fmt(f) } else { f.write_str(&self.name) }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.principal.fmt(f)?;
        match &self.node {
            // A node that called its own socket is not named twice.
            Some(node) if !matches!(&self.principal, Principal::Node(own) if own.id == node.id) => {
                write!(f, " on {node}")
            }
            _ => Ok(()),
        }
    }
}

/// An author as it is written: in texts alone, so that a kind of principal that comes later is read by every version.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    kind: Arc<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    name: Arc<str>,
    #[serde(rename = "ID", default, skip_serializing_if = "str::is_empty")]
    id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<WrittenNode>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenNode {
    #[serde(rename = "ID")]
    id: NodeId,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    name: Arc<str>,
}

impl From<Written> for Author {
    fn from(written: Written) -> Self {
        let Written { kind, name, id, node } = written;
        let node = node.map(|node| NodeName::new(node.id, &node.name));
        Self { principal: Principal::from_parts(&kind, &name, &id), node }
    }
}

impl From<Author> for Written {
    fn from(Author { principal, node }: Author) -> Self {
        Self {
            kind: principal.kind().into(),
            name: principal.name().into(),
            id: principal.id().into(),
            node: node.map(|NodeName { id, name }| WrittenNode { id, name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> NodeName {
        NodeName::new(NodeId(7), "m1")
    }

    #[test]
    fn people_read_who_it_was() {
        let user = |name| Principal::user(1000, name);
        let task = Principal::from_parts("task", "web.1", "abc");
        for (principal, alone) in [
            (user(Some("alice")), "user alice (1000)"),
            (user(None), "user 1000"),
            (user(Some("")), "user 1000"),
            (user(Some("a\u{1b}[2Jb")), "user a\u{fffd}[2Jb (1000)"),
            (Principal::Node(NodeName::new(NodeId(8), "w1")), "node w1"),
            (Principal::Node(NodeName::new(NodeId(8), "")), &format!("node {}", NodeId(8))),
            (Principal::UpdatePolicy, "the update policy"),
            (task, "task web.1"),
            (Principal::from_parts("token", "", "join"), "token join"),
        ] {
            assert_eq!(Author::of(principal.clone()).to_string(), alone);
            assert_eq!(Author { principal, node: Some(node()) }.to_string(), format!("{alone} on m1"));
        }
        let own = Author { principal: Principal::Node(node()), node: Some(node()) };
        assert_eq!(own.to_string(), "node m1");
    }

    #[test]
    fn it_is_written_in_texts() {
        let author = Author { principal: Principal::user(0, Some("root")), node: Some(node()) };
        let id = NodeId(7);
        let json = format!(r#"{{"Kind":"user","Name":"root","ID":"0","Node":{{"ID":"{id}","Name":"m1"}}}}"#);
        assert_eq!(serde_json::to_string(&author).expect("texts"), json);
        // A kind that a later version adds is read by this version as well.
        let later = r#"{"Kind":"certificate","Name":"ci","ID":"9f","Issuer":"x","Node":null}"#;
        let author: Author = serde_json::from_str(later).expect("an author");
        assert_eq!(author.to_string(), "certificate ci");
        assert_eq!(serde_json::to_string(&author).expect("texts"), r#"{"Kind":"certificate","Name":"ci","ID":"9f"}"#);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_alike(kind in "user|node|policy|\\PC{0,12}", name in "update|\\PC{0,20}|.{0,300}",
            id in "[0-9]{0,12}|\\PC{0,30}", n: u128, named: bool)
        {
            let mut author = Author::of(Principal::from_parts(&kind, &name, &id));
            let parts = [author.principal.kind(), author.principal.name(), &author.principal.id()].map(str::to_owned);
            prop_assert_eq!(parts, [&kind, &name, &id].map(|part| plain(part).to_string()), "nothing is lost");
            author.node = named.then(|| NodeName::new(NodeId(n), &name));
            let text = author.to_string();
            prop_assert!(!text.chars().any(char::is_control) && text.chars().count() <= 2 * TEXT_LEN_MAX + 32);
            let bytes = rmp_serde::to_vec_named(&author).expect("texts");
            prop_assert_eq!(&rmp_serde::from_slice::<Author>(&bytes).expect("what was written can be read"), &author);
            let json = serde_json::to_vec(&author).expect("texts");
            prop_assert_eq!(&serde_json::from_slice::<Author>(&json).expect("what was written can be read"), &author);
        }

        #[test]
        fn any_bytes_are_an_author_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = rmp_serde::from_slice::<Author>(&bytes);
            let _ = serde_json::from_slice::<Author>(&bytes);
        }
    }
}
