//! Formats in which samples arrive and leave: exposition text, remote write and read.

pub mod chunk;
pub mod entry;
pub mod exposition;
pub mod negotiate;
pub mod openmetrics;
pub mod otlp;
pub mod protobuf;
pub mod remote_read;
pub mod remote_write;
mod scan;
pub mod series;
pub mod text;
