//! `docs/configuration.md` and `docs/metrics.md` are made from the program. These tests fail when a
//! page is stale or a field has no words; `NARTHEX_UPDATE_DOCS=1 cargo test --test it docs` writes
//! the pages anew.
#![expect(clippy::disallowed_methods, reason = "reads and writes the pages")]

mod fields;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use narthex::base::disk::OsDisk;
use narthex::cli;
use narthex::config::Config;
use narthex::config::rules::parse_rules;
use narthex::promql::parser::ParserOptions;

use crate::process::{Server, get, wait_for};
use fields::SECTIONS;

fn check(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("NARTHEX_UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let first = there.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(
        there == made,
        "docs/{name} is stale ({first:?}); NARTHEX_UPDATE_DOCS=1 cargo test --test it docs writes it"
    );
}

/// As a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn docs_of_the_configuration_are_true() {
    let mut page = String::from(
        "# Flags and configuration\n\n\
         This page is made by `tests/it/docs.rs` from the program itself; do not edit it.\n\n\
         Flags need a restart; files are read again on `SIGHUP` and `POST /-/reload`. A file that is wrong changes nothing.\n\
         Durations are written like `1h30m`, sizes like `512MB` (powers of two).\n\n\
         ## Flags of the server\n\n\
         `--no-X` switches off what `--X` switched on before it.\n\n\
         | flag | default | meaning |\n|---|---|---|\n",
    );
    let command = cli::command();
    add_flags(&mut page, &command);
    page.push_str("\n## Sub-commands\n");
    for command in command.get_subcommands() {
        add_command(&mut page, command, "narthex");
    }
    page.push_str(
        "\n## The main file (`--config.file`)\n\n\
         The format is Prometheus'. What is not listed here is refused by name; the file of `--alertmanager.config.file` is that of\n\
         Alertmanager. Relative paths start at the file's folder. `$NAME` is replaced by the environment in `external_labels` only.\n",
    );
    for section in SECTIONS {
        let _ = write!(page, "\n### {}\n\n{}\n\n", section.title, section.about);
        page.push_str("| field | default | meaning |\n|---|---|---|\n");
        let known = known_fields(section.probe);
        let mut words: BTreeMap<&str, (&str, &str)> =
            section.fields.iter().map(|(name, default, text)| (*name, (*default, *text))).collect();
        for name in known.iter().filter(|name| !section.leaves_out(name)) {
            let (default, text) = words.remove(name.as_str()).unwrap_or_else(|| {
                panic!("{name} of {} has no words in tests/it/docs/fields.rs", section.title)
            });
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let _ = writeln!(page, "| `{name}` | {} | {} |", cell(&default), cell(text));
        }
        assert!(words.is_empty(), "{} has no such fields: {words:?}", section.title);
    }
    check("configuration.md", &page);
}

fn add_flags(page: &mut String, command: &clap::Command) {
    for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()) {
        let Some(name) = flag.get_long().filter(|name| !matches!(*name, "help" | "version")) else {
            continue;
        };
        let defaults = flag.get_default_values().iter().map(|value| value.to_string_lossy());
        let default = match flag.get_action() {
            clap::ArgAction::SetTrue => String::new(),
            _ => defaults.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", "),
        };
        let text = flag.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(page, "| `--{name}` | {} | {} |", cell(&default), cell(&text));
    }
}

fn add_command(page: &mut String, command: &clap::Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    if command.has_subcommands() {
        for inner in command.get_subcommands() {
            add_command(page, inner, &name);
        }
        return;
    }
    let mut usage = name;
    for argument in command.get_positionals() {
        let many = if argument.get_num_args().is_some_and(|count| 1 < count.max_values()) {
            "…"
        } else {
            ""
        };
        let _ = write!(usage, " {}{many}", argument.get_id().as_str().to_uppercase());
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n`{usage}`: {}\n", about.trim_end_matches('.'));
    let mut table = String::new();
    add_flags(&mut table, command);
    if !table.is_empty() {
        let _ = write!(page, "\n| flag | default | meaning |\n|---|---|---|\n{table}");
    }
}

/// The fields that a section may have: an unknown one is refused with all their names.
fn known_fields(probe: &str) -> Vec<String> {
    let text = probe.replace("HERE", "no_such_field: 1");
    let path = Path::new("/docs.yml");
    let refused = if probe.starts_with("groups") {
        let defaults = Config::parse(path, "", &OsDisk, &|_| None).unwrap();
        let defaults = defaults.rule_defaults(ParserOptions::ALL);
        parse_rules(path, &text, &defaults).err().map(|errors| errors[0].to_string())
    } else {
        Config::parse(path, &text, &OsDisk, &|_| None).err().map(|err| err.to_string())
    };
    let refused = refused.unwrap_or_else(|| panic!("{text} must be refused"));
    let (_, names) = refused
        .split_once("expected one of: ")
        .or_else(|| refused.split_once("expected "))
        .unwrap_or_else(|| panic!("{text}: {refused}"));
    names.split([',', ' ', '`']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[test]
fn docs_of_metrics_are_true() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("alertmanager.yml"),
        "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
    )
    .unwrap();
    let alertmanager = folder.path().join("alertmanager.yml");
    let argument = format!("--alertmanager.config.file={}", alertmanager.display());
    let server = Server::start(folder.path(), "global: {}\n", &[&argument]);
    // The server measures its own requests from the first on.
    let text = wait_for("metrics of requests", || {
        let text = get(server.port, "/metrics").body;
        text.contains("prometheus_http_requests_total{").then_some(text)
    });
    let mut families: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some(kind), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let entry = families.entry(name.to_owned()).or_default();
            match kind {
                "HELP" => rest.clone_into(&mut entry.1),
                _ => rest.clone_into(&mut entry.0),
            }
        }
    }
    let mut page = String::from(
        "# Metrics of the server\n\n\
         This page is made by `tests/it/docs.rs` from `/metrics` of a running server; do not edit it. Names are Prometheus' and\n\
         Alertmanager's where they have such a metric; our own begin with `narthex_`.\n\n\
         | name | type | meaning |\n|---|---|---|\n",
    );
    for (name, (kind, help)) in &families {
        let _ = writeln!(page, "| `{name}` | {kind} | {} |", cell(help));
    }
    assert!(families.len() > 50, "{text}");
    check("metrics.md", &page);
}
