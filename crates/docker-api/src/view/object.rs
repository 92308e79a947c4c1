//! Named objects: the shapes that all kinds share.

use serde::{Deserialize, Serialize};
use swarm_model::{Labels, NamedObject, Templating};

use super::{Time, Version, is_default};
use crate::ApiError;

/// An object whose spec looks as its kind has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectView<S> {
    /// Id.
    #[serde(rename = "ID")]
    pub id: String,
    /// What an update must name.
    pub version: Version,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// The spec that the user wrote.
    pub spec: S,
    /// Names of the services that use it; only when it was asked for with `services=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
}

impl<S> ObjectView<S> {
    /// Shows an object.
    pub fn new(object: &NamedObject, spec: S, services: Option<Vec<String>>) -> Self {
        Self {
            id: object.id.to_string(),
            version: Version { index: object.version },
            created_at: object.created_at.into(),
            updated_at: object.updated_at.into(),
            spec,
            services,
        }
    }
}

/// The fields that the specs of all kinds have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectSpecView {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
}

/// A driver with its options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverView {
    /// Its name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "is_default")]
    pub options: Labels,
}

impl DriverView {
    /// The template driver of this name.
    ///
    /// # Errors
    /// 400: there is none, or it has options.
    pub fn templating(&self) -> Result<Templating, ApiError> {
        if self.name != Templating::Golang.as_str() {
            return Err(ApiError::bad_request(format!(
                "template driver '{}' is not known: possible is golang",
                self.name
            )));
        }
        match self.options.keys().next() {
            Some(option) => Err(ApiError::bad_request(format!("template driver golang has no option '{option}'"))),
            None => Ok(Templating::Golang),
        }
    }
}

impl From<Templating> for DriverView {
    fn from(templating: Templating) -> Self {
        Self { name: templating.as_str().into(), ..Self::default() }
    }
}

/// Response of `POST /secrets/create` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateObjectResponse {
    /// Id of the new object.
    #[serde(rename = "ID")]
    pub id: String,
}
