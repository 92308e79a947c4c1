//! Settings of the cluster that `init` and `update` share.

use serde_json::{Value, json};
use swarm_model::ClusterSpec;

use crate::units::parse_duration;

/// Flags of the settings.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct SettingsFlags {
    /// How long node certificates are valid [default: 2160h0m0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    cert_expiry: Option<i64>,
    /// Time between two heartbeats of a node [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    dispatcher_heartbeat: Option<i64>,
    /// Older snapshots of the Raft log to keep [default: 0]
    #[arg(long, value_name = "N")]
    max_snapshots: Option<u64>,
    /// Log entries between two snapshots, which large entries bring sooner [default: 10000]
    #[arg(long, value_name = "N")]
    snapshot_interval: Option<u64>,
    /// Ended tasks to keep; negative keeps all [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    task_history_limit: Option<i64>,
}

impl SettingsFlags {
    /// Writes what is set into a new spec.
    pub(super) fn apply(&self, spec: &mut ClusterSpec) {
        spec.orchestration.task_history_retention_limit = self.task_history_limit;
        spec.ca_config.node_cert_expiry_ns = self.cert_expiry.unwrap_or(0);
        spec.dispatcher.heartbeat_period_ns = self.dispatcher_heartbeat.unwrap_or(0);
        spec.raft.keep_old_snapshots = self.max_snapshots.unwrap_or(0);
        spec.raft.snapshot_interval = self.snapshot_interval.unwrap_or(0);
    }

    /// Writes what is set into a spec as the server showed it, so that what this program does not know survives.
    pub(super) fn change(&self, spec: &mut Value) {
        let values = [
            ("Orchestration", "TaskHistoryRetentionLimit", self.task_history_limit.map(Value::from)),
            ("CAConfig", "NodeCertExpiry", self.cert_expiry.map(Value::from)),
            ("Dispatcher", "HeartbeatPeriod", self.dispatcher_heartbeat.map(Value::from)),
            ("Raft", "KeepOldSnapshots", self.max_snapshots.map(Value::from)),
            ("Raft", "SnapshotInterval", self.snapshot_interval.map(Value::from)),
        ];
        for (section, name, value) in values {
            if let Some(value) = value {
                set(spec, section, name, value);
            }
        }
    }
}

/// Sets a field of a section, which is made if it is missing. Something that is no object is left to the server,
/// whose spec it is.
pub(super) fn set(spec: &mut Value, section: &str, name: &str, value: Value) {
    if let Value::Object(fields) = spec
        && let Value::Object(section) = fields.entry(section).or_insert_with(|| json!({}))
    {
        section.insert(name.to_owned(), value);
    }
}
