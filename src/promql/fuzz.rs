//! Queries that anybody may send.

use crate::base::fuzz::run;
use crate::promql::parser::{ParserOptions, STACK_BYTES, parse};

/// What is taken prints as something that is taken, and prints the same again.
#[test]
fn queries() {
    let check = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(expr) = parse(text, &ParserOptions::ALL) else { return false };
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
