//! The flags of `service update`.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use swarm_model::ObjectKind;

use super::{
    common::CommonFlags,
    container::{container, words},
    draft::Draft,
    env::Lookup,
    objects::ObjectIds,
    remove::RemoveFlags,
};

/// The common flags that can be repeated, as they are called here: beside each stands one that removes.
/// `--cap-add` and `--cap-drop` are such a pair already, and `--log-opt` has none.
const ADDING: [(&str, &str); 18] = [
    ("label", "label-add"),
    ("publish", "publish-add"),
    ("constraints", "constraint-add"),
    ("preferences", "placement-pref-add"),
    ("generic_resources", "generic-resource-add"),
    ("env", "env-add"),
    ("container_label", "container-label-add"),
    ("group", "group-add"),
    ("mount", "mount-add"),
    ("hosts", "host-add"),
    ("dns", "dns-add"),
    ("dns_option", "dns-option-add"),
    ("dns_search", "dns-search-add"),
    ("sysctl", "sysctl-add"),
    ("ulimit", "ulimit-add"),
    ("secret", "secret-add"),
    ("config", "config-add"),
    ("network", "network-add"),
];

/// All that can change in a service.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub(crate) struct ChangeFlags {
    /// Image
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    image: Option<String>,
    /// Arguments of the command, as a shell reads them; '' for the image's
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    args: Option<String>,
    /// Replace all tasks even if nothing changes
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Renamed,
    #[command(flatten)]
    remove: RemoveFlags,
}

impl ChangeFlags {
    /// The new image, if it changes.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The objects that are to come, and the networks that are to go: specs have them by their ids.
    pub(crate) fn objects(&self) -> Vec<(ObjectKind, &str)> {
        self.common.0.objects().into_iter().chain(self.remove.networks()).collect()
    }

    /// Changes a spec: first what goes, then what comes. `ids` has those of [`ChangeFlags::objects`].
    ///
    /// # Errors
    /// Flags that do not fit the mode of the service, or values that are wrong.
    pub(crate) fn apply(&self, draft: &mut Draft, lookup: Lookup<'_>, ids: &ObjectIds) -> anyhow::Result<()> {
        if let Some(image) = &self.image {
            draft.set_image(image);
        }
        if let Some(args) = &self.args {
            draft.put(&container("Args"), words("--args", args)?);
        }
        if self.force {
            const FORCE: &str = "TaskTemplate/ForceUpdate";
            let count = draft.get(FORCE).and_then(serde_json::Value::as_u64).unwrap_or(0);
            draft.set(FORCE, count.wrapping_add(1));
        }
        self.remove.apply(draft, ids)?;
        self.common.0.apply(draft, lookup, ids)
    }
}

/// The common flags under the names that they have here.
#[derive(Clone, Debug, Default, PartialEq)]
struct Renamed(CommonFlags);

impl Renamed {
    fn rename(command: Command) -> Command {
        let rename = |arg: Arg, long| arg.long(long).short(None::<char>);
        ADDING.iter().fold(command, |command, (id, long)| command.mut_arg(id, |arg| rename(arg, *long)))
    }
}

impl Args for Renamed {
    fn augment_args(command: Command) -> Command {
        Self::rename(CommonFlags::augment_args(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::rename(CommonFlags::augment_args_for_update(command))
    }
}

impl FromArgMatches for Renamed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        CommonFlags::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::spec_flags::testing::edited;

    #[test]
    fn nothing_changes_if_nothing_is_said() {
        let spec = json!({"Name": "web", "Future": [1.5, null], "TaskTemplate": {"ContainerSpec": {"Secrets": [{}]}}});
        assert_eq!(edited(spec.clone(), &[]), Ok(spec));
    }

    #[test]
    fn image_arguments_and_force() {
        let template = json!({"ForceUpdate": 6, "X": 1, "Placement": {"Platforms": [{"OS": "linux"}]},
            "ContainerSpec": {"Image": "hello:1@sha256:00", "Args": ["a"], "Secrets": [{}]}});
        let line = ["--image", "hello", "--args", "-v 'two words'", "--force"];
        assert_eq!(
            edited(json!({"TaskTemplate": template.clone()}), &line),
            Ok(json!({"TaskTemplate": {"ForceUpdate": 7, "X": 1, "Placement": {},
                "ContainerSpec": {"Image": "hello:latest", "Args": ["-v", "two words"], "Secrets": [{}]}}}))
        );
        let text = edited(json!({"TaskTemplate": template}), &["--args", ""]).unwrap().to_string();
        assert!(!text.contains("Args") && text.contains("sha256:00"), "{text}");
        assert!(edited(json!({}), &["--args", "'"]).is_err_and(|e| e.contains("--args")));
        assert!(edited(json!({}), &["--image", ""]).is_err_and(|e| e.contains("--image")));
    }

    #[test]
    fn scalars_are_written_and_emptied() {
        let spec = json!({"TaskTemplate": {"ContainerSpec": {"User": "1", "Dir": "/a", "TTY": true, "Hostname": "h"},
            "Resources": {"Limits": {"NanoCPUs": 1, "Pids": 5}},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}}});
        let line = ["--user", "", "-w", "/b", "--tty=false", "--init=false", "--read-only", "--limit-pids", "0"];
        let line = [&line[..], &["--entrypoint", "sh -c", "--reserve-cpu", "2", "--log-opt", "max-file=3"]].concat();
        assert_eq!(
            edited(spec.clone(), &line),
            Ok(
                json!({"TaskTemplate": {"ContainerSpec": {"Dir": "/b", "Init": false, "ReadOnly": true, "Hostname": "h",
                "Command": ["sh", "-c"]},
                "Resources": {"Limits": {"NanoCPUs": 1}, "Reservations": {"NanoCPUs": 2_000_000_000}},
                "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m", "max-file": "3"}}}})
            )
        );
        let other = edited(spec, &["--log-driver", "syslog"]).unwrap();
        assert_eq!(other["TaskTemplate"]["LogDriver"], json!({"Name": "syslog"}));
    }

    #[test]
    fn numbers_fit_the_mode() {
        let mode = |mode| json!({"Mode": mode});
        let jobs = mode(json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}));
        assert_eq!(
            edited(jobs, &["--replicas", "5", "--max-concurrent", "2"]),
            Ok(mode(json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 5}})))
        );
        let three = mode(json!({"Replicated": {"Replicas": 3}}));
        let none = mode(json!({"Replicated": {"Replicas": 0}}));
        assert_eq!(edited(three.clone(), &["--replicas", "0"]), Ok(none));
        let global = mode(json!({"Global": {}}));
        for (spec, flag) in
            [(&global, "--replicas"), (&global, "--replicas-max-per-node"), (&three, "--max-concurrent")]
        {
            let error = edited(spec.clone(), &[flag, "1"]).unwrap_err();
            assert!(error.starts_with(&format!("{flag} does not fit")), "{error}");
        }
    }

    #[test]
    fn the_names_of_create_are_not_taken() {
        for (id, long) in super::ADDING {
            let stem = long.trim_end_matches("-add");
            let error = edited(json!({}), &[&format!("--{stem}"), "x=1"]).unwrap_err();
            assert!(error.contains("unexpected argument"), "{id}: {error}");
        }
    }
}
