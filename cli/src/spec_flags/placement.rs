//! Where tasks may run.

use serde_json::Value;
use swarm_model::{PlacementPreference, SpreadOver};

use super::draft::Draft;

/// Where the constraints are.
pub(super) const CONSTRAINTS: &str = "TaskTemplate/Placement/Constraints";
/// Where the preferences are.
pub(super) const PREFERENCES: &str = "TaskTemplate/Placement/Preferences";

/// Flags of the placement.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Placement")]
pub(super) struct PlacementFlags {
    /// Use only nodes that match, for example node.labels.zone==east; can be repeated
    #[arg(long = "constraint", value_name = "EXPRESSION")]
    constraints: Vec<String>,
    /// Spread over the values of a label, for example spread=node.labels.rack; can be repeated
    #[arg(long = "placement-pref", value_name = "spread=LABEL", value_parser = parse_preference)]
    preferences: Vec<PlacementPreference>,
    /// Most tasks of this service on one node (0: no limit)
    #[arg(long = "replicas-max-per-node", value_name = "N")]
    pub(super) replicas_max_per_node: Option<u64>,
}

impl PlacementFlags {
    /// Writes what is set.
    pub(super) fn apply(&self, draft: &mut Draft) {
        draft.merge(CONSTRAINTS, &self.constraints, is_same_constraint);
        draft.merge(PREFERENCES, &self.preferences, PartialEq::eq);
        draft.put_some("TaskTemplate/Placement/MaxReplicas", self.replicas_max_per_node);
    }
}

/// Whether two constraints say the same, however they are spaced.
pub(super) fn is_same_constraint(a: &Value, b: &Value) -> bool {
    let bare = |text: &Value| text.as_str().map(|text| text.replace(char::is_whitespace, ""));
    bare(a) == bare(b)
}

/// Reads `spread=LABEL`.
///
/// # Errors
/// Another kind, or no label.
pub(super) fn parse_preference(text: &str) -> Result<PlacementPreference, String> {
    match text.split_once('=') {
        Some((kind, label)) if kind.trim().eq_ignore_ascii_case("spread") && !label.trim().is_empty() => {
            Ok(PlacementPreference {
                spread: Some(SpreadOver { spread_descriptor: label.trim().to_owned() }),
                ..PlacementPreference::default()
            })
        }
        _ => Err(format!("'{text}' is not a preference; write spread=node.labels.KEY")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::spec;

    #[test]
    fn constraints_and_preferences() {
        let line = ["--constraint", "node.role==worker", "--placement-pref", "spread=node.labels.dc", "x"];
        assert_eq!(
            serde_json::to_value(spec(&line).unwrap().task_template.placement).unwrap(),
            json!({"Constraints": ["node.role==worker"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.dc"}}]})
        );
        assert_eq!(spec(&["x"]).unwrap().task_template.placement, None);
        assert!(spec(&["--placement-pref", "pack=x", "x"]).is_err_and(|e| e.contains("'pack=x'")));
    }
}
