//! What no lint can check: layers, lengths of files, opening comments, markers of unfinished work.
#![expect(clippy::disallowed_methods, reason = "reads the source tree itself")]

use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: &[&[&str]] = &[
    &["base"],
    &["model"],
    &["encoding"],
    &["storage"],
    &["http_client", "promql", "template"],
    &["rules", "alerting", "scrape", "discovery", "remote"],
    &["config"],
    &["api"],
    &["server"],
    &["cli"],
];

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 1000;

/// Files that may be longer: tables. This list only shrinks.
const LONG_FILES: &[&str] = &[];

struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    /// `src/storage/head.rs` belongs to `storage`.
    fn top_module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap_or("")
    }

    /// The first segment of each `crate::` path, comments left out.
    fn crate_paths(&self) -> impl Iterator<Item = &str> {
        let code = self.text.lines().map(|line| line.split("//").next().unwrap_or(""));
        code.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        })
    }

    fn lines_without_tests(&self) -> usize {
        let tests = self.text.lines().position(|line| line.starts_with("#[cfg(test)]"));
        tests.unwrap_or_else(|| self.text.lines().count())
    }
}

fn rust_files_under(folder: &str) -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join(folder)]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push(SourceFile { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no sources under {folder}");
    found
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn imports_point_down() {
    let rank = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut offences = Vec::new();
    for file in rust_files_under("src") {
        let Some(own) = rank(file.top_module()) else { continue }; // lib.rs and main.rs
        for used in file.crate_paths() {
            if used != file.top_module() && rank(used).is_none_or(|layer| own <= layer) {
                offences.push(format!("{}: must not use crate::{used}", file.path));
            }
        }
    }
    assert_none(&offences);
}

#[test]
fn every_module_has_a_layer() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let homeless = modules.filter(|module| !LAYERS.iter().any(|layer| layer.contains(module)));
    assert_none(&homeless.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn files_are_of_readable_length() {
    let mut offences = Vec::new();
    for file in rust_files_under("src") {
        let tests_only = file.path.ends_with("/tests.rs");
        let lines = file.lines_without_tests();
        if !tests_only && lines > FILE_LINES_MAX && !LONG_FILES.contains(&file.path.as_str()) {
            offences.push(format!("{}: {lines} lines without tests", file.path));
        }
    }
    assert_none(&offences);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut files = rust_files_under("src");
    files.extend(rust_files_under("tests"));
    files.extend(rust_files_under("proto"));
    let silent = files.iter().filter(|file| !file.text.starts_with("//!"));
    assert_none(&silent.map(|file| file.path.clone()).collect::<Vec<_>>());
}

#[test]
fn nothing_unfinished_is_merged() {
    // Spelled apart, so that this file does not offend itself.
    let banned = [
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("#[ign", "ore"),
        concat!("#[should_", "panic"),
        concat!("#[al", "low("),
        concat!("#![al", "low("),
        concat!("db", "g!("),
    ];
    let later = concat!("TO", "DO");
    let mut files = rust_files_under("src");
    files.extend(rust_files_under("tests"));
    let mut offences = Vec::new();
    for file in &files {
        for (number, line) in file.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {word}", file.path, number + 1));
            }
            let marker = line.find(later).map(|at| &line[at + later.len()..]);
            if marker.is_some_and(|rest| !rest.starts_with("(#")) {
                offences.push(format!("{}:{}: name the issue", file.path, number + 1));
            }
        }
    }
    assert_none(&offences);
}
