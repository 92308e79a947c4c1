//! Secrets. Their data goes in and never comes out.

use swarm_docker_api::{
    ApiError,
    view::{DriverView, ObjectSpecView, SecretRequest, SecretSpecView},
};
use swarm_model::{NamedObject, ObjectContent, ObjectKind, SecretContent};

use super::objects::Kind;

/// How secrets look to clients.
pub(super) struct Secrets;

impl Kind for Secrets {
    const KIND: ObjectKind = ObjectKind::Secret;
    const FILTERS: &'static [&'static str] = &["id", "name", "names", "label"];
    type Request = SecretRequest;
    type Spec = SecretSpecView;

    fn head(request: &SecretRequest) -> ObjectSpecView {
        ObjectSpecView { name: request.name.clone(), labels: request.labels.clone() }
    }

    fn content(request: SecretRequest) -> Result<ObjectContent, ApiError> {
        if let Some(driver) = request.driver {
            return Err(ApiError::bad_request(format!(
                "secret driver '{}' is not supported: the managers keep the data, leave the driver out",
                driver.name
            )));
        }
        let templating = request.templating.map(|driver| driver.templating()).transpose()?;
        let content = SecretContent { data: request.data, templating };
        content.validate().map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(ObjectContent::Secret(content))
    }

    fn keeps(request: &SecretRequest, content: &ObjectContent) -> bool {
        request.data.expose().is_empty() || Some(&request.data) == content.data()
    }

    fn show(object: &NamedObject) -> SecretSpecView {
        SecretSpecView {
            name: object.name.clone(),
            labels: object.labels.clone(),
            driver: None,
            templating: object.content.templating().map(DriverView::from),
        }
    }
}
