//! What a container may do beyond, or less than, the engine's default: Docker's `Privileges`.
//!
//! Specs keep it as it was sent; this is what it means.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use crate::{Extra, Invalid, Resources, says_nothing};

/// Docker's `Privileges`, as far as Linux has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Privileges {
    #[serde(rename = "SELinuxContext")]
    selinux_context: SelinuxContext,
    seccomp: Seccomp,
    app_armor: AppArmor,
    no_new_privileges: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct SelinuxContext {
    disable: bool,
    user: String,
    role: String,
    #[serde(rename = "Type")]
    kind: String,
    level: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct Seccomp {
    mode: String,
    /// The profile, in base64.
    profile: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct AppArmor {
    mode: String,
}

/// The security options of an engine that a container's `Privileges` come to, in the words of `docker run
/// --security-opt`. `extra` are the fields of a container spec.
///
/// # Errors
/// A field or a value that is not known, or that only Windows has.
pub fn security_options(extra: &Extra) -> Result<Vec<String>, Invalid> {
    let invalid = |problem: String| Invalid(format!("ContainerSpec.Privileges: {problem}"));
    let Some(given) = extra.get("Privileges").filter(|given| !says_nothing(given)) else { return Ok(Vec::new()) };
    if given.get("CredentialSpec").is_some_and(|credentials| !says_nothing(credentials)) {
        return Err(invalid("CredentialSpec is for Windows, which is not supported".into()));
    }
    let Privileges { selinux_context: label, seccomp, app_armor, no_new_privileges } =
        Privileges::deserialize(without_empty(given)).map_err(|e| invalid(e.to_string()))?;
    let mut options = Vec::new();
    if label.disable {
        options.push("label=disable".to_owned());
    }
    let parts = [("user", label.user), ("role", label.role), ("level", label.level), ("type", label.kind)];
    let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
    options.extend(parts.map(|(name, value)| format!("label={name}:{value}")));
    match (seccomp.mode.as_str(), seccomp.profile.as_str()) {
        ("" | "default", "") => {}
        ("unconfined", "") => options.push("seccomp=unconfined".to_owned()),
        ("custom", "") => return Err(invalid("Seccomp.Mode custom needs a Profile".into())),
        ("custom", profile) => {
            let profile = BASE64_STANDARD.decode(profile).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let profile = profile.filter(|text| serde_json::from_str::<Value>(text).is_ok());
            let profile = profile.ok_or_else(|| invalid("Seccomp.Profile is no JSON in base64".into()))?;
            options.push(format!("seccomp={profile}"));
        }
        ("" | "default" | "unconfined", _) => {
            return Err(invalid("Seccomp.Profile goes with Mode custom only".into()));
        }
        (mode, _) => {
            return Err(invalid(format!("Seccomp.Mode {mode:?}: possible are default, unconfined, custom")));
        }
    }
    match app_armor.mode.as_str() {
        "" | "default" => {}
        "disabled" => options.push("apparmor=unconfined".to_owned()),
        mode => return Err(invalid(format!("AppArmor.Mode {mode:?}: possible are default, disabled"))),
    }
    if no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    Ok(options)
}

/// The swap space of a container, and how readily it is used: Docker's `SwapBytes` and `MemorySwappiness`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySwap {
    /// Bytes of memory and swap together, as engines count; -1 is unlimited, none is the engine's default.
    pub total_bytes: Option<i64>,
    /// 0 to 100; none is the kernel's default.
    pub swappiness: Option<i64>,
}

impl MemorySwap {
    /// What a spec asks for. It keeps both as they were sent.
    ///
    /// # Errors
    /// A value that is not possible, or swap without a limit of memory, which engines refuse.
    pub fn of(resources: &Resources) -> Result<Self, Invalid> {
        let number = |field: &str| match resources.extra.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_i64()
                .filter(|number| *number >= -1)
                .map(Some)
                .ok_or_else(|| Invalid(format!("Resources.{field} {value}: a number from -1 on is expected"))),
        };
        let memory_bytes = resources.limits.as_ref().map_or(0, |limits| limits.memory_bytes);
        let total_bytes = match number("SwapBytes")? {
            None => None,
            Some(swap) if memory_bytes == 0 => {
                return Err(Invalid(format!("Resources.SwapBytes {swap}: swap is limited together with memory only")));
            }
            Some(-1) => Some(-1),
            Some(swap) => Some(memory_bytes.saturating_add(swap)),
        };
        // -1 takes back what was set before.
        let swappiness = number("MemorySwappiness")?.filter(|given| *given >= 0);
        match swappiness {
            Some(given) if given > 100 => Err(Invalid(format!(
                "Resources.MemorySwappiness {given}: possible are 0 to 100, and -1 for the default"
            ))),
            swappiness => Ok(Self { total_bytes, swappiness }),
        }
    }
}

