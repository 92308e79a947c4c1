//! Configs.

use swarm_docker_api::{
    ApiError,
    view::{ConfigRequest, ConfigSpecView, DriverView, ObjectSpecView},
};
use swarm_model::{ConfigContent, NamedObject, ObjectContent, ObjectKind};

use super::objects::Kind;

/// How configs look to clients.
pub(super) struct Configs;

impl Kind for Configs {
    const KIND: ObjectKind = ObjectKind::Config;
    const FILTERS: &'static [&'static str] = &["id", "name", "label"];
    type Request = ConfigRequest;
    type Spec = ConfigSpecView;

    fn head(request: &ConfigRequest) -> ObjectSpecView {
        ObjectSpecView { name: request.name.clone(), labels: request.labels.clone() }
    }

    fn content(request: ConfigRequest) -> Result<ObjectContent, ApiError> {
        let templating = request.templating.map(|driver| driver.templating()).transpose()?;
        let content = ConfigContent { data: request.data, templating };
        content.validate().map_err(|error| ApiError::bad_request(error.to_string()))?;
        Ok(ObjectContent::Config(content))
    }

    fn keeps(request: &ConfigRequest, content: &ObjectContent) -> bool {
        request.data.expose().is_empty() || Some(&request.data) == content.data()
    }

    fn show(object: &NamedObject) -> ConfigSpecView {
        ConfigSpecView {
            name: object.name.clone(),
            labels: object.labels.clone(),
            data: object.content.data().map(ConfigSpecView::encode).unwrap_or_default(),
            templating: object.content.templating().map(DriverView::from),
        }
    }
}
