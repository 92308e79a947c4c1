//! What a task needs a newer container engine for than this program does.

use crate::{ServiceSpec, TaskSpec};

/// A version of Docker Engine that a task needs, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EngineNeed {
    /// The first number of the version.
    pub major: u32,
    /// The flag of `service create` that asks for it.
    pub flag: &'static str,
}

impl TaskSpec {
    /// The newest engine that something in it needs. An older engine leaves the first of these out without a word, and
    /// fails at the second each time. Since when: history of the Engine API, 1.44 (Engine 25) and 1.42 (Engine 23).
    fn engine_need(&self) -> Option<EngineNeed> {
        let container = &self.container_spec;
        let checks_often = container.healthcheck.as_ref().is_some_and(|check| check.start_interval_ns != 0);
        let makes_source =
            |mount: &crate::Mount| mount.bind_options.as_ref().is_some_and(|bind| bind.create_mountpoint);
        let needs = [
            checks_often.then_some(EngineNeed { major: 25, flag: "--health-start-interval" }),
            container
                .mounts
                .iter()
                .any(makes_source)
                .then_some(EngineNeed { major: 23, flag: "--mount bind-create-src" }),
        ];
        needs.into_iter().flatten().max()
    }
}

impl ServiceSpec {
    /// The newest engine that something in its tasks needs; none if each engine will do.
    pub fn engine_need(&self) -> Option<EngineNeed> {
        self.task_template.engine_need()
    }
}

impl EngineNeed {
    /// Whether an engine of this version has it. Of a version that is no number nobody can say that it is too old.
    pub fn is_met_by(&self, version: &str) -> bool {
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().map_or(true, |major: u32| major >= self.major)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn need(container: serde_json::Value) -> Option<u32> {
        let spec: ServiceSpec =
            serde_json::from_value(json!({"TaskTemplate": {"ContainerSpec": container}})).expect("test spec");
        spec.engine_need().map(|need| need.major)
    }

    #[test]
    fn what_came_later_needs_a_newer_engine() {
        let bind = |options: serde_json::Value| json!([{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": options}]);
        assert_eq!(need(json!({"Image": "x", "Healthcheck": {"Interval": 1}})), None);
        assert_eq!(need(json!({"Mounts": bind(json!({"CreateMountpoint": false}))})), None);
        assert_eq!(need(json!({"Mounts": bind(json!({"CreateMountpoint": true}))})), Some(23));
        let both =
            json!({"Mounts": bind(json!({"CreateMountpoint": true})), "Healthcheck": {"StartInterval": 1_000_000}});
        assert_eq!(need(both), Some(25));
    }

    #[test]
    fn versions_are_compared_by_their_first_number() {
        let need = EngineNeed { major: 25, flag: "" };
        for (version, is_met) in [
            ("20.10.24+dfsg1", false),
            ("24.0.9", false),
            ("25.0.0-rc.1", true),
            ("28.2.2", true),
            ("", true),
            ("dev", true),
            ("99999999999999999999", true),
        ] {
            assert_eq!(need.is_met_by(version), is_met, "{version}");
        }
    }
}
