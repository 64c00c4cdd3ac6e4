//! Bytes to model and back: column chunks of the store, and the formats of the wire.

pub mod column;
pub mod wire;
