//! Where swarmd listens.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where swarmd listens when nobody says otherwise.
pub(crate) const HOST_DEFAULT: &str = "unix:///run/swarmd/swarmd.sock";

/// The Unix socket of a swarmd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Path of the socket.
    pub(crate) socket: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/swarmd/swarmd.sock") }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme}:// is not available; swarmctl talks to the Unix socket of the swarmd on this machine. \
                     Use unix:///path/to/swarmd.sock (for another machine: ssh -L /tmp/swarmd.sock:/run/swarmd/swarmd.sock HOST)"
                ));
            }
            None => text,
        };
        if path.is_empty() || path.contains('\0') {
            return Err(format!("'{text}' names no socket; use for example {HOST_DEFAULT}"));
        }
        Ok(Self { socket: PathBuf::from(path) })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_socket_with_or_without_scheme() {
        assert_eq!(HOST_DEFAULT.parse(), Ok(Host::default()));
        assert_eq!("/tmp/a.sock".parse::<Host>().map(|h| h.to_string()), Ok("unix:///tmp/a.sock".into()));
        assert_eq!("a.sock".parse::<Host>().map(|h| h.socket), Ok("a.sock".into()));
    }

    #[test]
    fn what_cannot_be_reached_is_refused() {
        assert!("tcp://10.0.0.1:2375".parse::<Host>().is_err_and(|e| e.contains("tcp:// is not available")));
        assert!("unix://".parse::<Host>().is_err_and(|e| e.contains("names no socket")));
        assert!("".parse::<Host>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_host_or_refused(text in "\\PC{0,30}") {
            let _ = text.parse::<Host>();
        }
    }
}
