//! The digest of a value as JSON, made without writing JSON.
//!
//! It is defined on the JSON that serde makes of the value, so that it does not change when a field that was kept as it
//! came gets a type. What says no more than a missing field counts as missing: `null`, `false`, `0`, an empty text, list
//! or object. Keys count in lower case, in any order; 1.0 counts as 1. Everything else counts.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    ser::{
        Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::key::Key;

/// What says no more than a missing field.
const EMPTY: u128 = 0;
/// Seeds, one for each kind of value.
const TRUE: u64 = 1;
const INTEGER: u64 = 2;
const FLOAT: u64 = 3;
const TEXT: u64 = 4;
const LIST: u64 = 5;
const OBJECT: u64 = 6;
const FIELD: u64 = 7;
/// Keys up to this length are made lower case without memory of their own.
const KEY_BYTES: usize = 64;

/// A value that is no JSON, as a map whose keys are no texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no JSON: {0}")]
pub(crate) struct NoJson(pub(super) String);

impl serde::ser::Error for NoJson {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// The digest of a value.
pub(crate) fn digest(value: &impl Serialize) -> Result<u128, NoJson> {
    value.serialize(Structure)
}

fn text(value: &str) -> u128 {
    if value.is_empty() { EMPTY } else { xxh3_128_with_seed(value.as_bytes(), TEXT) }
}

fn integer(value: i128) -> u128 {
    if value == 0 { EMPTY } else { xxh3_128_with_seed(&value.to_le_bytes(), INTEGER) }
}

fn float(value: f64) -> u128 {
    // Whole numbers up to here are exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return integer(value as i128);
    }
    xxh3_128_with_seed(&value.to_bits().to_le_bytes(), FLOAT)
}

fn pair(left: u128, right: u128, seed: u64) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&left.to_le_bytes());
    bytes[16..].copy_from_slice(&right.to_le_bytes());
    xxh3_128_with_seed(&bytes, seed)
}

fn field(key: &str, value: u128) -> u128 {
    if value == EMPTY {
        return EMPTY;
    }
    let key = match key.len() {
        length @ ..=KEY_BYTES => {
            let mut lower = [0; KEY_BYTES];
            lower[..length].copy_from_slice(key.as_bytes());
            lower[..length].make_ascii_lowercase();
            xxh3_128_with_seed(&lower[..length], FIELD)
        }
        _ => xxh3_128_with_seed(key.to_ascii_lowercase().as_bytes(), FIELD),
    };
    pair(key, value, FIELD)
}

fn object(fields: u128) -> u128 {
    if fields == EMPTY { EMPTY } else { pair(fields, 0, OBJECT) }
}

/// Makes the digest.
struct Structure;

/// The elements of a list, or of the only field of a variant.
struct List {
    variant: Option<&'static str>,
    digest: u128,
    length: u64,
}

/// The fields of an object, in any order, or of the only field of a variant.
struct Fields {
    variant: Option<&'static str>,
    sum: u128,
    key: Option<String>,
}

impl List {
    fn new(variant: Option<&'static str>) -> Self {
        Self { variant, digest: EMPTY, length: 0 }
    }

    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoJson> {
        self.digest = pair(self.digest, value.serialize(Structure)?, LIST);
        self.length += 1;
        Ok(())
    }

    fn finish(self) -> u128 {
        let list = if self.length == 0 { EMPTY } else { pair(self.digest, self.length.into(), LIST) };
        match self.variant {
            Some(name) => object(field(name, list)),
            None => list,
        }
    }
}

impl Fields {
    fn new(variant: Option<&'static str>) -> Self {
        Self { variant, sum: EMPTY, key: None }
    }

    fn push<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), NoJson> {
        // The sum is the same in any order.
        self.sum = self.sum.wrapping_add(field(key, value.serialize(Structure)?));
        Ok(())
    }

    fn finish(self) -> u128 {
        let fields = object(self.sum);
        match self.variant {
            Some(name) => object(field(name, fields)),
            None => fields,
        }
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<u128, NoJson> {
            Ok(integer(value.into()))
        })*
    };
}

