//! A value for many nodes, encoded once.

use std::{fmt, io, marker::PhantomData, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use swarm_model::SecretBytes;

/// A value as its bytes, which are made once for however many nodes are sent it. They may be those of a secret: they are
/// not printed, and are zeroed when the last holder drops them.
pub struct Shared<T> {
    bytes: Arc<SecretBytes>,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize> Shared<T> {
    /// Encodes a value.
    ///
    /// # Errors
    /// The value cannot be encoded.
    pub fn new(value: &T) -> io::Result<Self> {
        let mut bytes = Vec::new();
        rmp_serde::encode::write_named(&mut bytes, value).map_err(io::Error::other)?;
        Ok(Self { bytes: Arc::new(bytes.into()), value: PhantomData })
    }
}

impl<T: DeserializeOwned> Shared<T> {
    /// The value.
    ///
    /// # Errors
    /// The bytes are not those of one. The text shows nothing of them.
    pub fn open(&self) -> io::Result<T> {
        let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it does not have the form that it should have");
        rmp_serde::from_slice(self.bytes.expose()).map_err(invalid)
    }
}

impl<T> Shared<T> {
    /// The encoded value.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.expose()
    }

    /// The number of bytes of the value in a message.
    pub fn size(&self) -> usize {
        self.bytes.expose().len()
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), value: PhantomData }
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.size())
    }
}

impl<T> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { bytes: Arc::new(SecretBytes::deserialize(deserializer)?), value: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_model::{ObjectContent, ObjectId, SecretContent};

    use super::*;
    use crate::agent::{AssignedObject, AssignedSpec};

    fn object() -> AssignedObject {
        let data = b"\x00\xffs3cret".to_vec().into();
        let content = ObjectContent::Secret(SecretContent { data, templating: None });
        AssignedObject { id: ObjectId(7), name: "key".into(), content: Arc::new(content) }
    }

    #[test]
    fn a_value_comes_back_and_is_not_printed() {
        let shared = Shared::new(&object()).unwrap();
        let bytes = rmp_serde::to_vec_named(&shared).unwrap();
        let read: Shared<AssignedObject> = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!((read.open().unwrap(), &read), (object(), &shared));
        assert_eq!(format!("{read:?}"), format!("<{} bytes>", shared.size()));
        let cut = Shared::<AssignedObject> { bytes: Arc::new(b"\x83s3cret".to_vec().into()), value: PhantomData };
        assert!(!cut.open().unwrap_err().to_string().contains("s3cret"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_refused(bytes: Vec<u8>) {
            let shared = |bytes: &[u8]| Arc::new(SecretBytes::from(bytes.to_vec()));
            let _ = Shared::<AssignedObject> { bytes: shared(&bytes), value: PhantomData }.open();
            let _ = Shared::<AssignedSpec> { bytes: shared(&bytes), value: PhantomData }.open();
        }

        #[test]
        fn damaged_bytes_of_a_value_are_a_value_or_refused(at: prop::sample::Index, byte: u8) {
            let mut bytes = rmp_serde::to_vec_named(&object()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Shared::<AssignedObject> { bytes: Arc::new(bytes.into()), value: PhantomData }.open();
        }
    }
}
