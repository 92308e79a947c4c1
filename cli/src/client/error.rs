//! What can go wrong between swarmctl and swarmd.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use thiserror::Error;

use super::Host;

/// How often a change is made again because another one came first ([`ClientError::is_stale`]). Of all that try at a time one
/// succeeds.
pub(crate) const OVERTAKEN_MAX: u32 = 50;

/// A request that did not get the answer that it wanted.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nothing was sent.
    #[error("cannot reach swarmd at {host}: {}", reason(error))]
    Unreachable {
        /// Where.
        host: Arc<Host>,
        /// Why.
        error: io::Error,
    },
    /// The connection ended before the answer was there; a change may or may not have been made.
    #[error("the connection to swarmd at {host} broke: {error}")]
    Broken {
        /// Where.
        host: Arc<Host>,
        /// Why.
        error: hyper::Error,
    },
    /// As [`ClientError::Broken`], by our own clock.
    #[error("swarmd at {host} did not answer within {seconds} seconds")]
    NoAnswer {
        /// Where.
        host: Arc<Host>,
        /// How long.
        seconds: u64,
    },
    /// swarmd said no.
    #[error("{}", own_names(message))]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("the answer of swarmd to {path} is not understood: {error}")]
    NotUnderstood {
        /// What was asked for.
        path: String,
        /// Where it went wrong.
        error: serde_json::Error,
    },
    /// The request could not be made.
    #[error("{0}")]
    Request(String),
}

impl ClientError {
    /// Whether the object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the object has another version than the change named.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("update out of sequence"))
    }

    /// Whether asking again later may help: no answer, or a server that cannot answer now.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::NotUnderstood { .. } | Self::Request(_) => false,
        }
    }

    /// What to do now.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
                Some("Only root and the group of the socket may use it: try sudo, or join the group.".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("Is swarmd running there? (systemctl status swarmd, or pass --host)".to_owned())
            }
            Self::Broken { .. } | Self::NoAnswer { .. } => {
                Some("If this was to change something, look whether it did before you repeat it.".to_owned())
            }
            _ if self.is_stale() => Some("Somebody changed it at the same time: run the command again.".to_owned()),
            Self::Refused { message, .. } if message.contains("does not have a previous spec") => {
                Some("There is one after an update; an update that rolled itself back leaves none.".to_owned())
            }
            Self::Refused { message, .. } if message.contains("is not down and can't be removed") => Some(
                "Let it leave (`swarmctl swarm leave` there, or stop swarmd there and wait until it is down), or remove it \
                 as it is with --force: its containers keep running."
                    .to_owned(),
            ),
            Self::Refused { .. } | Self::NotUnderstood { .. } | Self::Request(_) => None,
        }
    }
}

/// The reason without the number that `io::Error` adds.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::NotFound => "there is no such socket".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// swarmd speaks to Docker's clients; here its advice names our own commands.
fn own_names(message: &str) -> String {
    message.replace("docker swarm ", "swarmctl swarm ").replace("docker info", "swarmctl info")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_our_commands() {
        let error = ClientError::Refused { status: 503, message: swarm_docker_api::NO_SWARM.to_owned() };
        assert!(error.to_string().contains("Use \"swarmctl swarm init\" or \"swarmctl swarm join\""));
        assert!(error.is_transient() && !error.is_not_found());
    }
}
