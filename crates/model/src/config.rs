//! Configs.

use serde::{Deserialize, Serialize};

use crate::{Invalid, SecretBytes, Templating};

/// The data of a config has fewer bytes than this (1000 KiB), as in Swarm: an entry of the log must hold it.
pub const CONFIG_BYTES_LIMIT: usize = 1000 << 10;

/// The content of a config. The API shows its data. Logs never do, for many configs have passwords in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigContent {
    /// The data.
    pub data: SecretBytes,
    /// The language of the placeholders in the data; none if the data has no placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templating: Option<Templating>,
}

impl ConfigContent {
    /// Checks the size.
    ///
    /// # Errors
    /// There is no data, or too much of it.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.data.check_size("config", CONFIG_BYTES_LIMIT)
    }
}
