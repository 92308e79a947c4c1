//! The texts of keys, as JSON has them.

use serde::{Serialize, Serializer, ser::Impossible};

use super::structure::NoJson;

/// Makes the text of a key.
pub(super) struct Key;

fn no_key<T>(what: &str) -> Result<T, NoJson> {
    Err(NoJson(format!("{what} as a key")))
}

macro_rules! texts {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<String, NoJson> {
            Ok(value.to_string())
        })*
    };
}

impl Serializer for Key {
    type Ok = String;
    type Error = NoJson;
    type SerializeSeq = Impossible<String, NoJson>;
    type SerializeTuple = Impossible<String, NoJson>;
    type SerializeTupleStruct = Impossible<String, NoJson>;
    type SerializeTupleVariant = Impossible<String, NoJson>;
    type SerializeMap = Impossible<String, NoJson>;
    type SerializeStruct = Impossible<String, NoJson>;
    type SerializeStructVariant = Impossible<String, NoJson>;

    texts!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_u8: u8,
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_bool: bool, serialize_char: char,
        serialize_str: &str);

    fn serialize_f32(self, _: f32) -> Result<String, NoJson> {
        no_key("a number that need not be whole")
    }

    fn serialize_f64(self, _: f64) -> Result<String, NoJson> {
        no_key("a number that need not be whole")
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<String, NoJson> {
        no_key("bytes")
    }

    fn serialize_none(self) -> Result<String, NoJson> {
        no_key("nothing")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, NoJson> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<String, NoJson> {
        no_key("nothing")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<String, NoJson> {
        no_key("nothing")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String, NoJson> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<String, NoJson> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, NoJson> {
        no_key("an object")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NoJson> {
        no_key("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NoJson> {
        no_key("a list")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, NoJson> {
        no_key("a list")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NoJson> {
        no_key("a list")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NoJson> {
        no_key("an object")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, NoJson> {
        no_key("an object")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NoJson> {
        no_key("an object")
    }
}
