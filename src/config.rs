//! YAML files to each module's `Options`; the only home of defaults.

pub mod alertmanager;
pub mod http;
pub mod yaml;
