//! Samples pushed to us by remote write and OTLP.

pub mod otlp;
pub mod receive;
