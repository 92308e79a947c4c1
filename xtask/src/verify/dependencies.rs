//! Who may import whom. ARCHITECTURE.md shows the same table to people.

use crate::workspace::Package;

/// Each crate of ours, and those of ours that it may import. Imports point down only.
const IMPORTS: [(&str, &[&str]); 17] = [
    ("base2histogram", &[]),
    ("swarm-model", &[]),
    ("swarm-template", &[]),
    ("swarm-core", &["swarm-model"]),
    ("swarm-wire", &["swarm-model"]),
    ("swarm-docker-api", &["swarm-model"]),
    ("swarm-names", &["swarm-wire", "swarm-model"]),
    ("swarm-net", &["swarm-wire", "swarm-model"]),
    ("swarm-dataplane", &["swarm-names", "swarm-net", "swarm-wire", "swarm-model"]),
    ("swarm-consensus", &["swarm-core", "swarm-wire", "swarm-model"]),
    (
        "swarm-manager",
        &["swarm-consensus", "swarm-core", "swarm-wire", "swarm-docker-api", "swarm-template", "swarm-model"],
    ),
    (
        "swarm-agent",
        &["swarm-dataplane", "swarm-net", "swarm-wire", "swarm-docker-api", "swarm-template", "swarm-model"],
    ),
    (
        "swarmd",
        &[
            "swarm-manager",
            "swarm-agent",
            "swarm-dataplane",
            "swarm-net",
            "swarm-consensus",
            "swarm-core",
            "swarm-wire",
            "swarm-docker-api",
            "swarm-model",
        ],
    ),
    (
        "swarm-sim",
        &[
            "swarm-manager",
            "swarm-agent",
            "swarm-dataplane",
            "swarm-net",
            "swarm-consensus",
            "swarm-core",
            "swarm-wire",
            "swarm-docker-api",
            "swarm-model",
        ],
    ),
    ("swarmctl", &["swarm-docker-api", "swarm-template", "swarm-model"]),
    ("xtask", &[]),
    ("hello", &[]),
];

/// Crates that must stay pure, and all that they may import from elsewhere outside of tests: without a runtime, a clock
/// or randomness in reach, none can be used by mistake.
const PURE: [(&str, &[&str]); 4] = [
    ("swarm-model", &["base64", "ipnet", "serde", "serde_json", "strsim", "thiserror", "zeroize"]),
    ("swarm-core", &["imbl", "serde", "thiserror"]),
    ("swarm-template", &["serde_json", "thiserror"]),
    ("hello", &["signal-hook"]),
];

/// Foreign crates whose types must not spread, and the only crates that may import them.
const CONFINED: [(&str, &[&str]); 4] = [
    ("openraft", &["swarm-consensus"]),
    ("bollard", &["swarm-agent"]),
    ("rustls", &["swarm-wire"]),
    // The daemon terminates TLS for the API; its configuration comes from the wire crate.
    ("tokio-rustls", &["swarm-wire", "swarmd"]),
];

/// Returns what is broken.
pub(super) fn check(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        let at = package.manifest_path.display();
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == package.name) else {
            broken
                .push(format!("{at}: {} is not in the import table (xtask/src/verify/dependencies.rs)", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let ours = IMPORTS.iter().any(|(ours, _)| *ours == name);
            if ours && !allowed.contains(&name) {
                broken.push(format!("{at}: {} may not import {name}: imports point down only", package.name));
            }
            if let Some((_, only)) = CONFINED.iter().find(|(confined, _)| *confined == name)
                && !only.contains(&package.name.as_str())
            {
                broken.push(format!("{at}: only {} may import {name}", only.join(" and ")));
            }
            if let Some((_, pure)) = PURE.iter().find(|(pure, _)| *pure == package.name)
                && !ours
                && dependency.kind.as_deref() != Some("dev")
                && !pure.contains(&name)
            {
                broken.push(format!("{at}: {} is pure and may not import {name}", package.name));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
                .collect(),
        }
    }

    #[test]
    fn what_points_down_is_fine() {
        let good = package("swarm-core", &[("swarm-model", None), ("imbl", None), ("proptest", Some("dev"))]);
        assert_eq!(check(&[good]), [""; 0]);
    }

    #[test]
    fn each_rule_can_break() {
        for (bad, text) in [
            (package("swarm-core", &[("swarm-wire", None)]), "imports point down only"),
            (package("swarm-agent", &[("swarm-manager", Some("dev"))]), "imports point down only"),
            (package("swarm-core", &[("tokio", None)]), "is pure and may not import tokio"),
            (package("swarm-core", &[("rand", Some("build"))]), "is pure and may not import rand"),
            (package("swarm-manager", &[("openraft", None)]), "only swarm-consensus may import openraft"),
            (package("swarmd", &[("rustls", None)]), "only swarm-wire may import rustls"),
            (package("swarm-new", &[]), "is not in the import table"),
        ] {
            let broken = check(&[bad]);
            assert!(broken.len() == 1 && broken[0].contains(text), "{broken:?}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each crate imports only crates that stand before it.
        for (position, (name, allowed)) in IMPORTS.iter().enumerate() {
            for import in *allowed {
                assert!(IMPORTS[..position].iter().any(|(earlier, _)| earlier == import), "{name} -> {import}");
            }
        }
    }
}
