//! What many nodes are told is encoded once.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex},
};

use swarm_model::{NamedObject, ObjectContent, ObjectKey, ServiceId, SpecVersion};
use swarm_wire::agent::{AssignedObject, AssignedSpec, Shared};

use crate::feed::lock;

/// Bytes of specs, and of objects, that are kept for the next node: a new service reaches all its nodes within a second, and
/// few services are new at a time.
const BYTES_MAX: usize = 16 << 20;

/// A spec version of a service.
pub(super) type SpecKey = (ServiceId, u64);

/// The specs and objects that nodes were told of last, encoded.
#[derive(Debug, Default)]
pub struct Encoded {
    specs: Mutex<Cache<SpecKey, SpecVersion, AssignedSpec>>,
    objects: Mutex<Cache<ObjectKey, ObjectContent, AssignedObject>>,
}

impl Encoded {
    /// A spec.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(super) fn spec(&self, spec: &Arc<SpecVersion>) -> io::Result<Shared<AssignedSpec>> {
        lock(&self.specs).get((spec.service, spec.version), spec, || assigned_spec(spec))
    }

    /// An object.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub(super) fn object(&self, object: &NamedObject) -> io::Result<Shared<AssignedObject>> {
        let assigned = || AssignedObject { id: object.id, name: object.name.clone(), content: object.content.clone() };
        lock(&self.objects).get(object.key(), &object.content, assigned)
    }
}

/// Encoded values, each with what it was made from. The oldest ones go first.
#[derive(Debug)]
struct Cache<K, S, T> {
    held: BTreeMap<K, (Arc<S>, Shared<T>)>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K, S, T> Default for Cache<K, S, T> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<K: Copy + Ord, S, T: serde::Serialize> Cache<K, S, T> {
    fn get(&mut self, key: K, source: &Arc<S>, make: impl FnOnce() -> T) -> io::Result<Shared<T>> {
        if let Some((known, shared)) = self.held.get(&key)
            && Arc::ptr_eq(known, source)
        {
            return Ok(shared.clone());
        }
        let shared = Shared::new(&make())?;
        self.bytes += shared.size();
        match self.held.insert(key, (source.clone(), shared.clone())) {
            // The same key with other credentials, or of a restored backup.
            Some((_, old)) => self.bytes -= old.size(),
            None => self.order.push_back(key),
        }
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some((_, old)) = self.held.remove(&oldest)
        {
            self.bytes -= old.size();
        }
        Ok(shared)
    }
}

fn assigned_spec(version: &SpecVersion) -> AssignedSpec {
    AssignedSpec {
        service: version.service,
        version: version.version,
        service_name: version.spec.name.clone(),
        service_labels: version.spec.labels.clone(),
        task: version.spec.task_template.clone(),
        ports: version.spec.ports().to_vec(),
        registry_auth: version.registry_auth.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_encoded_once_and_the_oldest_ones_go() {
        let mut cache = Cache::<u8, Vec<u8>, Vec<u8>>::default();
        let sources = [1_u8, 2, 3].map(|byte| Arc::new(vec![byte; BYTES_MAX / 4]));
        let mut made = 0;
        let mut get = |cache: &mut Cache<_, _, _>, key: usize| {
            let make = || {
                made += 1;
                sources[key].to_vec()
            };
            assert_eq!(cache.get(key as u8, &sources[key], make).unwrap().open().unwrap(), *sources[key]);
            made
        };
        assert_eq!([get(&mut cache, 0), get(&mut cache, 0), get(&mut cache, 0)], [1, 1, 1]);
        // A vector of numbers takes more than a byte for each: a third one is too much.
        let large = Arc::new(vec![200_u8; BYTES_MAX / 4]);
        assert_eq!(get(&mut cache, 1), 2);
        cache.get(9, &large, || large.to_vec()).unwrap();
        cache.get(8, &large, || large.to_vec()).unwrap();
        assert!(cache.bytes <= BYTES_MAX && cache.held.len() == cache.order.len());
        assert_eq!(cache.bytes, cache.held.values().map(|(_, shared)| shared.size()).sum::<usize>());
        assert_eq!([get(&mut cache, 0), get(&mut cache, 0)], [3, 3]);
        // Another source under the same key is another value.
        let other = Arc::new(vec![7_u8]);
        assert_eq!(cache.get(0, &other, || other.to_vec()).unwrap().open().unwrap(), [7]);
    }
}
