//! Conformance data outside the repository.

use std::path::{Path, PathBuf};

/// A folder of the shared data: under `$NARTHEX_SHARED`, else in `../shared` beside the package.
/// `None`, with a message, when it is not there; with `NARTHEX_REQUIRE_SHARED` (CI) that fails.
pub fn folder(part: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("NARTHEX_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("NARTHEX_REQUIRE_SHARED").is_some();
    assert!(!required, "{} is required here, but is missing", folder.display());
    eprintln!("skipped: no {}; NARTHEX_SHARED names the folder", folder.display());
    None
}
