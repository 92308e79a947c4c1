//! The fields of a service spec that this version can run, and the values of those whose type allows more.
//!
//! One table, read in one place: a field or value beyond it is refused, never kept and then ignored. An unknown field that
//! says nothing passes, so that clients may be newer than this version.

use std::{fmt, net::IpAddr};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use strsim::damerau_levenshtein;

use crate::{Extra, MemorySwap, Mount, Resources, ServiceSpec, Ulimit, says_nothing, security_options};

/// The values that one place of a spec may have.
enum Shape {
    /// Each value that the type of the field can read.
    Value,
    /// A value that a rule looks at.
    Rule(Rule),
    /// An object whose keys are the user's own.
    Keys,
    /// An object of these fields.
    Object(&'static [Field]),
    /// An object of these fields that a rule looks at as a whole.
    Checked(&'static [Field], Rule),
    /// A list of such values.
    List(&'static Shape),
    /// Docker has the field, and this version will: why it is refused until then.
    NotYet(&'static str),
    /// Docker has the field, and this version has not: why it is refused.
    Never(&'static str),
}

type Field = (&'static str, Shape);
type Rule = fn(&Value) -> Result<(), String>;

use Shape::{Checked, Keys, List, Never, NotYet, Object, Rule as Ruled, Value as Any};

const LEAVE_OUT: &str = "is not available yet: leave it out";
const WINDOWS: &str = "is for Windows, which is not supported";

const SERVICE: Shape = Object(&[
    ("Name", Any),
    ("Labels", Keys),
    ("TaskTemplate", TASK),
    ("Mode", Object(MODE)),
    ("UpdateConfig", UPDATE),
    ("RollbackConfig", UPDATE),
    ("EndpointSpec", ENDPOINT),
    // Docker's place for them before the task template had one.
    ("Networks", NETWORKS),
]);

const MODE: &[Field] = &[
    ("Replicated", Object(&[("Replicas", Any)])),
    ("Global", Object(&[])),
    ("ReplicatedJob", Object(&[("MaxConcurrent", Any), ("TotalCompletions", Any)])),
    ("GlobalJob", Object(&[])),
];

const UPDATE: Shape = Object(&[
    ("Parallelism", Any),
    ("Delay", Any),
    ("FailureAction", Any),
    ("Monitor", Any),
    ("MaxFailureRatio", Any),
    ("Order", Any),
]);

const ENDPOINT: Shape = Object(&[
    ("Mode", Any),
    (
        "Ports",
        List(&Object(&[
            ("Name", Any),
            ("Protocol", Any),
            ("TargetPort", Any),
            ("PublishedPort", Any),
            ("PublishMode", Any),
        ])),
    ),
]);

const TASK: Shape = Object(&[
    ("ContainerSpec", CONTAINER),
    (
        "Resources",
        Checked(
            &[
                ("Limits", Object(&[("NanoCPUs", Any), ("MemoryBytes", Any), ("Pids", Any)])),
                (
                    "Reservations",
                    Object(&[
                        ("NanoCPUs", Any),
                        ("MemoryBytes", Any),
                        (
                            "GenericResources",
                            List(&Object(&[("NamedResourceSpec", GENERIC), ("DiscreteResourceSpec", GENERIC)])),
                        ),
                    ]),
                ),
                ("SwapBytes", Any),
                ("MemorySwappiness", Any),
            ],
            swap,
        ),
    ),
    ("RestartPolicy", Object(&[("Condition", Any), ("Delay", Any), ("MaxAttempts", Any), ("Window", Any)])),
    (
        "Placement",
        Object(&[
            ("Constraints", Any),
            ("Preferences", List(&Object(&[("Spread", Object(&[("SpreadDescriptor", Any)]))]))),
            ("MaxReplicas", Any),
            ("Platforms", List(&Object(&[("Architecture", Any), ("OS", Any)]))),
        ]),
    ),
    ("Networks", NETWORKS),
    ("LogDriver", Object(&[("Name", Any), ("Options", Keys)])),
    ("ForceUpdate", Any),
    ("Runtime", Any),
    ("PluginSpec", NotYet(LEAVE_OUT)),
    ("NetworkAttachmentSpec", NotYet(LEAVE_OUT)),
]);

const NETWORKS: Shape = List(&Object(&[("Target", Any), ("Aliases", Any), ("DriverOpts", Keys)]));

const GENERIC: Shape = Object(&[("Kind", Any), ("Value", Any)]);

const CONTAINER: Shape = Object(&[
    ("Image", Any),
    ("Labels", Keys),
    ("Command", Any),
    ("Args", Any),
    ("Hostname", Any),
    ("Env", List(&Ruled(variable))),
    ("Dir", Ruled(folder)),
    ("User", Any),
    ("Groups", Any),
    ("Init", Any),
    ("StopSignal", Any),
    ("TTY", Any),
    ("OpenStdin", Any),
    ("ReadOnly", Any),
    ("Mounts", List(&MOUNT)),
    ("StopGracePeriod", Any),
    (
        "Healthcheck",
        Object(&[
            ("Test", Any),
            ("Interval", Any),
            ("Timeout", Any),
            ("StartPeriod", Any),
            ("StartInterval", Any),
            ("Retries", Any),
        ]),
    ),
    ("Hosts", List(&Ruled(host))),
    ("DNSConfig", Object(&[("Nameservers", List(&Ruled(address))), ("Search", Any), ("Options", Any)])),
    ("Sysctls", Keys),
    ("CapabilityAdd", Any),
    ("CapabilityDrop", Any),
    ("Ulimits", List(&Checked(&[("Name", Any), ("Hard", Any), ("Soft", Any)], limit))),
    ("OomScoreAdj", Ruled(oom_score)),
    ("Isolation", Ruled(isolation)),
    (
        "Privileges",
        Checked(
            &[
                ("CredentialSpec", Never(WINDOWS)),
                (
                    "SELinuxContext",
                    Object(&[("Disable", Any), ("User", Any), ("Role", Any), ("Type", Any), ("Level", Any)]),
                ),
                ("Seccomp", Object(&[("Mode", Any), ("Profile", Any)])),
                ("AppArmor", Object(&[("Mode", Any)])),
                ("NoNewPrivileges", Any),
            ],
            privileges,
        ),
    ),
    // `ContainerSpec::object_files` judges what they ask for.
    ("Secrets", List(&Object(&[("File", FILE), ("SecretID", Any), ("SecretName", Any)]))),
    ("Configs", List(&Object(&[("File", FILE), ("Runtime", Object(&[])), ("ConfigID", Any), ("ConfigName", Any)]))),
]);

const FILE: Shape = Object(&[("Name", Any), ("UID", Any), ("GID", Any), ("Mode", Any)]);

const NOT_BOUND_SO: &str = "is not supported: leave it out, or bind with NonRecursive";

const MOUNT: Shape = Checked(
    &[
        ("Type", Any),
        ("Source", Any),
        ("Target", Any),
        ("ReadOnly", Any),
        // Of file systems of other machines; engines on Linux take it and do nothing.
        ("Consistency", Any),
        (
            "BindOptions",
            Object(&[
                ("Propagation", Ruled(propagation)),
                ("NonRecursive", Any),
                ("CreateMountpoint", Any),
                ("ReadOnlyNonRecursive", Never(NOT_BOUND_SO)),
                ("ReadOnlyForceRecursive", Never(NOT_BOUND_SO)),
            ]),
        ),
        (
            "VolumeOptions",
            Object(&[
                ("NoCopy", Any),
                ("Labels", Keys),
                ("DriverConfig", Object(&[("Name", Any), ("Options", Keys)])),
                ("Subpath", Never("is not supported: mount the whole volume")),
            ]),
        ),
        (
            "TmpfsOptions",
            Object(&[("SizeBytes", Any), ("Mode", Any), ("Options", Never("is not supported: leave it out"))]),
        ),
        ("ClusterOptions", Never("is for volumes of a CSI driver, which are not supported")),
        ("ImageOptions", Never("is for mounts of images, which are not supported")),
    ],
    mount,
);

/// Something in a spec that this version cannot run.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfit {
    /// Where, such as `TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.Subpath`.
    pub path: String,
    /// Whether a later version will be able to.
    pub not_yet: bool,
    problem: String,
    value: Value,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.problem)
    }
}

impl Unfit {
    /// Whether it is the same that another spec has, wherever in a list: items before it may have gone.
    fn is_in(&self, others: &[Self]) -> bool {
        let place =
            |path: &str| path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
        let own: String = place(&self.path);
        others.iter().any(|other| are_alike(&other.value, &self.value) && place(&other.path) == own)
    }
}

/// Whether two values say the same: clients send fields back empty that they were not shown.
fn are_alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        _ if says_nothing(one) && says_nothing(other) => true,
        (Value::Object(one), Value::Object(other)) => {
            let field = |object: &Map<String, Value>, name: &str| object.get(name).cloned().unwrap_or_default();
            one.keys().chain(other.keys()).all(|name| are_alike(&field(one, name), &field(other, name)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| are_alike(one, other))
        }
        _ => one == other,
    }
}

/// Whether this version can run a spec, as a client sent it. A field or value that the service has already is not refused:
/// an earlier version took it.
///
/// # Errors
/// The first field or value that this version cannot run.
pub fn check_fields(given: &Value, old: Option<&ServiceSpec>) -> Result<(), Unfit> {
    let found = all(given);
    if found.is_empty() {
        return Ok(());
    }
    // A spec that was read from JSON can be written as JSON.
    let known = old.and_then(|old| serde_json::to_value(old).ok()).map(|old| all(&old)).unwrap_or_default();
    found.into_iter().find(|unfit| !unfit.is_in(&known)).map_or(Ok(()), Err)
}

fn all(spec: &Value) -> Vec<Unfit> {
    let mut found = Vec::new();
    walk(&SERVICE, spec, "", &mut found);
    found
}

fn walk(shape: &Shape, value: &Value, path: &str, found: &mut Vec<Unfit>) {
    let mut unfit = |problem: String, not_yet| {
        found.push(Unfit { path: path.to_owned(), not_yet, problem, value: value.clone() });
    };
    match (shape, value) {
        _ if says_nothing(value) => {}
        (NotYet(why), _) => unfit((*why).to_owned(), true),
        (Never(why), _) => unfit((*why).to_owned(), false),
        (Ruled(rule), value) => {
            if let Err(problem) = rule(value) {
                unfit(problem, false);
            }
        }
        (Object(fields), Value::Object(object)) => walk_object(fields, object, path, found),
        (Checked(fields, rule), Value::Object(object)) => {
            let before = found.len();
            walk_object(fields, object, path, found);
            // The problem of one field is clearer than that of the object which has the field.
            if found.len() == before
                && let Err(problem) = rule(value)
            {
                found.push(Unfit { path: path.to_owned(), not_yet: false, problem, value: value.clone() });
            }
        }
        (List(item), Value::Array(items)) => {
            for (at, value) in items.iter().enumerate() {
                walk(item, value, &format!("{path}[{at}]"), found);
            }
        }
        // The type of the field has read it.
        (Any | Keys | Object(_) | Checked(..) | List(_), _) => {}
    }
}

fn walk_object(fields: &'static [Field], object: &Map<String, Value>, path: &str, found: &mut Vec<Unfit>) {
    for (name, value) in object {
        let path = join(path, name);
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, shape)) => walk(shape, value, &path, found),
            None if says_nothing(value) => {}
            None => {
                let problem = match nearest(fields, name, &path) {
                    Some(nearest) => format!("is not a field that this version knows; the nearest one is {nearest}"),
                    None => "is not a field that this version knows: leave it out".to_owned(),
                };
                found.push(Unfit { path, not_yet: false, problem, value: value.clone() });
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The path of the known field that was most likely meant: one beside it that is spelt nearly so, one of that name
/// elsewhere, or else the one beside it that is spelt least differently.
fn nearest(fields: &'static [Field], name: &str, path: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let beside = fields
        .iter()
        .filter(|(_, shape)| !matches!(shape, NotYet(_) | Never(_)))
        .map(|(known, _)| (damerau_levenshtein(&known.to_lowercase(), &lower), *known))
        .min_by_key(|(distance, _)| *distance);
    let parent = &path[..path.len() - name.len()];
    match beside {
        Some((distance, known)) if distance * 3 <= known.len().max(3) => Some(format!("{parent}{known}")),
        beside => elsewhere(&SERVICE, &lower, "").or_else(|| beside.map(|(_, known)| format!("{parent}{known}"))),
    }
}

/// The first place of the table that has a field of this name, in lower case.
fn elsewhere(shape: &Shape, lower: &str, path: &str) -> Option<String> {
    match shape {
        Object(fields) | Checked(fields, _) => {
            let runs = |shape: &Shape| !matches!(shape, NotYet(_) | Never(_));
            let here = fields.iter().find(|(known, shape)| runs(shape) && known.to_lowercase() == lower);
            here.map(|(known, _)| join(path, known))
                .or_else(|| fields.iter().find_map(|(known, shape)| elsewhere(shape, lower, &join(path, known))))
        }
        List(item) => elsewhere(item, lower, &format!("{path}[]")),
        _ => None,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

fn variable(value: &Value) -> Result<(), String> {
    if text(value).starts_with('=') { Err(format!("{value}: a variable needs a name")) } else { Ok(()) }
}

fn folder(value: &Value) -> Result<(), String> {
    if text(value).starts_with('/') { Ok(()) } else { Err(format!("{value} must be an absolute path")) }
}

/// `IP name [name…]`; engines replace `host-gateway` by an address.
fn host(value: &Value) -> Result<(), String> {
    let mut words = text(value).split_whitespace();
    let ip = words.next().unwrap_or_default();
    if (ip == "host-gateway" || ip.parse::<IpAddr>().is_ok()) && words.next().is_some() {
        Ok(())
    } else {
        Err(format!("{value} should be an address and a name, for example \"10.0.0.7 db\""))
    }
}

fn address(value: &Value) -> Result<(), String> {
    text(value).parse::<IpAddr>().map(drop).map_err(|_| format!("{value} is not an IP address"))
}

fn limit(value: &Value) -> Result<(), String> {
    let Ulimit { name, hard, soft, .. } = read(value)?;
    // -1 is unlimited.
    if name.is_empty() || hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("{name}={soft}:{hard} needs a name, and a soft limit that is not above the hard one"));
    }
    Ok(())
}

fn oom_score(value: &Value) -> Result<(), String> {
    let ok = value.as_i64().is_some_and(|score| (-1000..=1000).contains(&score));
    if ok { Ok(()) } else { Err(format!("{value} is not between -1000 and 1000")) }
}

fn isolation(value: &Value) -> Result<(), String> {
    if value == "default" { Ok(()) } else { Err(format!("{value} {WINDOWS}: possible is default")) }
}

fn propagation(value: &Value) -> Result<(), String> {
    const KNOWN: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
    if KNOWN.contains(&text(value)) { Ok(()) } else { Err(format!("{value}: possible are {}", KNOWN.join(", "))) }
}

/// Options of another type of mount would do nothing.
fn mount(value: &Value) -> Result<(), String> {
    let kind = read::<Mount>(value)?.kind;
    let fits = match kind {
        crate::MountType::Bind => "BindOptions",
        crate::MountType::Volume => "VolumeOptions",
        crate::MountType::Tmpfs => "TmpfsOptions",
    };
    let misplaced = ["BindOptions", "VolumeOptions", "TmpfsOptions"]
        .into_iter()
        .find(|options| *options != fits && value.get(options).is_some_and(|value| !says_nothing(value)));
    let given = value.get("Type").map_or("volume", text);
    misplaced.map_or(Ok(()), |options| Err(format!("has {options}, which do not fit its type {given}")))
}

fn swap(value: &Value) -> Result<(), String> {
    MemorySwap::of(&read::<Resources>(value)?).map(drop).map_err(|error| format!("cannot be: {error}"))
}

fn privileges(value: &Value) -> Result<(), String> {
    security_options(&Extra::from([("Privileges".to_owned(), value.clone())]))
        .map(drop)
        .map_err(|error| format!("cannot be: {error}"))
}

#[cfg(test)]
mod tests;