impl Serializer for Structure {
    type Ok = u128;
    type Error = NoJson;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_bool(self, value: bool) -> Result<u128, NoJson> {
        Ok(if value { xxh3_128_with_seed(&[], TRUE) } else { EMPTY })
    }

    fn serialize_u128(self, value: u128) -> Result<u128, NoJson> {
        i128::try_from(value).map(integer).map_err(NoJson::custom)
    }

    fn serialize_f32(self, value: f32) -> Result<u128, NoJson> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<u128, NoJson> {
        // What is no number is null in JSON.
        Ok(if value.is_finite() { float(value) } else { EMPTY })
    }

    fn serialize_char(self, value: char) -> Result<u128, NoJson> {
        Ok(text(value.encode_utf8(&mut [0; 4])))
    }

    fn serialize_str(self, value: &str) -> Result<u128, NoJson> {
        Ok(text(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<u128, NoJson> {
        let mut list = List::new(None);
        value.iter().try_for_each(|byte| list.push(byte))?;
        Ok(list.finish())
    }

    fn serialize_none(self) -> Result<u128, NoJson> {
        Ok(EMPTY)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u128, NoJson> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<u128, NoJson> {
        Ok(EMPTY)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<u128, NoJson> {
        Ok(EMPTY)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<u128, NoJson> {
        Ok(text(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<u128, NoJson> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<u128, NoJson> {
        Ok(object(field(variant, value.serialize(self)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List, NoJson> {
        Ok(List::new(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<List, NoJson> {
        Ok(List::new(None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List, NoJson> {
        Ok(List::new(None))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<List, NoJson> {
        Ok(List::new(Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields, NoJson> {
        Ok(Fields::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, NoJson> {
        Ok(Fields::new(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, NoJson> {
        Ok(Fields::new(Some(variant)))
    }
}

macro_rules! lists {
    ($($trait:ident: $method:ident),*) => {
        $(impl $trait for List {
            type Ok = u128;
            type Error = NoJson;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoJson> {
                self.push(value)
            }

            fn end(self) -> Result<u128, NoJson> {
                Ok(self.finish())
            }
        })*
    };
}

lists!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field);

macro_rules! objects {
    ($($trait:ident),*) => {
        $(impl $trait for Fields {
            type Ok = u128;
            type Error = NoJson;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), NoJson> {
                self.push(key, value)
            }

            fn end(self) -> Result<u128, NoJson> {
                Ok(self.finish())
            }
        })*
    };
}

objects!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Fields {
    type Ok = u128;
    type Error = NoJson;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoJson> {
        self.key = Some(key.serialize(Key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoJson> {
        let key = self.key.take().ok_or_else(|| NoJson("a value without a key".to_owned()))?;
        self.push(&key, value)
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), NoJson> {
        let key = key.serialize(Key)?;
        self.push(&key, value)
    }

    fn end(self) -> Result<u128, NoJson> {
        Ok(self.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};
    use swarm_model::ServiceSpec;

    use super::*;

    /// The definition, step by step on a JSON value.
    fn reference(value: &Value) -> u128 {
        match value {
            Value::Null | Value::Bool(false) => EMPTY,
            Value::Bool(true) => xxh3_128_with_seed(&[], TRUE),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => integer(whole.into()),
                (None, Some(whole)) => integer(whole.into()),
                (None, None) => float(number.as_f64().unwrap()),
            },
            Value::String(value) => text(value),
            Value::Array(values) if values.is_empty() => EMPTY,
            Value::Array(values) => {
                let digest = values.iter().fold(EMPTY, |digest, value| pair(digest, reference(value), LIST));
                pair(digest, values.len() as u128, LIST)
            }
            Value::Object(fields) => {
                let said = fields.iter().map(|(key, value)| (key, reference(value))).filter(|(_, said)| *said != EMPTY);
                object(said.map(|(key, said)| field(key, said)).fold(EMPTY, u128::wrapping_add))
            }
        }
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e6..1e6).prop_map(Value::from),
            "[a-zA-Z ]{0,70}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z]{0,70}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_that_of_the_json(value in json_values()) {
            prop_assert_eq!(digest(&value).unwrap(), reference(&value));
        }

        #[test]
        fn what_says_nothing_does_not_count(value in json_values(), key in "[a-z]{1,8}") {
            let mut with = Map::new();
            with.insert("value".to_owned(), value);
            let without = digest(&with).unwrap();
            for nothing in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({}), json!({"a": {"b": []}})] {
                let mut with = with.clone();
                with.entry(format!("{key}_")).or_insert(nothing);
                prop_assert_eq!(digest(&with).unwrap(), without);
            }
            let mut more = with.clone();
            more.insert(format!("{key}_"), json!(1));
            prop_assert_ne!(digest(&more).unwrap(), without);
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Untyped {
        #[serde(flatten)]
        extra: BTreeMap<String, Value>,
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    #[derive(Default)]
    struct Typed {
        #[serde(skip_serializing_if = "Option::is_none")]
        memory_limit: Option<i64>,
        nice: f64,
        names: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        groups: Vec<u16>,
        mode: Option<Mode>,
        nested: Option<Box<Typed>>,
        #[serde(flatten)]
        extra: BTreeMap<String, Value>,
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    enum Mode {
        Plain,
        Counted(u32),
        #[serde(rename_all = "PascalCase")]
        Full {
            depth: u8,
        },
    }

    #[test]
    fn a_field_that_gets_a_type_changes_nothing() {
        for json in [
            json!({"MemoryLimit": 5, "Nice": 1, "Names": ["a", "b", ""], "Mode": "Plain", "Other": {"x": [1.5, null]}}),
            json!({"MemoryLimit": null, "Nice": 0, "Groups": [], "Mode": {"Counted": 7}}),
            json!({"Nice": -2.5, "Mode": {"Full": {"Depth": 3}}, "Nested": {"Names": [], "Nested": {"Nice": 4}}}),
        ] {
            let untyped: Untyped = serde_json::from_value(json.clone()).unwrap();
            let typed: Typed = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(digest(&untyped).unwrap(), digest(&typed).unwrap(), "{json}");
            assert_eq!(digest(&json).unwrap(), digest(&typed).unwrap(), "{json}");
        }
    }

    #[test]
    fn a_spec_is_its_json() {
        let mut json = json!({
            "Name": "web",
            "Labels": {"a": "b"},
            "Mode": {"Replicated": {"Replicas": 3}},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "hello:1", "Env": ["A=1"], "Secrets": [{"SecretID": "x", "File": {"Mode": 292}}]},
                "Resources": {"Limits": {"NanoCPUs": 5}},
                "Networks": [{"Target": "net"}],
            },
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishMode": "host"}]},
        });
        let of = |json: &Value| digest(&serde_json::from_value::<ServiceSpec>(json.clone()).unwrap()).unwrap();
        let spec: ServiceSpec = serde_json::from_value(json.clone()).unwrap();
        let first = of(&json);
        assert_eq!(first, reference(&serde_json::to_value(&spec).unwrap()));
        json["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["File"]["Mode"] = json!(293);
        assert_ne!(of(&json), first, "what is kept as it came counts too");
    }

    #[test]
    fn order_and_case_of_keys_do_not_count_but_all_else_does() {
        let of = |value: Value| digest(&value).unwrap();
        assert_eq!(of(json!({"Foo": 1, "bar": 2})), of(json!({"BAR": 2.0, "foo": 1})));
        assert_ne!(of(json!({"foo": 1, "bar": 2})), of(json!({"foo": 2, "bar": 1})));
        assert_ne!(of(json!([1, 2])), of(json!([2, 1])));
        assert_ne!(of(json!([0])), of(json!([0, 0])));
        assert_ne!(of(json!("1")), of(json!(1)));
        assert_ne!(of(json!({"a": {"b": 1}})), of(json!({"b": {"a": 1}})));
        assert!(digest(&BTreeMap::from([(vec![1], 1)])).is_err());
    }
}
