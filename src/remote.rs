//! Samples pushed to us by remote write.

pub mod receive;
