//! The authors of the revisions of a service, as the state keeps them.

use std::sync::Arc;

use swarm_core::{ENTRY_VERSION, Entry, FEATURE_LEVEL_MIN, Op, State, Tx, apply};
use swarm_model::{Author, NodeId, NodeName, Principal, Revision, Service, ServiceId, ServiceSpec, Timestamp};

const SERVICE: ServiceId = ServiceId(1);

/// A state of this feature level.
fn state(level: u16) -> State {
    let mut state = State::default();
    tx(&mut state, Tx::new(vec![Op::RaiseFeatureLevel { level }]));
    state
}

fn tx(state: &mut State, tx: Tx) {
    let index = state.revision() + 1;
    let entry = Entry { v: ENTRY_VERSION, at: Timestamp::from_millis(index as i64), txs: vec![tx] };
    assert_eq!(apply(state, index, &entry).0, [Ok(())]);
}

fn user(name: &str) -> Arc<Author> {
    let node = NodeName::new(NodeId(7), "m1");
    Arc::new(Author { principal: Principal::user(1000, Some(name)), node: Some(node) })
}

fn spec(image: &str) -> Arc<ServiceSpec> {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = image.into();
    Arc::new(spec)
}

/// A service that alice made, bob changed, and carol brought back.
fn story(state: &mut State) -> Arc<Service> {
    let create = Op::CreateService { service: SERVICE, spec: spec("hello:1"), registry_auth: None };
    tx(state, Tx::new(vec![create]).by(user("alice")));
    let service = state.service(SERVICE).expect("it was made").clone();
    let update = Op::update_service(state, &service, spec("hello:2"), None);
    tx(state, Tx::new(vec![update]).by(user("bob")));
    let back = Op::RollBack { service: SERVICE, keep_previous: true, message: "by hand".into(), to: None };
    tx(state, Tx::new(vec![back]).by(user("carol")));
    state.service(SERVICE).expect("it was made").clone()
}

fn names(revision: &Revision) -> (Option<String>, Option<String>) {
    let name = |author: &Arc<Author>| author.principal.name().to_owned();
    (revision.by.as_ref().map(name), revision.restored.as_ref().map(|restored| name(&restored.by)))
}

#[test]
fn a_revision_says_who_asked_for_it_and_who_went_back_to_it() {
    let mut state = state(ENTRY_VERSION);
    let service = story(&mut state);
    let some = |name: &str| Some(name.to_owned());
    let found: Vec<_> = service.history.iter().map(names).collect();
    assert_eq!(found, [(some("alice"), some("carol")), (some("bob"), None)]);
    assert_eq!(service.history[0].restored.as_ref().map(|restored| restored.at), Some(state.time()));
    let bytes = rmp_serde::to_vec_named(&service).expect("writable");
    assert_eq!(rmp_serde::from_slice::<Service>(&bytes).expect("readable"), *service);
}

/// A manager of the first version keeps no authors, whatever the transaction says.
#[test]
fn below_its_level_nobody_is_kept() {
    let mut state = state(FEATURE_LEVEL_MIN);
    let service = story(&mut state);
    assert!(service.history.iter().all(|revision| names(revision) == (None, None)), "{:?}", service.history);
    // So a snapshot says what one of the first version says.
    let json = serde_json::to_value(&*service).expect("writable");
    assert!(json["history"].as_array().expect("a list").iter().all(|revision| {
        let keys: Vec<&String> = revision.as_object().expect("fields").keys().collect();
        keys == ["base", "created_at", "number", "spec", "spec_version"]
    }));
}

/// A transaction as a later program may write it, and as the first version reads it.
#[test]
fn a_transaction_says_who_asked_for_it() {
    #[derive(serde::Deserialize)]
    struct First {
        guards: Vec<swarm_core::Guard>,
        ops: Vec<Op>,
    }
    let remove = || Tx::new(vec![Op::RemoveService { service: SERVICE }]);
    let bytes = rmp_serde::to_vec_named(&remove().by(user("alice"))).expect("writable");
    assert_eq!(rmp_serde::from_slice::<Tx>(&bytes).expect("readable"), remove().by(user("alice")));
    let first: First = rmp_serde::from_slice(&bytes).expect("readable by the first version");
    assert_eq!((first.guards.len(), first.ops), (0, remove().ops));
    let later = Author::of(Principal::from_parts("certificate", "ci", "9f"));
    let bytes = rmp_serde::to_vec_named(&remove().by(Arc::new(later.clone()))).expect("writable");
    let read: Tx = rmp_serde::from_slice(&bytes).expect("readable");
    assert_eq!(read.by.as_deref(), Some(&later));
    let nobody = rmp_serde::to_vec_named(&remove()).expect("writable");
    assert!(!nobody.windows(2).any(|pair| pair == b"by"), "what the managers decide is written as before");
}
