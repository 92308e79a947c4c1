//! Secrets.

use serde::{Deserialize, Serialize};
use swarm_model::{Labels, SecretBytes};

use super::{DriverView, is_default};

/// A secret as clients send it. It is only read: see [`SecretSpecView`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretRequest {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// The data, in base64.
    pub data: SecretBytes,
    /// The driver that keeps the data; absent if the managers do.
    pub driver: Option<DriverView>,
    /// The template driver; absent if the data has no placeholders.
    pub templating: Option<DriverView>,
}

/// A secret as it is shown: without its data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretSpecView {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// The driver that keeps the data; absent if the managers do.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<DriverView>,
    /// The template driver; absent if the data has no placeholders.
    #[serde(skip_serializing_if = "is_default")]
    pub templating: Option<DriverView>,
}
