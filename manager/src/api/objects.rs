//! Named objects: the routes that all kinds have.

use std::sync::Arc;

use axum::{
    Router, extract,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};
use swarm_core::{Guard, Op, State, Tx};
use swarm_docker_api::{
    ApiError, Filters,
    view::{CreateObjectResponse, ObjectSpecView, ObjectView},
};
use swarm_model::{Id, NamedObject, ObjectContent, ObjectId, ObjectKind, validate_object};

use super::{
    Plane,
    call::Call,
    change::change,
    reply::{self, Reply},
    resolve,
};

/// How a kind looks to clients.
pub(super) trait Kind: 'static {
    /// The kind.
    const KIND: ObjectKind;
    /// The filters of its list.
    const FILTERS: &'static [&'static str];
    /// An object as clients send it.
    type Request: DeserializeOwned + Send + Sync;
    /// An object as it is shown.
    type Spec: Serialize;

    /// Name and labels of a request.
    fn head(request: &Self::Request) -> ObjectSpecView;

    /// The content of a new object, checked.
    ///
    /// # Errors
    /// It cannot be.
    fn content(request: Self::Request) -> Result<ObjectContent, ApiError>;

    /// Whether a request that updates an object leaves its content as it is.
    fn keeps(request: &Self::Request, content: &ObjectContent) -> bool;

    /// Shows an object.
    fn show(object: &NamedObject) -> Self::Spec;
}

/// Refuses data whose placeholders no node could fill in. No error shows anything of it.
fn check_template(content: &ObjectContent) -> Result<(), ApiError> {
    let Some(data) = content.data().filter(|_| content.templating().is_some()) else { return Ok(()) };
    let text = std::str::from_utf8(data.expose()).map_err(|error| {
        ApiError::bad_request(format!(
            "Data is no text from byte {} on: a template must be UTF-8, leave the template driver out",
            error.valid_up_to()
        ))
    })?;
    swarm_template::spec::check_payload(text)
        .map_err(|error| ApiError::bad_request(format!("invalid template in Data, {error}")))
}

/// The routes of a kind.
pub(super) fn routes<K: Kind, P: Plane>() -> Router<P> {
    let path = format!("/{}s", K::KIND);
    Router::new()
        .route(&path, get(list::<K, P>))
        .route(&format!("{path}/create"), post(create::<K, P>))
        .route(&format!("{path}/{{id}}"), get(inspect::<K, P>).delete(remove::<K, P>))
        .route(&format!("{path}/{{id}}/update"), post(update::<K, P>))
}

async fn list<K: Kind, P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let filters = call.filters(K::FILTERS)?;
    let with_services = call.flag("services")?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    let objects: Vec<_> = state.objects(K::KIND).filter(|object| matches(&filters, object)).cloned().collect();
    Ok(reply::list(objects, move |object: Arc<NamedObject>| show::<K>(&state, &object, with_services)))
}

/// Several names, or several beginnings of names, are one or the other (docker-api §7).
fn matches(filters: &Filters, object: &NamedObject) -> bool {
    filters.has_prefix("id", &object.id.to_string())
        && filters.has_name_prefix("name", &object.name)
        && filters.has("names", &object.name)
        && filters.has_labels("label", &object.labels)
}

fn show<K: Kind>(state: &State, object: &NamedObject, with_services: bool) -> ObjectView<K::Spec> {
    let users = || state.users_of(object.key()).map(|service| service.spec.name.clone()).collect();
    ObjectView::new(object, K::show(object), with_services.then(users))
}

async fn inspect<K: Kind, P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let with_services = call.flag("services")?;
    let state = plane.read().await?;
    resolve::cluster(&state)?;
    reply::json(&show::<K>(&state, resolve::object(&state, K::KIND, call.id())?, with_services))
}

async fn create<K: Kind, P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let request: K::Request = call.body()?;
    let ObjectSpecView { name, labels } = K::head(&request);
    validate_object(&name, &labels)?;
    let content = Arc::new(K::content(request)?);
    check_template(&content)?;
    let id = ObjectId::make(plane.now(), plane.random());
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        if state.object_by_name(K::KIND, &name).is_some() {
            return Err(ApiError::conflict(format!("{} {name} already exists", K::KIND)).into());
        }
        let (name, labels, content) = (name.clone(), labels.clone(), content.clone());
        Ok((Tx::new(vec![Op::CreateObject { id, name, labels, content }]), ()))
    })
    .await?;
    reply::json_with(StatusCode::CREATED, &CreateObjectResponse { id: id.to_string() })
}

/// Only labels can be changed. Clients send the rest along as it was, or not at all (docker-api §0.40).
async fn update<K: Kind, P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    let version = call.version(K::KIND.as_str())?;
    let request: K::Request = call.body()?;
    let ObjectSpecView { name, labels } = K::head(&request);
    validate_object(&name, &labels)?;
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let object = resolve::object(state, K::KIND, call.id())?;
        if object.version != version {
            return Err(reply::out_of_sequence().into());
        }
        if object.name != name || !K::keeps(&request, &object.content) {
            return Err(ApiError::bad_request(format!(
                "only updates to Labels are allowed: {} '{}' keeps its name and what it holds; make another one",
                K::KIND,
                object.name
            ))
            .into());
        }
        let object = object.key();
        let op = Op::LabelObject { object, labels: labels.clone() };
        Ok((Tx::new(vec![op]).guard(Guard::Object { object, version }), ()))
    })
    .await?;
    Ok(reply::empty())
}

async fn remove<K: Kind, P: Plane>(extract::State(plane): extract::State<P>, call: Call) -> Reply {
    change(&plane, &call.caller, |state| {
        resolve::cluster(state)?;
        let object = resolve::object(state, K::KIND, call.id())?.key();
        Ok((Tx::new(vec![Op::RemoveObject { object }]), ()))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
