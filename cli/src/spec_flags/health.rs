//! `--health-…`.

use serde_json::json;

use super::draft::Draft;
use crate::units::parse_duration;

const CHECK: &str = "TaskTemplate/ContainerSpec/Healthcheck";

/// Flags of the health check; those that are not set are the image's.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Health check")]
pub(super) struct HealthFlags {
    /// Command that checks health, run by a shell
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, for example 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    health_interval: Option<i64>,
    /// Time after which a check counts as failed
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    health_timeout: Option<i64>,
    /// Failures in a row that make the container unhealthy
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time at the start during which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    health_start_period: Option<i64>,
    /// Time between two checks during the start period
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    health_start_interval: Option<i64>,
    /// Run no health check, not even the image's
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
}

impl HealthFlags {
    /// Writes what is set. A check that was switched off comes back with the image's command.
    pub(super) fn apply(&self, draft: &mut Draft) {
        if *self == Self::default() {
            return;
        }
        if self.no_healthcheck {
            return draft.set(CHECK, json!({"Test": ["NONE"]}));
        }
        let test = format!("{CHECK}/Test");
        if draft.list(&test).first().is_some_and(|first| first == "NONE") {
            draft.remove(&test);
        }
        match self.health_cmd.as_deref() {
            None => {}
            Some("") => draft.remove(&test),
            Some(command) => draft.set(&test, ["CMD-SHELL", command]),
        }
        draft.put_some(&format!("{CHECK}/Interval"), self.health_interval);
        draft.put_some(&format!("{CHECK}/Timeout"), self.health_timeout);
        draft.put_some(&format!("{CHECK}/StartPeriod"), self.health_start_period);
        draft.put_some(&format!("{CHECK}/StartInterval"), self.health_start_interval);
        draft.put_some(&format!("{CHECK}/Retries"), self.health_retries);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::{edited, spec};

    #[test]
    fn checks() {
        let health = |line: &[&str]| serde_json::to_value(spec(line).unwrap().task_template.container_spec.healthcheck);
        assert_eq!(health(&["x"]).unwrap(), json!(null));
        assert_eq!(health(&["--no-healthcheck", "x"]).unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(
            health(&["--health-cmd", "wget -q x", "--health-interval", "1m30s", "--health-retries", "3", "x"]).unwrap(),
            json!({"Test": ["CMD-SHELL", "wget -q x"], "Interval": 90_000_000_000_i64, "Retries": 3})
        );
        assert!(spec(&["--no-healthcheck", "--health-cmd", "x", "x"]).is_err());
        assert!(
            spec(&["--health-timeout", "soon", "x"])
                .is_err_and(|e| e.contains("'soon' is not a duration") || e.contains("'soon'"))
        );
    }
    #[test]
    fn a_check_is_changed_switched_off_and_on_again() {
        let with = |check| json!({"TaskTemplate": {"ContainerSpec": {"Healthcheck": check}}});
        let check = json!({"Test": ["CMD", "true"], "Retries": 3});
        for (before, line, after) in [
            (
                &check,
                &["--health-timeout", "1s"][..],
                json!({"Test": ["CMD", "true"], "Retries": 3, "Timeout": 1_000_000_000}),
            ),
            (&check, &["--health-retries", "0", "--health-cmd", ""], json!({})),
            (&check, &["--no-healthcheck"], json!({"Test": ["NONE"]})),
            (&json!({"Test": ["NONE"]}), &["--health-retries", "2"], json!({"Retries": 2})),
        ] {
            assert_eq!(edited(with(before.clone()), line), Ok(with(after)), "{line:?}");
        }
    }
}
