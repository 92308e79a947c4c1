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
    #[arg(long = "placement-pref", value_name = "spread=LABEL", value_parser = parse_new_preference)]
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

/// Reads a preference that a service may have, `spread=LABEL`.
///
/// # Errors
/// Another kind, or no label.
pub(super) fn parse_preference(text: &str) -> Result<PlacementPreference, String> {
    match text.split_once('=').map(|(kind, label)| (kind.trim(), label.trim())) {
        Some((kind, label)) if kind.eq_ignore_ascii_case("spread") && !label.is_empty() => Ok(PlacementPreference {
            spread: Some(SpreadOver { spread_descriptor: label.to_owned(), ..SpreadOver::default() }),
            ..PlacementPreference::default()
        }),
        _ => Err(no_preference(text)),
    }
}

/// Reads a preference that a service is to get. The scheduler spreads over labels of nodes and engines alone and passes
/// by everything else without a word (swarm-behaviour §5.4): who types that is told.
///
/// # Errors
/// As [`parse_preference`], or no such label.
fn parse_new_preference(text: &str) -> Result<PlacementPreference, String> {
    let preference = parse_preference(text)?;
    let descriptor = preference.spread.iter().map(|spread| &*spread.spread_descriptor).next().unwrap_or_default();
    let is_label = ["node.labels.", "engine.labels."].iter().any(|prefix| {
        let head = descriptor.get(..prefix.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(prefix)) && descriptor.len() > prefix.len()
    });
    if is_label { Ok(preference) } else { Err(no_preference(text)) }
}

fn no_preference(text: &str) -> String {
    format!("'{text}' is not a preference; write spread=node.labels.KEY or spread=engine.labels.KEY")
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
        for wrong in ["pack=x", "spread=rack", "spread=node.labels.", "spread="] {
            assert!(spec(&["--placement-pref", wrong, "x"]).is_err_and(|e| e.contains(&format!("'{wrong}'"))));
        }
        assert!(spec(&["--placement-pref", "spread=Engine.Labels.rack", "x"]).is_ok());
    }
}
