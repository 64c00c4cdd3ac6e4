//! Formats in which samples arrive and leave: exposition text, remote write.

pub mod remote_write;