/// The value without the fields that say nothing.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !says_nothing(value));
            fields.map(|(name, value)| (name.clone(), without_empty(value))).collect()
        }
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn options(privileges: Value) -> Result<Vec<String>, String> {
        security_options(&Extra::from([("Privileges".to_owned(), privileges)])).map_err(|e| e.to_string())
    }

    #[test]
    fn privileges_become_security_options() {
        let given = json!({
            "CredentialSpec": {"Config": "", "File": "", "Registry": ""},
            "SELinuxContext": {"Disable": false, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
            "Seccomp": {"Mode": "custom", "Profile": BASE64_STANDARD.encode("{}")},
            "AppArmor": {"Mode": "disabled"},
            "NoNewPrivileges": true,
        });
        let expected =
            ["label=user:u", "label=role:r", "label=level:l", "label=type:t", "seccomp={}", "apparmor=unconfined"];
        assert_eq!(options(given).expect("known"), [&expected[..], &["no-new-privileges"]].concat());
        let nothing = json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false, "New": ""});
        assert_eq!(options(nothing), Ok(Vec::new()));
        let defaults = json!({"Seccomp": {"Mode": "default"}, "AppArmor": {"Mode": "default"}});
        assert_eq!(options(defaults), Ok(Vec::new()));
        let open = json!({"SELinuxContext": {"Disable": true}, "Seccomp": {"Mode": "unconfined"}});
        assert_eq!(options(open), Ok(vec!["label=disable".into(), "seccomp=unconfined".into()]));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (given, part) in [
            (json!({"CredentialSpec": {"File": "x"}}), "CredentialSpec"),
            (json!({"Novelty": 1}), "Novelty"),
            (json!({"Seccomp": {"Mode": "custom"}}), "needs a Profile"),
            (json!({"Seccomp": {"Mode": "custom", "Profile": "e"}}), "base64"),
            (json!({"Seccomp": {"Profile": "e30="}}), "custom only"),
            (json!({"Seccomp": {"Mode": "odd"}}), "\"odd\""),
            (json!({"AppArmor": {"Mode": "odd"}}), "\"odd\""),
            (json!({"NoNewPrivileges": "yes"}), "Privileges"),
            (json!([1]), "Privileges"),
        ] {
            let error = options(given).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn swap_is_counted_as_engines_count() {
        let swap = |resources: Value| {
            let resources: Resources = serde_json::from_value(resources).expect("resources");
            MemorySwap::of(&resources).map_err(|e| e.to_string())
        };
        let limits = json!({"MemoryBytes": 100});
        for (given, total_bytes, swappiness) in [
            (json!({}), None, None),
            (json!({"Limits": limits, "SwapBytes": 50, "MemorySwappiness": 0}), Some(150), Some(0)),
            (json!({"Limits": limits, "SwapBytes": 0, "MemorySwappiness": 60}), Some(100), Some(60)),
            (json!({"Limits": limits, "SwapBytes": -1, "MemorySwappiness": -1}), Some(-1), None),
        ] {
            assert_eq!(swap(given), Ok(MemorySwap { total_bytes, swappiness }));
        }
        for (given, part) in [
            (json!({"SwapBytes": 50}), "together with memory"),
            (json!({"Limits": limits, "SwapBytes": -2}), "-2"),
            (json!({"Limits": limits, "SwapBytes": "1g"}), "1g"),
            (json!({"MemorySwappiness": 101}), "101"),
        ] {
            assert!(swap(given).is_err_and(|e| e.contains(part)), "{part}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(mode in "\\PC{0,12}", profile in "[a-zA-Z0-9+/=]{0,24}") {
            let _ = options(json!({"Seccomp": {"Mode": mode, "Profile": profile}, "AppArmor": {"Mode": mode}}));
        }
    }
}
