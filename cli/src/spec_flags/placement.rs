//! Where tasks may run.

use swarm_model::{Placement, PlacementPreference, SpreadOver};

/// Flags of the placement.
#[derive(Clone, Debug, Default, clap::Args)]
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
    /// The placement, if a flag is set.
    pub(super) fn placement(&self) -> Option<Placement> {
        let placement = Placement {
            constraints: self.constraints.clone(),
            preferences: self.preferences.clone(),
            max_replicas: self.replicas_max_per_node.unwrap_or(0),
            ..Placement::default()
        };
        (placement != Placement::default()).then_some(placement)
    }
}

fn parse_preference(text: &str) -> Result<PlacementPreference, String> {
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
