//! The values of settings.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use swarm_model::{GenericResource, NodeResources};

/// The container engine of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// A Docker Engine behind a Unix socket.
    Docker(PathBuf),
    /// None: containers are pretended in memory.
    Simulated,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the node offers to tasks instead of all that the engine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeLimits {
    /// Billionths of a CPU.
    pub(crate) nano_cpus: Option<i64>,
    /// Bytes.
    pub(crate) memory_bytes: Option<i64>,
    /// Generic resources; with any setting here, those of the engine are not offered.
    pub(crate) generic: Vec<GenericResource>,
}

impl NodeLimits {
    /// What tasks can reserve: what is set, and of the rest what the machine has. None if nothing is set.
    pub(crate) fn resources(&self) -> Option<NodeResources> {
        let set = self.nano_cpus.is_some() || self.memory_bytes.is_some() || !self.generic.is_empty();
        let cpus = || std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
        let memory = || i64::try_from(rustix::system::sysinfo().totalram).unwrap_or(i64::MAX);
        set.then(|| NodeResources {
            nano_cpus: self.nano_cpus.unwrap_or_else(|| cpus() * 1_000_000_000),
            memory_bytes: self.memory_bytes.unwrap_or_else(memory),
            generic_resources: self.generic.clone(),
        })
    }
}

pub(super) fn parse_engine(text: &str) -> Result<Engine> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(Engine::Docker(path.into())),
        _ if text == "simulated" => Ok(Engine::Simulated),
        _ => bail!("possible are unix:///absolute/path/of/docker.sock and simulated"),
    }
}

pub(super) fn parse_log_format(text: &str) -> Result<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => bail!("possible are text and json"),
    }
}

pub(super) fn parse_label(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => bail!("a label is written KEY=VALUE"),
    }
}

pub(super) fn parse_limits(text: &str) -> Result<NodeLimits> {
    let mut limits = NodeLimits::default();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.split_once('=') {
            Some(("cpu", n)) => {
                limits.nano_cpus = Some(decimal(n, 1_000_000_000).context("cpu: a number such as 1.5")?)
            }
            Some(("memory", size)) => {
                limits.memory_bytes = Some(bytes(size).context("memory: a size such as 512m or 4g")?)
            }
            _ => bail!("{part:?} is neither cpu=N nor memory=SIZE"),
        }
    }
    Ok(limits)
}

/// Generic resources as dockerd takes them: `SSD=3` is a count, `GPU=uuid1` a name, of which there can be several
/// (swarm-behaviour §5.7).
pub(super) fn parse_generic(texts: &[String]) -> Result<Vec<GenericResource>> {
    let mut resources: Vec<GenericResource> = Vec::new();
    for text in texts {
        let (kind, value) = text
            .split_once('=')
            .map(|(kind, value)| (kind.trim(), value.trim()))
            .filter(|(kind, value)| !kind.is_empty() && !value.is_empty())
            .with_context(|| format!("{text:?}: a generic resource is written KIND=NUMBER or KIND=NAME"))?;
        let resource = match value.parse::<i64>() {
            Ok(value) if value >= 0 => GenericResource::Discrete { kind: kind.into(), value },
            Ok(_) => bail!("{text:?}: there cannot be fewer than none"),
            Err(_) => GenericResource::Named { kind: kind.into(), value: value.into() },
        };
        if resources.contains(&resource) {
            bail!("{text:?} is there twice");
        }
        let is_name = |resource: &GenericResource| matches!(resource, GenericResource::Named { .. });
        if resources.iter().any(|known| kind_of(known) == kind && !(is_name(known) && is_name(&resource))) {
            bail!("{kind} is either counted once or named, not both");
        }
        resources.push(resource);
    }
    Ok(resources)
}

fn kind_of(resource: &GenericResource) -> &str {
    match resource {
        GenericResource::Discrete { kind, .. } | GenericResource::Named { kind, .. } => kind,
    }
}

/// A size in Docker's notation: a decimal number and b, k, m, g or t (powers of 1024), with or without a following
/// `b` or `ib`.
fn bytes(text: &str) -> Result<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        other => bail!("unknown unit {other:?}"),
    };
    decimal(number, unit)
}

/// A positive decimal number times `unit`, exact to the ninth digit.
fn decimal(text: &str, unit: i64) -> Result<i64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if whole.len() > 12 || fraction.len() > 9 || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        bail!("{text:?} is not a number in range");
    }
    let billionths: i128 = format!("0{whole}{fraction:0<9}").parse()?;
    let value = i64::try_from(billionths * i128::from(unit) / 1_000_000_000)?;
    if value > 0 { Ok(value) } else { bail!("it must be more than zero") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resources_in_dockers_notation() {
        let limits = parse_limits("cpu=1.5, memory=2g").unwrap();
        assert_eq!(limits, NodeLimits { nano_cpus: Some(1_500_000_000), memory_bytes: Some(2 << 30), generic: vec![] });
        assert_eq!(parse_limits("memory=512MiB").unwrap().memory_bytes, Some(512 << 20));
        assert_eq!(parse_limits("memory=1.5k").unwrap().memory_bytes, Some(1536));
        assert_eq!(parse_limits("").unwrap(), NodeLimits::default());
        for bad in ["cpu", "cpu=", "cpu=-1", "cpu=0", "cpu=1e3", "memory=5x", "disk=1", "memory=99999999t", "cpu=1.5.5"]
        {
            assert!(parse_limits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generic_resources_are_counted_or_named() {
        let parse = |texts: &[&str]| parse_generic(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let (count, name) = (
            |n| GenericResource::Discrete { kind: "SSD".into(), value: n },
            |name: &str| GenericResource::Named { kind: "GPU".into(), value: name.into() },
        );
        assert_eq!(parse(&["SSD=3", "GPU=a", "GPU=b"]).unwrap(), [count(3), name("a"), name("b")]);
        for bad in [
            &["SSD"][..],
            &["SSD="],
            &["=1"],
            &["SSD=-1"],
            &["SSD=1", "SSD=2"],
            &["GPU=a", "GPU=a"],
            &["GPU=a", "GPU=1"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn engines_are_sockets_or_simulated() {
        assert_eq!(parse_engine("unix:///run/d.sock").unwrap(), Engine::Docker("/run/d.sock".into()));
        assert_eq!(parse_engine("simulated").unwrap(), Engine::Simulated);
        for bad in ["", "tcp://1.2.3.4:2375", "unix://d.sock", "/var/run/docker.sock"] {
            assert!(parse_engine(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(cpu=|memory=)?\\PC{0,20}") {
            let _ = parse_limits(&text);
            let _ = parse_label(&text);
            let _ = parse_engine(&text);
            let _ = parse_generic(&[text]);
        }
    }
}
