//! The plain values that all layers speak of: no I/O, no async, and no lock but that of the
//! cache of compiled expressions in `matcher`.

pub mod alert;
pub mod digest;
pub mod duration;
pub mod exemplar;
pub mod float;
pub mod histogram;
pub mod kahan;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod regexp;
pub mod relabel;
pub mod sample;
pub mod target;
