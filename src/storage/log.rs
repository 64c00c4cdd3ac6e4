//! Log files: the write-ahead log and the head in one.
//!
//! Commits are frames, written with positioned writes into a preallocated file and read in place.
//! What a crash leaves is a file whose frames are whole up to a point that is at or beyond the
//! last synced position; see `docs/formats/log.md`.

pub mod directory;
pub mod exemplar;
pub mod file;
pub mod format;
pub mod histogram;
pub mod scan;
pub mod starts;
