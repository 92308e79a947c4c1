//! Specs and objects that many nodes are told of are encoded once.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, Weak},
};

use swarm_model::{NamedObject, ObjectContent, ObjectKey, ServiceId, SpecVersion};
use swarm_wire::agent::{AssignedObject, AssignedSpec, Shared};

use crate::feed::lock;

/// Bytes of specs, and as many of objects, that are kept for the next node.
const BYTES_MAX: usize = 16 << 20;
/// Specs, and as many objects, that are kept: a new service reaches all its nodes within a second, and few services are new
/// at a time.
const KEPT_MAX: usize = 128;

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
    /// The spec cannot be encoded.
    pub(super) fn spec(&self, spec: &Arc<SpecVersion>) -> io::Result<Shared<AssignedSpec>> {
        lock(&self.specs).get((spec.service, spec.version), spec, || assigned_spec(spec))
    }

    /// An object.
    ///
    /// # Errors
    /// The object cannot be encoded.
    pub(super) fn object(&self, object: &NamedObject) -> io::Result<Shared<AssignedObject>> {
        let assigned = || AssignedObject { id: object.id, name: object.name.clone(), content: object.content.clone() };
        lock(&self.objects).get(object.key(), &object.content, assigned)
    }
}

/// The last encoded values, the oldest first, each with its source. A value goes when its source is gone: a secret that was
/// removed is not kept here.
#[derive(Debug)]
struct Cache<K, S, T>(VecDeque<(K, Weak<S>, Shared<T>)>);

impl<K, S, T> Default for Cache<K, S, T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Copy + Eq, S, T: serde::Serialize> Cache<K, S, T> {
    fn get(&mut self, key: K, source: &Arc<S>, make: impl FnOnce() -> T) -> io::Result<Shared<T>> {
        self.0.retain(|(_, source, _)| source.strong_count() > 0);
        // The same key may have other credentials, or come from a restored backup.
        let is_it = |known: &K, of: &Weak<S>| (*known, of.as_ptr()) == (key, Arc::as_ptr(source));
        if let Some((.., shared)) = self.0.iter().find(|(known, of, _)| is_it(known, of)) {
            return Ok(shared.clone());
        }
        let shared = Shared::new(&make())?;
        self.0.push_back((key, Arc::downgrade(source), shared.clone()));
        while self.0.len() > KEPT_MAX || self.bytes() > BYTES_MAX {
            self.0.pop_front();
        }
        Ok(shared)
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(.., shared)| shared.size()).sum()
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

    /// Gets a value, and says whether it was encoded for that.
    fn is_made(cache: &mut Cache<u8, Vec<u8>, Vec<u8>>, key: u8, source: &Arc<Vec<u8>>) -> bool {
        let mut made = false;
        let make = || {
            made = true;
            source.to_vec()
        };
        assert_eq!(cache.get(key, source, make).unwrap().open().unwrap(), **source);
        made
    }

    #[test]
    fn a_value_is_encoded_once_and_the_oldest_ones_go() {
        let mut cache = Cache::default();
        // A number from 128 on takes two bytes.
        let sources = [200_u8, 201, 202].map(|byte| Arc::new(vec![byte; BYTES_MAX / 5]));
        let of = |cache: &mut _, key: u8| is_made(cache, key, &sources[usize::from(key)]);
        assert_eq!(
            [of(&mut cache, 0), of(&mut cache, 0), of(&mut cache, 1), of(&mut cache, 0)],
            [true, false, true, false]
        );
        // There is no room for three.
        assert_eq!(
            [of(&mut cache, 2), of(&mut cache, 2), of(&mut cache, 1), of(&mut cache, 0)],
            [true, false, false, true]
        );
        assert!(cache.bytes() <= BYTES_MAX);
        // Another source under the same key is another value.
        assert!(is_made(&mut cache, 0, &Arc::new(vec![7])));
        let small: Vec<_> = (0..=255).map(|byte| Arc::new(vec![byte])).collect();
        small.iter().for_each(|source| assert!(is_made(&mut cache, 9, source)));
        assert_eq!(cache.0.len(), KEPT_MAX);
    }

    #[test]
    fn a_value_goes_with_its_source() {
        let mut cache = Cache::default();
        let (removed, stays) = (Arc::new(vec![1]), Arc::new(vec![2]));
        assert!(is_made(&mut cache, 1, &removed) && is_made(&mut cache, 2, &stays));
        drop(removed);
        assert!(!is_made(&mut cache, 2, &stays));
        assert_eq!(cache.0.len(), 1);
    }
}
