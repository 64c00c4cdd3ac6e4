//! Formats in which samples arrive and leave: exposition text, remote write and read.

pub mod chunk;
pub mod entry;
pub mod exposition;
pub mod exposition_proto;
#[cfg(test)]
mod fuzz;
pub mod histogram;
pub mod negotiate;
pub mod openmetrics;
pub mod otlp;
pub mod protobuf;
pub mod remote_read;
pub mod remote_write;
pub mod remote_write_v2;
mod scan;
pub mod series;
pub mod text;
