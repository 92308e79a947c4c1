//! Settings of a service that Docker's API has no field for: labels that begin with `swarmd.`, so that they survive a
//! `docker service update` (design §6).

mod ingress;

use std::ops::Bound;

pub use self::ingress::{Ingress, IngressChoice};
use crate::{Constraint, ConstraintKey, Invalid, Labels, format_duration, parse_duration};

/// Labels with this prefix are settings; one that is not known is refused, so that a misspelt one is never taken for
/// a note.
pub const SETTINGS_PREFIX: &str = "swarmd.";

/// Shortest start deadline: an engine under load needs seconds to create a container.
const DEADLINE_MIN_NS: i64 = 1_000_000_000;
/// Longest start deadline: a day. What takes longer is waited for by no one.
const DEADLINE_MAX_NS: i64 = 24 * 3_600_000_000_000;

/// Longest time that connections to a task may last once it is to stop: the stop of a task must not wait for ever.
const DRAIN_MAX_NS: i64 = 3_600_000_000_000;

/// How a service is placed when its placement preferences are satisfied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlacementStrategy {
    /// As evenly as possible: on the node with the fewest tasks of the service, then with the fewest of all.
    #[default]
    Spread,
    /// As close together as possible: on the node that is fullest and still has room.
    Pack,
}

/// How many tasks of a service may be away at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// So many.
    Tasks(u32),
    /// So many of a hundred, rounded down, but at least one: with none allowed nothing could ever be replaced.
    Percent(u32),
}

impl MaxUnavailable {
    /// How many tasks that is, of so many that are wanted; at least 1.
    pub fn of(self, wanted: u64) -> u64 {
        match self {
            Self::Tasks(tasks) => u64::from(tasks),
            Self::Percent(percent) => (wanted * u64::from(percent) / 100).max(1),
        }
    }
}

/// The settings of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `swarmd.restart.backoff=true|false`: each restart in a row waits twice as long as the one before.
    pub restart_backoff: bool,
    /// `swarmd.rebalance=true|false`: tasks move to nodes that come or come back, through the rolling updater.
    pub rebalance: bool,
    /// `swarmd.update.deadline=2m`: nanoseconds after which a task that an update made and that does not run yet
    /// counts as failed.
    pub update_deadline_ns: Option<i64>,
    /// `swarmd.placement=spread|pack`.
    pub strategy: PlacementStrategy,
    /// `swarmd.placement.prefer=node.labels.disk==ssd,node.hostname!=db1`: nodes that meet more of these come first.
    pub prefer: Vec<Constraint>,
    /// `swarmd.ingress.…`: how connections to ingress ports find their tasks.
    pub ingress: Ingress,
    /// `swarmd.max-unavailable=2|25%`: drain, update and rebalance together never take more tasks away.
    pub max_unavailable: Option<MaxUnavailable>,
    /// `swarmd.drain=10s`: nanoseconds that connections to a task may last once it is to stop.
    pub drain_ns: Option<i64>,
}

/// Whether a label is ours, or so near to it that it is a setting misspelt: `swarmd`, `SWARMD.rebalance`, one with a
/// blank before it.
fn is_own(key: &str) -> bool {
    let key = key.trim();
    let name = SETTINGS_PREFIX.trim_end_matches('.');
    let is_near = key.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    is_near && matches!(key.as_bytes().get(name.len()), None | Some(b'.'))
}

impl Settings {
    /// Reads the settings among the labels of a service.
    ///
    /// # Errors
    /// A label with the prefix that is no setting, or a value that the setting cannot have.
    pub fn parse(labels: &Labels) -> Result<Self, Invalid> {
        let mut settings = Self::default();
        for (key, value) in labels.iter().filter(|(key, _)| is_own(key)) {
            let name = key.strip_prefix(SETTINGS_PREFIX).unwrap_or_default();
            settings.set(name, value).map_err(|reason| match reason {
                Reason::Unknown => Invalid(format!(
                    "unknown label '{key}': swarmd, and what begins with {SETTINGS_PREFIX}, are settings; there are {}",
                    KEYS.map(|key| format!("{SETTINGS_PREFIX}{key}")).join(", ")
                )),
                Reason::Value(expected) => {
                    Invalid(format!("invalid value '{value}' of label {key}: it must be {expected}"))
                }
            })?;
        }
        Ok(settings)
    }

