//! Queries that anybody may send.

use crate::base::fuzz::run;
use crate::promql::lexer::steps;
use crate::promql::parser::{ParserOptions, STACK_BYTES, parse};

/// How often a byte or a token is looked at, at most: each by each level of precedence.
const STEPS_PER_BYTE: usize = 64;

/// Parsing takes linear time, counted in steps. What is taken prints as something that is taken, and prints the same again.
#[test]
fn queries() {
    let check = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let (parsed, steps) = steps::of(|| parse(text, &ParserOptions::ALL));
        assert!(steps <= STEPS_PER_BYTE * (text.len() + 1), "{text:?} takes {steps} steps");
        let Ok(expr) = parsed else { return false };
        let printed = expr.to_string();
        let again = parse(&printed, &ParserOptions::ALL)
            .unwrap_or_else(|err| panic!("{text:?} prints as {printed:?}: {err:?}"));
        assert_eq!(again.to_string(), printed, "{text:?}");
        true
    };
    let threads = std::thread::Builder::new().stack_size(STACK_BYTES);
    let thread = threads.spawn(move || run("promql", 6_000, Vec::new(), check)).unwrap();
    thread.join().unwrap();
}
