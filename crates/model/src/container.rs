//! What a task's container looks like: Docker's `ContainerSpec`, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Extra, Labels};

impl ContainerSpec {
    /// The texts that are filled in on the node of a task (swarm-behaviour §7.5), each with its path in the spec.
    pub fn templated(&self) -> Vec<(String, &str)> {
        let mut texts = vec![("Hostname".to_owned(), self.hostname.as_str())];
        texts.extend(self.env.iter().enumerate().map(|(at, text)| (format!("Env[{at}]"), text.as_str())));
        for (at, mount) in self.mounts.iter().enumerate() {
            texts.push((format!("Mounts[{at}].Source"), &mount.source));
            texts.push((format!("Mounts[{at}].Target"), &mount.target));
            let Some(volume) = &mount.volume_options else { continue };
            let options = volume.driver_config.iter().flat_map(|driver| &driver.options);
            let options = options.map(|(key, text)| (format!("DriverConfig.Options.{key}"), text));
            let labels = volume.labels.iter().map(|(key, text)| (format!("Labels.{key}"), text));
            texts.extend(
                labels.chain(options).map(|(path, text)| (format!("Mounts[{at}].VolumeOptions.{path}"), text.as_str())),
            );
        }
        texts
    }
}

/// Docker's `ContainerSpec`. Secrets and configs are kept in `extra`: see [`ContainerSpec::references`] and
/// [`ContainerSpec::object_files`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// Image reference, as given by the user or pinned to a digest by the client.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Labels of the container.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Entrypoint; empty keeps the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments; empty keeps the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Host name inside the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `KEY=VALUE` pairs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// User, or `user:group`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Additional groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Run an init process as PID 1; absent means the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Signal that asks the container to stop; empty keeps the image's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Allocate a terminal.
    #[serde(rename = "TTY", skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Keep standard input open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub open_stdin: bool,
    /// Mount the root file system read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Bind mounts, volumes, tmpfs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Nanoseconds between the stop signal and SIGKILL; absent means 10 s.
    #[serde(rename = "StopGracePeriod", skip_serializing_if = "Option::is_none")]
    pub stop_grace_period_ns: Option<i64>,
    /// Health check that replaces the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Extra `/etc/hosts` lines in the form `IP name [name…]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Resolver settings.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities on top of the default set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_add: Vec<String>,
    /// Capabilities taken from the default set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capability_drop: Vec<String>,
    /// Resource limits of processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Adjustment of the out-of-memory score, -1000 to 1000.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ContainerSpec {
    /// Time between the stop signal and SIGKILL when the spec names none: 10 s (swarm-behaviour §1.5).
    pub const STOP_GRACE_PERIOD_DEFAULT_NS: i64 = 10_000_000_000;
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A mount of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// What is mounted.
    #[serde(rename = "Type")]
    pub kind: MountType,
    /// Host path or volume name; empty for an anonymous volume and for tmpfs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path inside the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Mount read-only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Options of bind mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Options of volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Options of tmpfs mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Kinds of mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the host.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
}

/// Options of a bind mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// Mount propagation, for example `rprivate`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Do not mount what is mounted below the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Make the source folder when it is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Options of a volume mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Do not copy the image's content into a new volume.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Labels of a new volume.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Driver of a new volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<VolumeDriver>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The driver of a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeDriver {
    /// Driver name; `local` is built into the engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Driver options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Options of a tmpfs mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Size limit in bytes; 0 is unlimited.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub mode: u32,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// A health check. Zero durations inherit the engine's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", command]`; empty inherits the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    #[serde(rename = "Interval", skip_serializing_if = "is_zero")]
    pub interval_ns: i64,
    /// Nanoseconds after which a check counts as failed.
    #[serde(rename = "Timeout", skip_serializing_if = "is_zero")]
    pub timeout_ns: i64,
    /// Nanoseconds at the start during which failures do not count.
    #[serde(rename = "StartPeriod", skip_serializing_if = "is_zero")]
    pub start_period_ns: i64,
    /// Nanoseconds between two checks during the start period.
    #[serde(rename = "StartInterval", skip_serializing_if = "is_zero")]
    pub start_interval_ns: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Resolver settings of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A limit of the container's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Name, for example `nofile`.
    pub name: String,
    /// Hard limit.
    pub hard: i64,
    /// Soft limit.
    pub soft: i64,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
