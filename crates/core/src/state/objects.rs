//! Named objects: the one way in which all kinds are kept.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use swarm_model::{NamedObject, ObjectId, ObjectKey, ObjectKind, Service, ServiceId, ServiceSpec};

use super::State;

/// All named objects, with their indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    by_key: OrdMap<ObjectKey, Arc<NamedObject>>,
    /// By the name in lower case.
    by_name: OrdMap<(ObjectKind, String), ObjectId>,
    /// By the services whose specs name them. Follows from the services.
    users: OrdSet<(ObjectKey, ServiceId)>,
}

impl State {
    /// All objects of a kind, in order of their ids.
    pub fn objects(&self, kind: ObjectKind) -> impl Iterator<Item = &Arc<NamedObject>> {
        let key = |id| ObjectKey { kind, id };
        self.objects.by_key.range(key(ObjectId(0))..=key(ObjectId(u128::MAX))).map(|(_, object)| object)
    }

    /// All objects of all kinds.
    pub(super) fn all_objects(&self) -> impl Iterator<Item = &Arc<NamedObject>> {
        self.objects.by_key.values()
    }

    /// An object.
    pub fn object(&self, key: ObjectKey) -> Option<&Arc<NamedObject>> {
        self.objects.by_key.get(&key)
    }

    /// An object by its name, without regard to case.
    pub fn object_by_name(&self, kind: ObjectKind, name: &str) -> Option<&Arc<NamedObject>> {
        let id = *self.objects.by_name.get(&(kind, name.to_lowercase()))?;
        self.object(ObjectKey { kind, id })
    }

    /// The services whose specs name an object, in order of their ids.
    pub fn users_of(&self, key: ObjectKey) -> impl Iterator<Item = &Arc<Service>> {
        let users = self.objects.users.range((key, ServiceId(0))..=(key, ServiceId(u128::MAX)));
        users.filter_map(|(_, service)| self.service(*service))
    }

    /// Stores an object that is new, or that took the place of itself.
    pub(crate) fn put_object(&mut self, object: NamedObject) {
        self.addresses.index_network(object.id, &object.content, true);
        self.objects.by_name.insert((object.key().kind, object.name.to_lowercase()), object.id);
        self.objects.by_key.insert(object.key(), Arc::new(object));
    }

    /// Deletes an object.
    pub(crate) fn delete_object(&mut self, key: ObjectKey) {
        if let Some(object) = self.objects.by_key.remove(&key) {
            self.objects.by_name.remove(&(key.kind, object.name.to_lowercase()));
            self.addresses.index_network(key.id, &object.content, false);
        }
    }

    /// Notes which objects a service names: in its spec until now, and in the one that it has from now on.
    pub(crate) fn index_users(&mut self, service: ServiceId, old: Option<&ServiceSpec>, new: Option<&ServiceSpec>) {
        for key in named(old) {
            self.objects.users.remove(&(key, service));
        }
        for key in named(new) {
            self.objects.users.insert((key, service));
        }
    }
}

fn named(spec: Option<&ServiceSpec>) -> impl Iterator<Item = ObjectKey> + '_ {
    spec.into_iter().flat_map(ServiceSpec::objects)
}
