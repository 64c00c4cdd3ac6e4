//! Every expression that Prometheus is tested with parses, and prints as something that parses to
//! the same again. The scripts are not part of this repository; without them the test says so.

use narthex::promql::parser::{ParserOptions, parse};

/// The expressions of a script that must evaluate, with their lines.
fn expressions(script: &str) -> Vec<(usize, &str)> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    for (index, line) in script.lines().enumerate() {
        let words = line.trim();
        if words.starts_with("expect fail") {
            found.pop();
        } else if let Some(command) = words.strip_prefix("eval ") {
            let command = command.trim_start();
            let at = command.find(if command.starts_with("range") { "step " } else { "at " });
            let rest = at.and_then(|at| command.get(at..)).unwrap_or_default();
            let expression = rest.splitn(3, ' ').nth(2).unwrap_or_default();
            found.push((index + 1, expression.trim()));
        }
    }
    found
}

#[test]
#[expect(clippy::disallowed_methods, reason = "reads test scripts")]
fn expressions_of_prometheus_parse_and_print() {
    let Some(folder) = crate::shared::folder("conformance/promql") else { return };
    let (mut count, mut refused) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        for (line, expression) in expressions(&script) {
            count += 1;
            let place = format!("{}:{line}: {expression}", path.display());
            let printed = match parse(expression, &ParserOptions::ALL) {
                Ok(expr) => expr.to_string(),
                Err(err) => {
                    refused.push(format!("{place}\n    {err}"));
                    continue;
                }
            };
            match parse(&printed, &ParserOptions::ALL).map(|expr| expr.to_string()) {
                Ok(again) if again == printed => {}
                other => refused.push(format!("{place}\n    prints as {printed}\n    {other:?}")),
            }
        }
    }
    assert!(refused.is_empty(), "{} of {count}:\n{}", refused.len(), refused.join("\n"));
    assert!(1_000 < count, "found only {count} expressions");
}