    /// The settings of a service that was accepted: a label that this version does not know (a newer manager took
    /// it) changes nothing.
    pub fn of(labels: &Labels) -> Self {
        let mut settings = Self::default();
        for (key, value) in labels.range::<str, _>((Bound::Included(SETTINGS_PREFIX), Bound::Unbounded)) {
            let Some(key) = key.strip_prefix(SETTINGS_PREFIX) else { break };
            let _ = settings.set(key, value);
        }
        settings
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Reason> {
        if let Some(key) = key.strip_prefix("ingress.") {
            return self.ingress.set(key, value);
        }
        match key {
            "restart.backoff" => self.restart_backoff = flag(value)?,
            "rebalance" => self.rebalance = flag(value)?,
            "update.deadline" => self.update_deadline_ns = Some(deadline(value)?),
            "placement" => {
                self.strategy = match value {
                    "spread" => PlacementStrategy::Spread,
                    "pack" => PlacementStrategy::Pack,
                    _ => return Err(Reason::Value("spread or pack".into())),
                }
            }
            "placement.prefer" => {
                self.prefer = value.split(',').map(preferred).collect::<Result<_, _>>()?;
            }
            "drain" => self.drain_ns = Some(drain(value)?),
            "max-unavailable" => self.max_unavailable = Some(max_unavailable(value)?),
            _ => return Err(Reason::Unknown),
        }
        Ok(())
    }
}

/// How long the drain of a node goes by the policies of its services, if nothing else is said (one hour, in
/// nanoseconds).
pub const DRAIN_TIMEOUT_DEFAULT_NS: i64 = 3_600_000_000_000;

/// The one setting that a node can have as a label.
const NODE_KEY: &str = "drain";
const BY_POLICY: &str = "policy";

/// Whether the labels of a node say that it is drained by the policies of its services (`swarmd.drain=policy`).
pub fn drains_by_policy(labels: &Labels) -> bool {
    labels.get(&format!("{SETTINGS_PREFIX}{NODE_KEY}")).is_some_and(|value| value == BY_POLICY)
}

/// Checks the settings among the labels of a node. A label that it has already (`old`) is not looked at.
///
/// # Errors
/// A label with the prefix that is no setting of a node, or a value that the setting cannot have.
pub fn check_node_settings(labels: &Labels, old: &Labels) -> Result<(), Invalid> {
    for (key, value) in labels.iter().filter(|(key, value)| is_own(key) && old.get(*key) != Some(*value)) {
        if key.strip_prefix(SETTINGS_PREFIX) != Some(NODE_KEY) {
            return Err(Invalid(format!(
                "unknown label '{key}' of a node: swarmd, and what begins with {SETTINGS_PREFIX}, are settings; a node has \
                 {SETTINGS_PREFIX}{NODE_KEY}"
            )));
        }
        if value != BY_POLICY {
            return Err(Invalid(format!("invalid value '{value}' of label {key}: it must be {BY_POLICY}")));
        }
    }
    Ok(())
}

/// The settings, for the text that lists them.
const KEYS: [&str; 15] = [
    "drain",
    "ingress.accept-proxy",
    "ingress.affinity",
    "ingress.connections-max",
    "ingress.mode",
    "ingress.prefer",
    "ingress.protocol",
    "ingress.rate-max",
    "ingress.source",
    "max-unavailable",
    "placement",
    "placement.prefer",
    "rebalance",
    "restart.backoff",
    "update.deadline",
];

/// Why a setting was not taken.
enum Reason {
    Unknown,
    /// What the value must be.
    Value(String),
}

fn flag(value: &str) -> Result<bool, Reason> {
    value.parse().map_err(|_| Reason::Value("true or false".into()))
}

fn deadline(value: &str) -> Result<i64, Reason> {
    parse_duration(value).ok().filter(|ns| (DEADLINE_MIN_NS..=DEADLINE_MAX_NS).contains(ns)).ok_or_else(|| {
        let (min, max) = (format_duration(DEADLINE_MIN_NS), format_duration(DEADLINE_MAX_NS));
        Reason::Value(format!("a duration from {min} to {max}, such as 2m"))
    })
}

fn drain(value: &str) -> Result<i64, Reason> {
    parse_duration(value)
        .ok()
        .filter(|ns| (0..=DRAIN_MAX_NS).contains(ns))
        .ok_or_else(|| Reason::Value(format!("a duration from 0s to {}, such as 10s", format_duration(DRAIN_MAX_NS))))
}

fn preferred(text: &str) -> Result<Constraint, Reason> {
    let constraint =
        Constraint::parse(text.trim()).map_err(|e| Reason::Value(format!("a list of constraints: {e}")))?;
    match &constraint.key {
        // As a constraint it would be met by no node, which shows; as a preference nobody would ever notice.
        ConstraintKey::Unknown(key) => Err(Reason::Value(format!("a list of constraints: nodes have no '{key}'"))),
        _ => Ok(constraint),
    }
}

fn max_unavailable(value: &str) -> Result<MaxUnavailable, Reason> {
    let digits = value.strip_suffix('%').unwrap_or(value);
    let number = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match number {
        Some(percent @ 1..=100) if digits.len() < value.len() => Ok(MaxUnavailable::Percent(percent)),
        Some(tasks @ 1..) if digits.len() == value.len() => Ok(MaxUnavailable::Tasks(tasks)),
        _ => Err(Reason::Value("a number of tasks from 1, or a percentage from 1% to 100%".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::IngressSource;

    fn parse(labels: &[(&str, &str)]) -> Result<Settings, Invalid> {
        Settings::parse(&labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn each_setting_is_read() {
        let settings = parse(&[
            ("swarmd.drain", "30s"),
            ("swarmd.ingress.accept-proxy", "10.0.0.0/8, 2001:db8::1"),
            ("swarmd.ingress.affinity", "client"),
            ("swarmd.ingress.connections-max", "100"),
            ("swarmd.ingress.protocol", "http"),
            ("swarmd.ingress.rate-max", "10"),
            ("swarmd.ingress.prefer", "local"),
            ("swarmd.ingress.source", "proxy"),
            ("swarmd.max-unavailable", "25%"),
            ("swarmd.placement", "pack"),
            ("swarmd.placement.prefer", "node.labels.disk==ssd, node.hostname!=db1"),
            ("swarmd.rebalance", "true"),
            ("swarmd.restart.backoff", "true"),
            ("swarmd.update.deadline", "1m30s"),
            ("swarmdash", "someone else's"),
            ("swarm", "note"),
        ])
        .expect("all are right");
        assert_eq!(settings.drain_ns, Some(30_000_000_000));
        assert_eq!(settings.max_unavailable, Some(MaxUnavailable::Percent(25)));
        let (source, choice) = (IngressSource::Proxy, IngressChoice::PreferLocal);
        let (connections_max, rate_max) = (NonZeroU32::new(100), NonZeroU32::new(10));
        let proxies = ["10.0.0.0/8", "2001:db8::1/128"].map(|network| network.parse().expect("a network")).to_vec();
        let ingress = Ingress { source, choice, has_affinity: true, connections_max, rate_max, proxies, is_http: true };
        assert_eq!(settings.ingress, ingress);
        let local =
            parse(&[("swarmd.ingress.mode", "local"), ("swarmd.ingress.prefer", "any")]).expect("all are right");
        assert_eq!(local.ingress, Ingress { choice: IngressChoice::OnlyLocal, ..Ingress::default() });
        assert_eq!(settings.strategy, PlacementStrategy::Pack);
        assert_eq!(settings.prefer.len(), 2);
        assert!(settings.rebalance && settings.restart_backoff);
        assert_eq!(settings.update_deadline_ns, Some(90_000_000_000));
        assert_eq!(parse(&[("a", "b")]), Ok(Settings::default()));
    }

    #[test]
    fn a_node_has_the_drain_by_policy_as_its_only_setting() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let right = labels(&[("swarmd.drain", "policy"), ("zone", "a")]);
        assert_eq!(check_node_settings(&right, &Labels::new()), Ok(()));
        assert!(drains_by_policy(&right) && !drains_by_policy(&labels(&[("swarmd.drain", "now")])));
        for (key, value, part) in [
            ("swarmd.drian", "policy", "unknown label 'swarmd.drian' of a node"),
            ("SWARMD.drain", "policy", "unknown label"),
            ("swarmd.drain", "Policy", "it must be policy"),
            ("swarmd.drain", "", "it must be policy"),
        ] {
            let given = labels(&[(key, value)]);
            let error = check_node_settings(&given, &Labels::new()).expect_err(key).to_string();
            assert!(error.contains(part), "{key}={value}: {error}");
            assert_eq!(check_node_settings(&given, &given), Ok(()), "the node has it already");
        }
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_with_what_would_be_right() {
        for (key, value, part) in [
            ("swarmd.rebalence", "true", "unknown label 'swarmd.rebalence'"),
            ("swarmd.", "true", "unknown label"),
            ("swarmd", "true", "unknown label"),
            ("SWARMD.rebalance", "true", "unknown label"),
            (" swarmd.rebalance", "true", "unknown label"),
            ("swarmd.rebalance", "yes", "true or false"),
            ("swarmd.restart.backoff", "", "true or false"),
            ("swarmd.ingress.source", "Client", "client, node, proxy or proxy-v1"),
            ("swarmd.ingress.mode", "host", "cluster or local"),
            ("swarmd.ingress.prefer", "here", "any or local"),
            ("swarmd.ingress.affinity", "cookie", "client or none"),
            ("swarmd.ingress.connections-max", "0", "from 1"),
            ("swarmd.ingress.rate-max", "+5", "from 1"),
            ("swarmd.ingress.rate-max", "4294967296", "from 1 to 4294967295"),
            ("swarmd.ingress.accept-proxy", "10.0.0.0/8,", "and '' is none"),
            ("swarmd.ingress.accept-proxy", "10.0.0.0/33", "a list of networks"),
            ("swarmd.ingress.protocol", "HTTP", "tcp or http"),
            ("swarmd.ingress.sauce", "node", "unknown label"),
            ("swarmd.update.deadline", "10", "a duration from 1s"),
            ("swarmd.update.deadline", "1ms", "a duration from 1s"),
            ("swarmd.drain", "policy", "a duration from 0s"),
            ("swarmd.drain", "61m", "a duration from 0s to 1h"),
            ("swarmd.placement", "binpack", "spread or pack"),
            ("swarmd.placement.prefer", "disk", "it must be"),
            ("swarmd.placement.prefer", "node.lables.disk==ssd", "nodes have no 'node.lables.disk'"),
            ("swarmd.max-unavailable", "0", "from 1"),
            ("swarmd.max-unavailable", "0%", "from 1"),
            ("swarmd.max-unavailable", "101%", "from 1"),
            ("swarmd.max-unavailable", "+3", "from 1"),
        ] {
            let error = parse(&[(key, value)]).expect_err(value).to_string();
            assert!(error.contains(part) && error.contains(key), "{key}={value}: {error}");
        }
    }

    #[test]
    fn a_preference_that_could_do_nothing_is_refused() {
        let labels = [("swarmd.ingress.mode", "local"), ("swarmd.ingress.prefer", "local")];
        let error = parse(&labels).expect_err("both").to_string();
        assert!(error.contains("swarmd.ingress.prefer") && error.contains("left out"), "{error}");
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(Settings::of(&Labels::from(labels)).ingress.choice, IngressChoice::OnlyLocal);
    }

    #[test]
    fn a_proxy_is_known_by_its_network() {
        let ingress = parse(&[("swarmd.ingress.accept-proxy", "10.0.0.0/8,2001:db8::1")]).expect("it is right").ingress;
        for (addr, is_proxy) in
            [("10.9.9.9", true), ("::ffff:10.9.9.9", true), ("11.0.0.1", false), ("2001:db8::2", false)]
        {
            assert_eq!(ingress.is_proxy(addr.parse().expect("an address")), is_proxy, "{addr}");
        }
    }

    #[test]
    fn a_share_of_few_tasks_is_still_one() {
        assert_eq!(MaxUnavailable::Percent(25).of(3), 1);
        assert_eq!(MaxUnavailable::Percent(25).of(8), 2);
        assert_eq!(MaxUnavailable::Tasks(3).of(1), 3);
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(
            key in "(drain|max-unavailable|placement|placement.prefer|update.deadline|rebalance|ingress\\.[a-z-]{4,16})",
            value in "\\PC{0,24}",
        ) {
            let _ = parse(&[(&format!("swarmd.{key}"), &value)]);
        }
    }
}
