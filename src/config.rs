//! YAML files to each module's `Options`; the only home of defaults.

pub mod alertmanager;
pub mod http;
pub mod prometheus;
pub mod relabel;
pub mod scrape;
pub mod yaml;
