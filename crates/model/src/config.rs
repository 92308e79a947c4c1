//! Configs.

use serde::{Deserialize, Serialize};

use crate::{Invalid, SecretBytes, Templating};

/// The data of a config has fewer bytes than this (1000 KiB), as in Swarm: an entry of the log must hold it.
pub const CONFIG_BYTES_LIMIT: usize = 1000 << 10;

/// What a config holds. Its data is shown to who asks for it, and is in no log for all that: configs have passwords in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigContent {
    /// The data.
    pub data: SecretBytes,
    /// What fills placeholders in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templating: Option<Templating>,
}

impl ConfigContent {
    /// Checks the size.
    ///
    /// # Errors
    /// There is no data, or too much of it.
    pub fn validate(&self) -> Result<(), Invalid> {
        let size = self.data.expose().len();
        if (1..CONFIG_BYTES_LIMIT).contains(&size) {
            return Ok(());
        }
        Err(Invalid(format!(
            "config data must be larger than 0 and less than {CONFIG_BYTES_LIMIT} bytes: these are {size}"
        )))
    }
}
