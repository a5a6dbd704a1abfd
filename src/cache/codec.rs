//! How values are encoded.

use std::error::Error;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// An encoding of values.
///
/// A value that a codec cannot decode, because its type has changed, counts as a miss and is loaded again. Where a value of
/// the old type can be mistaken for one of the new type, increase [`version`](super::CacheBuilder::version).
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// Identifies the codec in stored values, so that those of another codec count as misses. From 64 to 255 for codecs of
    /// other crates.
    const ID: u8;

    /// Appends the encoded value to `output`.
    ///
    /// # Errors
    ///
    /// Returns an error if the value cannot be encoded.
    fn encode<T: Serialize>(&self, value: &T, output: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not a value of this type.
    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// An error of a [`Codec`]. It is counted; its text is not logged, because it may contain a part of the value.
#[derive(Debug)]
pub struct CodecError(Box<dyn Error + Send + Sync>);

impl CodecError {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// JSON: readable with `redis-cli`, and tolerant of added and removed optional fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Codec for Json {
    const ID: u8 = 1;

    fn encode<T: Serialize>(&self, value: &T, output: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(output, value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

/// MessagePack with the names of fields: smaller than JSON, above all for numbers and bytes, and as tolerant of changed types.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

impl Codec for MessagePack {
    const ID: u8 = 2;

    fn encode<T: Serialize>(&self, value: &T, output: &mut Vec<u8>) -> Result<(), CodecError> {
        rmp_serde::encode::write_named(output, value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, CodecError> {
        rmp_serde::from_slice(bytes).map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        id: i64,
        prices: Vec<u32>,
        name: Option<String>,
    }

    /// As [`Before`], with a field that was added and the others in another order.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct After {
        name: Option<String>,
        stock: Option<i32>,
        prices: Vec<u32>,
        id: i64,
    }

    fn check<C: Codec>(codec: &C) -> usize {
        let before = Before { id: -7, prices: vec![1_000_000, 2], name: Some("Räder".to_owned()) };
        let mut bytes = Vec::new();
        codec.encode(&before, &mut bytes).unwrap();
        assert_eq!(codec.decode::<Before>(&bytes).unwrap(), before);
        let after = After { name: before.name.clone(), stock: None, prices: before.prices.clone(), id: before.id };
        assert_eq!(codec.decode::<After>(&bytes).unwrap(), after);
        assert!(codec.decode::<Before>(&bytes[..bytes.len() / 2]).is_err());
        assert!(codec.decode::<Vec<String>>(&bytes).is_err());
        bytes.len()
    }

    #[test]
    fn codecs_tolerate_added_fields_and_refuse_other_types() {
        let (json, message_pack) = (check(&Json), check(&MessagePack));
        assert!(message_pack < json, "{message_pack} {json}");
    }
}
