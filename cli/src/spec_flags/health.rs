//! `--health-…`.

use swarm_model::HealthConfig;

use crate::units::parse_duration;

/// Flags of the health check; those that are not set are the image's.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Health check")]
pub(super) struct HealthFlags {
    /// Command that checks health, run by a shell
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks, for example 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_interval: Option<i64>,
    /// Time after which a check counts as failed
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_timeout: Option<i64>,
    /// Failures in a row that make the container unhealthy
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// Time at the start during which failures do not count
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_period: Option<i64>,
    /// Time between two checks during the start period
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    health_start_interval: Option<i64>,
    /// Run no health check, not even the image's
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
}

impl HealthFlags {
    /// The health check, if a flag is set.
    pub(super) fn config(&self) -> Option<HealthConfig> {
        if self.no_healthcheck {
            return Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() });
        }
        let config = HealthConfig {
            test: self.health_cmd.iter().flat_map(|cmd| ["CMD-SHELL".to_owned(), cmd.clone()]).collect(),
            interval_ns: self.health_interval.unwrap_or(0),
            timeout_ns: self.health_timeout.unwrap_or(0),
            start_period_ns: self.health_start_period.unwrap_or(0),
            start_interval_ns: self.health_start_interval.unwrap_or(0),
            retries: self.health_retries.unwrap_or(0).into(),
            ..HealthConfig::default()
        };
        (config != HealthConfig::default()).then_some(config)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::spec;

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
}
