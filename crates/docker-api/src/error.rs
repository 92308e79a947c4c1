//! Errors as Docker's clients expect them: a status and `{"message": "…"}`.

use thiserror::Error;

use crate::view::ErrorMessage;

/// Content type of every JSON body, errors included. Go's client compares it as a text: no `; charset=utf-8`.
pub const CONTENT_TYPE_JSON: &str = "application/json";

/// Said of every swarm call on a node that is in no cluster (status 503).
pub const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// Said of every swarm call on a worker (status 503).
pub const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// Said of every swarm call on a manager that was not unlocked since it started (status 503).
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

/// Said of a path that does not exist (status 404).
pub const PAGE_NOT_FOUND: &str = "page not found";

/// An error response (docker-api §1).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// What was wrong, with which value, and what to do: for people.
    pub message: String,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident = $status:literal;)*) => {
        impl ApiError {
            $(
                $(#[$doc])*
                pub fn $name(message: impl Into<String>) -> Self {
                    Self { status: $status, message: message.into() }
                }
            )*
        }
    };
}

constructors! {
    /// 400: the request cannot be carried out as it is.
    bad_request = 400;
    /// 401: a key or token is wrong.
    unauthorized = 401;
    /// 403: not allowed, whoever asks.
    forbidden = 403;
    /// 404: the object is not there.
    not_found = 404;
    /// 409: an object of that name is there already.
    conflict = 409;
    /// 413: the body is too large.
    too_large = 413;
    /// 500: anything else. Docker answers so to a stale version, too.
    internal = 500;
    /// 501: never possible, or not available yet.
    not_implemented = 501;
    /// 503: this node cannot answer now.
    unavailable = 503;
}

impl ApiError {
    /// 404 in Docker's words; clients look for `not found`.
    pub fn no_such(kind: &str, name: &str) -> Self {
        Self::not_found(format!("{kind} {name} not found"))
    }

    /// The body of the response.
    pub fn body(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(&ErrorMessage { message: self.message.clone() })
            .expect("a struct of one text can be written as JSON");
        body.push(b'\n');
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_what_gos_client_reads() {
        let error = ApiError::no_such("service", "nope");
        assert_eq!(error.status, 404);
        assert_eq!(error.body(), b"{\"message\":\"service nope not found\"}\n");
    }
}
