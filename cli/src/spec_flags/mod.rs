//! The flags of `service create` and `service update`, and what they do to a service spec.
//!
//! Each file has the flags of one concern and writes that part of the spec, a [`Draft`]. Creating is changing an empty
//! one. What is not set is left out: the server and the image have the defaults (swarm-behaviour §11.2, §11.3).

mod capability;
mod common;
mod container;
mod create;
mod csv;
mod draft;
mod env;
mod health;
mod image;
mod key_value;
mod mount;
mod network;
mod objects;
mod placement;
mod port;
mod remove;
mod resources;
mod restart;
mod rollout;
mod update;

pub(crate) use create::CreateFlags;
pub(crate) use draft::Draft;
pub(crate) use image::registry_of;
pub(crate) use key_value::parse_label;
pub(crate) use objects::{ObjectIds, notation};
pub(crate) use update::ChangeFlags;

#[cfg(test)]
pub(crate) mod testing {
    //! Flags to spec, as the command line does it.

    use clap::{Args, Parser};
    use serde_json::Value;
    use swarm_model::ServiceSpec;

    use super::{ChangeFlags, CreateFlags, Draft, ObjectIds};

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true, disable_help_flag = true)]
    struct Line<T: Args> {
        #[command(flatten)]
        flags: T,
    }

    fn lookup(name: &str) -> Option<String> {
        (name == "FROM_ENV").then(|| "outside".to_owned())
    }

    /// All objects that are named are there; the id says which one it is.
    fn ids<'a>(names: impl IntoIterator<Item = (swarm_model::ObjectKind, &'a str)>) -> ObjectIds {
        let mut ids = ObjectIds::default();
        for (kind, name) in names {
            ids.insert(kind, name, &format!("id-of-{kind}-{name}"));
        }
        ids
    }

    /// The spec that a line of `service create` makes, or the text of the error.
    pub(crate) fn spec(line: &[&str]) -> Result<ServiceSpec, String> {
        let line = Line::<CreateFlags>::try_parse_from(line).map_err(|e| e.to_string())?;
        let draft = line.flags.spec(&lookup, &ids(line.flags.objects())).map_err(|e| format!("{e:#}"))?;
        let spec: ServiceSpec = serde_json::from_value(draft.spec().clone()).map_err(|e| e.to_string())?;
        // No flag makes what this version cannot run, nor a field that is misspelt.
        assert_eq!(swarm_model::check_fields(draft.spec(), None), Ok(()));
        Ok(spec)
    }

    /// What a line of `service update` makes of a spec, or the text of the error.
    pub(crate) fn change(spec: Value, line: &[&str]) -> Result<Draft, String> {
        let line = Line::<ChangeFlags>::try_parse_from(line).map_err(|e| e.to_string())?;
        let mut draft = Draft::of(spec);
        line.flags.apply(&mut draft, &lookup, &ids(line.flags.objects())).map_err(|e| format!("{e:#}"))?;
        Ok(draft)
    }

    /// The spec of [`change`].
    pub(crate) fn edited(spec: Value, line: &[&str]) -> Result<Value, String> {
        change(spec, line).map(|draft| draft.spec().clone())
    }
}
