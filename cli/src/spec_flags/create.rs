//! The flags of `service create`.

use std::path::PathBuf;

use serde_json::json;
use swarm_model::ObjectKind;

use super::{
    common::CommonFlags,
    container::{ENV, container, is_same_variable},
    draft::Draft,
    env::{self, Lookup},
    objects::ObjectIds,
};

/// All that says what a new service is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CreateFlags {
    /// Image, and the command with its arguments. All that follows the image belongs to the command
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG]")]
    image_and_args: Vec<String>,
    /// Name of the service [default: a random one]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What kind of service it is
    #[arg(long, default_value = "replicated", value_parser = ["replicated", "global", "replicated-job", "global-job"])]
    mode: String,
    /// File of environment variables, one a line; can be repeated
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    env_file: Vec<PathBuf>,
    #[command(flatten)]
    common: CommonFlags,
}

impl CreateFlags {
    /// The image as it was given.
    pub(crate) fn image(&self) -> &str {
        self.image_and_args.first().map_or("", String::as_str)
    }

    /// The objects that the flags name.
    pub(crate) fn objects(&self) -> Vec<(ObjectKind, &str)> {
        self.common.objects()
    }

    /// The spec that the flags describe. `ids` has those of the objects that they name.
    ///
    /// # Errors
    /// Flags that do not fit each other, or a file that cannot be read.
    pub(crate) fn spec(&self, lookup: Lookup<'_>, ids: &ObjectIds) -> anyhow::Result<Draft> {
        let mut draft = Draft::new();
        draft.put("Name", self.name.as_ref());
        let replicas = self.common.replicas();
        draft.set(
            "Mode",
            match self.mode.as_str() {
                "global" => json!({"Global": {}}),
                "global-job" => json!({"GlobalJob": {}}),
                // All at the same time, unless --max-concurrent says otherwise.
                "replicated-job" => {
                    json!({"ReplicatedJob": {"MaxConcurrent": replicas.unwrap_or(1), "TotalCompletions": 1}})
                }
                _ => json!({"Replicated": {"Replicas": 1}}),
            },
        );
        draft.set_image(self.image());
        draft.put(&container("Args"), self.image_and_args.get(1..));
        draft.merge(ENV, env::variables(&self.env_file, &[], lookup)?, is_same_variable);
        self.common.apply(&mut draft, lookup, ids)?;
        Ok(draft)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::spec;

    #[test]
    fn a_plain_service_says_no_more_than_it_must() {
        assert_eq!(
            serde_json::to_value(spec(&["nginx"]).unwrap()).unwrap(),
            json!({"Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest"}, "ForceUpdate": 0},
                "Mode": {"Replicated": {"Replicas": 1}}})
        );
    }

    #[test]
    fn all_after_the_image_belongs_to_the_command() {
        let spec = spec(&["--name", "web", "nginx:1", "--name", "x", "--", "-p"]).unwrap();
        assert_eq!(spec.name, "web");
        assert_eq!(spec.task_template.container_spec.args, ["--name", "x", "--", "-p"]);
    }

    #[test]
    fn modes() {
        let mode = |line: &[&str]| spec(line).map(|s| serde_json::to_value(s.mode).unwrap());
        assert_eq!(mode(&["--replicas", "0", "x"]), Ok(json!({"Replicated": {"Replicas": 0}})));
        assert_eq!(mode(&["--mode", "global", "x"]), Ok(json!({"Global": {}})));
        assert_eq!(
            mode(&["--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2", "x"]),
            Ok(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}}))
        );
        for line in [
            ["--mode", "global", "--replicas", "2", "x"],
            ["--mode", "global", "--replicas-max-per-node", "2", "x"],
            ["--mode", "replicated", "--max-concurrent", "2", "x"],
        ] {
            assert!(mode(&line).is_err_and(|e| e.contains(line[2]) && e.contains("does not fit")), "{line:?}");
        }
    }

    #[test]
    fn ports() {
        let spec = spec(&["-p", "80-81:80-81", "-p", "target=9,mode=host", "x"]).expect("the ports are valid");
        assert_eq!(spec.ports().len(), 3);
    }

    #[test]
    fn an_image_is_needed() {
        assert!(spec(&[]).is_err_and(|e| e.contains("IMAGE")));
    }
}
