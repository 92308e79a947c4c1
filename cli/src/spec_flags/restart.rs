//! `--restart-…`.

use swarm_model::{RestartCondition, RestartPolicy};

use super::draft::Draft;
use crate::{choice::choice, units::parse_duration};

const POLICY: &str = "TaskTemplate/RestartPolicy";

/// Flags of the restart policy. It is sent if one is set.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Restart")]
pub(super) struct RestartFlags {
    /// When a task that ended is replaced [default: any]
    #[arg(long, value_name = "CONDITION", value_parser = choice::<RestartCondition>(&["none", "on-failure", "any"]))]
    restart_condition: Option<RestartCondition>,
    /// Time before a restart [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    restart_delay: Option<i64>,
    /// Most restarts of a task (0: no limit)
    #[arg(long, value_name = "N")]
    restart_max_attempts: Option<u64>,
    /// Time over which restarts are counted (0: always)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    restart_window: Option<i64>,
}

impl RestartFlags {
    /// Writes what is set. A service without a policy gets the defaults of the rest.
    pub(super) fn apply(&self, draft: &mut Draft) {
        if *self == Self::default() {
            return;
        }
        if draft.get(POLICY).is_none() {
            let delay_ns = Some(RestartPolicy::DELAY_DEFAULT_NS);
            draft.set(POLICY, RestartPolicy { delay_ns, ..RestartPolicy::default() });
        }
        draft.set_some(&format!("{POLICY}/Condition"), self.restart_condition);
        draft.set_some(&format!("{POLICY}/Delay"), self.restart_delay);
        draft.set_some(&format!("{POLICY}/MaxAttempts"), self.restart_max_attempts);
        draft.put_some(&format!("{POLICY}/Window"), self.restart_window);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::{edited, spec};

    #[test]
    fn one_flag_brings_the_defaults_of_the_others() {
        assert_eq!(
            serde_json::to_value(spec(&["--restart-max-attempts", "3", "x"]).unwrap().task_template.restart_policy)
                .unwrap(),
            json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 3})
        );
        assert_eq!(spec(&["x"]).unwrap().task_template.restart_policy, None);
        let policy = json!({"RestartPolicy": {"Condition": "none", "Delay": 0, "Jitter": 1}});
        assert_eq!(
            edited(json!({"TaskTemplate": policy}), &["--restart-delay", "1s", "--restart-window", "0"]),
            Ok(json!({"TaskTemplate": {"RestartPolicy": {"Condition": "none", "Delay": 1_000_000_000, "Jitter": 1}}}))
        );
        for flag in
            ["--restart-delay", "--restart-window", "--update-monitor", "--stop-grace-period", "--health-interval"]
        {
            let error = spec(&[flag, "-5s", "x"]).unwrap_err();
            assert!(error.contains("must not be negative, got '-5s'"), "{error}");
        }
        assert!(spec(&["--restart-condition", "never", "x"]).is_err_and(|e| e.contains("on-failure")));
    }
}
