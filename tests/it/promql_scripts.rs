//! Runs promqltest scripts against the evaluator in process, on a store in memory.
//!
//! The scripts are not part of the repository; each file has a floor that only rises.

use narthex::cli::test::script::run;

/// Evals that pass, by file.
const FLOORS: &[(&str, usize)] = &[
    ("aggregators.test", 96),
    ("at_modifier.test", 47),
    ("collision.test", 1),
    ("duration_expression.test", 35),
    ("extended_vectors.test", 100),
    ("fill-modifier.test", 28),
    ("functions.test", 259),
    ("histograms.test", 111),
    ("info.test", 32),
    ("limit.test", 22),
    ("literals.test", 15),
    ("name_label_dropping.test", 18),
    ("native_histograms.test", 313),
    ("operators.test", 128),
    ("range_queries.test", 11),
    ("selectors.test", 19),
    ("staleness.test", 10),
    ("start_timestamps.test", 16),
    ("subquery.test", 20),
    ("trig_functions.test", 11),
    ("type_and_unit.test", 35),
];

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads files that are not the server's")]
fn scripts_pass_as_often_as_before() {
    let Some(folder) = crate::shared::folder("conformance/promql") else { return };
    let entries = std::fs::read_dir(&folder).expect("the folder can be read");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut fallen = Vec::new();
    let verbose = std::env::var("PROMQL_SCRIPT").unwrap_or_default();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "test")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a readable script");
        let tally = run(&text).unwrap_or_else(|err| panic!("{name}: {err}"));
        println!("{name}: {} passed, {} failed", tally.passed, tally.failures.len());
        if !verbose.is_empty() && (verbose == "." || name.starts_with(&verbose)) {
            tally.failures.iter().for_each(|failure| println!("  {failure}"));
        }
        let floor = FLOORS.iter().find(|(own, _)| *own == name).map_or(0, |(_, floor)| *floor);
        if tally.passed < floor {
            fallen.push(format!("{name}: {} passed, {floor} before", tally.passed));
        }
    }
    assert!(fallen.is_empty(), "{}", fallen.join("\n"));
}

/// Cases that Prometheus' scripts lack.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads files that are not the server's")]
fn own_scripts_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promql");
    let mut passed = 0;
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let tally = run(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let failures = tally.failures.join("\n");
        assert!(failures.is_empty(), "{}:\n{failures}", path.display());
        passed += tally.passed;
    }
    assert!(0 < passed, "no eval was found");
}
