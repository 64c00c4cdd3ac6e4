//! YAML files to each module's `Options`; the only home of defaults.

pub mod http;
pub mod yaml;
