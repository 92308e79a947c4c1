//! `--update-…` and `--rollback-…`.

use swarm_model::{FailureAction, UpdateConfig, UpdateOrder};

use super::draft::Draft;
use crate::{choice::choice, units::parse_duration};

const ORDERS: &[&str] = &["stop-first", "start-first"];

/// Flags of rolling updates. The block is sent if one is set.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Rolling update")]
pub(super) struct UpdateFlags {
    /// Tasks updated at the same time (0: all at once) [default: 1]
    #[arg(long, value_name = "N")]
    update_parallelism: Option<u64>,
    /// Time between two updates [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    update_delay: Option<i64>,
    /// Time during which the end of a new task counts as a failure [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    update_monitor: Option<i64>,
    /// What a failed update leads to [default: pause]
    #[arg(long, value_name = "ACTION", value_parser = choice::<FailureAction>(&["pause", "continue", "rollback"]))]
    update_failure_action: Option<FailureAction>,
    /// Share of failures that is tolerated, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    update_max_failure_ratio: Option<f64>,
    /// Whether the old task stops before the new one starts [default: stop-first]
    #[arg(long, value_name = "ORDER", value_parser = choice::<UpdateOrder>(ORDERS))]
    update_order: Option<UpdateOrder>,
}

/// Flags of rollbacks. The block is sent if one is set.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Rollback")]
pub(super) struct RollbackFlags {
    /// Tasks rolled back at the same time (0: all at once) [default: 1]
    #[arg(long, value_name = "N")]
    rollback_parallelism: Option<u64>,
    /// Time between two rollbacks [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    rollback_delay: Option<i64>,
    /// Time during which the end of a task counts as a failure [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    rollback_monitor: Option<i64>,
    /// What a failed rollback leads to [default: pause]
    #[arg(long, value_name = "ACTION", value_parser = choice::<FailureAction>(&["pause", "continue"]))]
    rollback_failure_action: Option<FailureAction>,
    /// Share of failures that is tolerated, 0 to 1 [default: 0]
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    rollback_max_failure_ratio: Option<f64>,
    /// Whether the old task stops before the new one starts [default: stop-first]
    #[arg(long, value_name = "ORDER", value_parser = choice::<UpdateOrder>(ORDERS))]
    rollback_order: Option<UpdateOrder>,
}

/// Either set of flags.
#[derive(Default, PartialEq)]
struct Policy {
    parallelism: Option<u64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    failure_action: Option<FailureAction>,
    max_failure_ratio: Option<f64>,
    order: Option<UpdateOrder>,
}

impl Policy {
    /// Writes what is set. A service without this block gets the defaults of the rest.
    fn apply(self, draft: &mut Draft, block: &str) {
        if self == Self::default() {
            return;
        }
        if draft.get(block).is_none() {
            let monitor_ns = Some(UpdateConfig::MONITOR_DEFAULT_NS);
            draft.set(block, UpdateConfig { monitor_ns, ..UpdateConfig::when_absent() });
        }
        draft.set_some(&format!("{block}/Parallelism"), self.parallelism);
        draft.put_some(&format!("{block}/Delay"), self.delay);
        draft.set_some(&format!("{block}/Monitor"), self.monitor);
        draft.set_some(&format!("{block}/FailureAction"), self.failure_action);
        draft.set_some(&format!("{block}/MaxFailureRatio"), self.max_failure_ratio);
        draft.set_some(&format!("{block}/Order"), self.order);
    }
}

impl UpdateFlags {
    /// Writes what is set.
    pub(super) fn apply(&self, draft: &mut Draft) {
        let policy = Policy {
            parallelism: self.update_parallelism,
            delay: self.update_delay,
            monitor: self.update_monitor,
            failure_action: self.update_failure_action,
            max_failure_ratio: self.update_max_failure_ratio,
            order: self.update_order,
        };
        policy.apply(draft, "UpdateConfig");
    }
}

impl RollbackFlags {
    /// Writes what is set.
    pub(super) fn apply(&self, draft: &mut Draft) {
        let policy = Policy {
            parallelism: self.rollback_parallelism,
            delay: self.rollback_delay,
            monitor: self.rollback_monitor,
            failure_action: self.rollback_failure_action,
            max_failure_ratio: self.rollback_max_failure_ratio,
            order: self.rollback_order,
        };
        policy.apply(draft, "RollbackConfig");
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("'{text}' is not a share between 0 and 1")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::{edited, spec};

    #[test]
    fn one_flag_brings_the_defaults_of_the_others() {
        let spec = spec(&["--update-delay", "1s", "--rollback-order", "start-first", "x"]).unwrap();
        assert_eq!(
            serde_json::to_value(spec.update_config).unwrap(),
            json!({"Parallelism": 1, "Delay": 1_000_000_000, "FailureAction": "pause",
                "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.0, "Order": "stop-first"})
        );
        assert_eq!(
            serde_json::to_value(spec.rollback_config).unwrap(),
            json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
                "MaxFailureRatio": 0.0, "Order": "start-first"})
        );
    }

    #[test]
    fn nothing_is_sent_if_nothing_is_said() {
        let plain = spec(&["x"]).unwrap();
        assert_eq!((plain.update_config, plain.rollback_config), (None, None));
    }

    #[test]
    fn one_field_of_a_block_changes_alone() {
        let spec = json!({"UpdateConfig": {"Parallelism": 0, "Delay": 7, "MaxFailureRatio": 0.1, "New": [1]}});
        let line = ["--update-max-failure-ratio", "0.2", "--update-delay", "0s", "--rollback-parallelism", "0"];
        assert_eq!(
            edited(spec, &line),
            Ok(json!({"UpdateConfig": {"Parallelism": 0, "MaxFailureRatio": 0.2, "New": [1]},
                "RollbackConfig": {"Parallelism": 0, "FailureAction": "pause", "Monitor": 5_000_000_000_i64,
                    "MaxFailureRatio": 0.0, "Order": "stop-first"}}))
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (line, part) in [
            (["--update-max-failure-ratio", "2", "x"], "'2'"),
            (["--update-max-failure-ratio", "NaN", "x"], "'NaN'"),
            (["--rollback-failure-action", "rollback", "x"], "'rollback'"),
            (["--update-delay", "tomorrow", "x"], "'tomorrow'"),
        ] {
            assert!(spec(&line).is_err_and(|e| e.contains(part)), "{line:?}");
        }
    }
}
