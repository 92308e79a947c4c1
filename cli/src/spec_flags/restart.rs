//! `--restart-…`.

use swarm_model::{RestartCondition, RestartPolicy};

use crate::{choice::choice, units::parse_duration};

/// Flags of the restart policy. It is sent if one is set.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Restart")]
pub(super) struct RestartFlags {
    /// When a task that ended is replaced [default: any]
    #[arg(long, value_name = "CONDITION", value_parser = choice::<RestartCondition>(&["none", "on-failure", "any"]))]
    restart_condition: Option<RestartCondition>,
    /// Time before a restart [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_delay: Option<i64>,
    /// Most restarts of a task (0: no limit)
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// Time over which restarts are counted (0: always)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    restart_window: Option<i64>,
}

impl RestartFlags {
    /// The restart policy, if a flag is set.
    pub(super) fn policy(&self) -> Option<RestartPolicy> {
        let is_set = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        is_set.then(|| RestartPolicy {
            condition: self.restart_condition.unwrap_or_default(),
            delay_ns: Some(self.restart_delay.unwrap_or(RestartPolicy::DELAY_DEFAULT_NS)),
            max_attempts: self.restart_max_attempts.unwrap_or(0),
            window_ns: self.restart_window.unwrap_or(0),
            ..RestartPolicy::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::spec;

    #[test]
    fn one_flag_brings_the_defaults_of_the_others() {
        assert_eq!(
            serde_json::to_value(spec(&["--restart-max-attempts", "3", "x"]).unwrap().task_template.restart_policy)
                .unwrap(),
            json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 3})
        );
        assert_eq!(spec(&["x"]).unwrap().task_template.restart_policy, None);
        assert!(spec(&["--restart-condition", "never", "x"]).is_err_and(|e| e.contains("on-failure")));
    }
}
