//! The flags of `service create`, and the service spec that they make.
//!
//! Each file has the flags of one concern and builds that part of the spec. What is not set is left out of the spec:
//! the server and the image have the defaults (swarm-behaviour §11.2).

mod container;
mod csv;
mod env;
mod health;
mod image;
mod key_value;
mod mount;
mod placement;
mod port;
mod resources;
mod restart;
mod rollout;
mod service;

pub(crate) use image::{registry_of, with_tag};
pub(crate) use key_value::parse_label;
pub(crate) use service::ServiceFlags;

#[cfg(test)]
pub(crate) mod testing {
    //! Flags to spec, as the command line does it.

    use clap::Parser;
    use swarm_model::ServiceSpec;

    use super::ServiceFlags;

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true, disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        flags: ServiceFlags,
    }

    /// The spec that a command line makes, or the text of the error.
    pub(crate) fn spec(line: &[&str]) -> Result<ServiceSpec, String> {
        let line = Line::try_parse_from(line).map_err(|e| e.to_string())?;
        line.flags.spec(&|name| (name == "FROM_ENV").then(|| "outside".to_owned())).map_err(|e| format!("{e:#}"))
    }
}
