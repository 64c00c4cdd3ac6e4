//! Every crate that we link comes from the registry under a licence that we accept.

use std::process::Command;

use serde_json::Value;

/// Permissive licences; each lets a binary be given away with a notice.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in through the back door, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls with ring"),
    ("aws-lc-sys", "TLS is rustls with ring"),
    ("serde_yaml", "archived; YAML is serde-saphyr"),
];

/// An SPDX expression is fine when one of its alternatives has accepted parts only. Parentheses
/// in practice only enclose alternatives, so each parenthesised part must hold on its own.
fn is_accepted(expression: &str) -> bool {
    let alternative = |text: &str| text.split(" AND ").all(|part| ACCEPTED.contains(&part.trim()));
    let any_of = |text: &str| text.replace('/', " OR ").split(" OR ").any(alternative);
    expression
        .split(['(', ')'])
        .map(|part| part.trim().trim_start_matches("AND ").trim_end_matches(" AND"))
        .filter(|part| !part.is_empty())
        .all(any_of)
}

#[test]
fn dependencies_have_accepted_licences_and_sources() {
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--offline",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "all dependencies are listed");
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            offences.push(format!("{name} is banned: {reason}"));
        }
        let Some(source) = package["source"].as_str() else { continue }; // ourselves
        if !source.starts_with("registry+") {
            offences.push(format!("{name} comes from {source}"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_accepted(licence) {
            offences.push(format!("{name} is under {licence}"));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn licence_expressions_are_understood() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND LGPL-3.0", false),
    ] {
        assert_eq!(is_accepted(expression), expected, "{expression}");
    }
}
