//! Service discovery: finds targets and keeps the list current.
//!
//! A [`Manager`] runs one provider for each distinct set of options, shared by all sets (jobs)
//! that use it, and publishes all groups together, at most once in five seconds. Whoever uses the
//! groups watches [`Manager::targets`]; discovery knows neither scraping nor notification.

mod file;
mod manager;
mod metrics;
mod static_targets;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::target::TargetGroup;

pub use manager::Manager;

/// One entry of a `*_sd_configs` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Options {
    /// `static_configs`: the groups as they stand in the configuration. Sources are renamed.
    Static(Vec<TargetGroup>),
    /// `file_sd_configs`
    File(FileOptions),
}

/// One entry of `file_sd_configs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Patterns of paths that end in `.json`, `.yml` or `.yaml`; absolute, `*` in the last part.
    pub files: Vec<PathBuf>,
    /// All files are read again after this time even when no change was seen.
    pub refresh: Duration,
}
