//! Which files make up the store at one moment. A query holds one version to its end.

use std::sync::Arc;

use super::log::file::LogFile;

/// Files, oldest first. Each sample is in exactly one of them.
#[derive(Clone, Default)]
pub struct Version {
    /// Log files that are not sealed; the last may be open for writing.
    pub logs: Vec<Arc<LogFile>>,
}
