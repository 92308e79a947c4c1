//! Configs.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use swarm_model::{Labels, SecretBytes};

use super::{DriverView, is_default};

/// A config as clients send it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigRequest {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// The data, in base64.
    pub data: SecretBytes,
    /// The template driver; absent if the data has no placeholders.
    pub templating: Option<DriverView>,
}

/// A config as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigSpecView {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// The data, in base64.
    pub data: String,
    /// The template driver; absent if the data has no placeholders.
    #[serde(skip_serializing_if = "is_default")]
    pub templating: Option<DriverView>,
}

impl ConfigSpecView {
    /// Data as it is shown.
    pub fn encode(data: &SecretBytes) -> String {
        BASE64_STANDARD.encode(data.expose())
    }

    /// The data as a text for people.
    pub fn text(&self) -> String {
        let bytes = BASE64_STANDARD.decode(&self.data).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
