//! Passes the revision of the source tree to the program, so that `narthex version` can tell it.
//!
//! `NARTHEX_REVISION` overrides what git says (for builds from an archive).

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=NARTHEX_REVISION");
    println!("cargo::rerun-if-changed=.git/HEAD");
    let revision = env::var("NARTHEX_REVISION").ok().or_else(git_revision);
    println!("cargo::rustc-env=NARTHEX_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

fn git_revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
