//! Whether nodes reach each other's data ports (`GET /swarmd/reach`), which Docker's API has no word for.

use serde::{Deserialize, Serialize};

use super::{SilentNodeView, is_default};

/// Whether nodes reach each other's data ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReachView {
    /// Pairs of nodes, one direction each.
    pub pairs: u64,
    /// The pairs that were probed: all of them, unless there are too many or a node is silent.
    pub probed: u64,
    /// The pairs in which one does not reach the other.
    pub unreached: Vec<UnreachedView>,
    /// The nodes that were asked and did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<SilentNodeView>,
    /// Why nothing was probed, for people; empty if something was.
    #[serde(skip_serializing_if = "is_default")]
    pub reason: String,
}

/// A node that does not reach another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UnreachedView {
    /// Id of the node that tried.
    #[serde(rename = "FromID")]
    pub from_id: String,
    /// Its host name.
    pub from: String,
    /// Id of the other node.
    #[serde(rename = "ToID")]
    pub to_id: String,
    /// Its host name.
    pub to: String,
    /// The data port of the other node, `address:port`.
    pub addr: String,
    /// Why, for people.
    pub reason: String,
}
