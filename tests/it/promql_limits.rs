//! What one query may take: memory of whatever kind, time, and work of compiling.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use narthex::base::clock::Clock;
use narthex::cli::test::memory::Memory;
use narthex::promql::engine::{Query, QueryError};

fn load(lines: &[&str]) -> Memory {
    let mut memory = Memory::default();
    for line in lines {
        memory.load(15_000, line).unwrap();
    }
    memory
}

/// `before` so many times, `inner`, and as many times `after`.
fn nested(count: usize, before: &str, inner: &str, after: &str) -> String {
    format!("{}{inner}{}", before.repeat(count), after.repeat(count))
}

#[test]
fn all_columns_are_in_the_budget() {
    let db = load(&[
        "h_bucket{le=\"1\"} 0+1x400",
        "h_bucket{le=\"+Inf\"} 0+2x400",
        "a{x=\"1\"} 0+1x400",
        "a{x=\"2\"} 0+1x400",
    ]);
    let tight = db.engine_with(|options| options.max_bytes = 300_000);
    let roomy = db.engine_with(|options| options.max_bytes = 100 << 20);
    // A column of the range has 4001 values, that of the subqueries as many.
    let queries = [
        nested(40, "(time() + ", "time()", ")"),
        format!("sum_over_time(vector({})[4000s:1s] @ 4000)", nested(40, "(time()+", "1", ")")),
        nested(40, "absent(", "a", ")"),
        nested(20, "scalar(vector(1) + ", "time()", ")"),
        "histogram_quantiles(h_bucket, \"q\", time() % 40 / 100)".to_owned(),
    ];
    for query in &queries {
        let ask = Query::new(query);
        let refused = tight.range(&ask, 0, 4_000_000, 1000).unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("query would take more memory than it may"), "{query}: {text}");
        assert!(roomy.range(&ask, 0, 4_000_000, 1000).is_ok(), "{query}");
    }
}

/// Goes on by a millisecond whenever somebody looks.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn the_deadline_is_looked_at_while_a_series_is_evaluated() {
    let db = load(&["a 0+1x100", "h {{schema:0 count:1 sum:1 buckets:[1]}}x400"]);
    let looks = |query: &str, timeout: u64| {
        let clock = Arc::new(Ticking::default());
        let engine = db.engine_on(clock.clone(), |options| {
            options.timeout = Duration::from_millis(timeout);
        });
        let result = engine.range(&Query::new(query), 0, 6_000_000, 15_000);
        (clock.0.load(Ordering::Relaxed), result.map(drop))
    };
    let windows = [
        ("sum_over_time(vector(time())[{}:1s])", "4s", "4000s"),
        ("quantile_over_time(0.5, sin(vector(time()))[{}:2s])", "4s", "4000s"),
        ("rate(h[{}])", "15s", "6000s"),
    ];
    for (query, short, long) in windows {
        let (short, _) = looks(&query.replace("{}", short), 1_000_000);
        let (many, result) = looks(&query.replace("{}", long), 1_000_000);
        assert!(result.is_ok() && short + 5 <= many, "{query}: {short} {many}");
        let (_, result) = looks(&query.replace("{}", long), short + 3);
        assert!(matches!(result, Err(QueryError::Timeout(_))), "{query}: {result:?}");
    }
}

#[test]
fn the_work_of_compiling_is_bounded() {
    let db = load(&["a 1"]);
    let heavy: Vec<_> = (0..5).map(|number| format!("x!~\"\\\\pL{{200}}{number}\"")).collect();
    let replace = "label_replace(a, \"b\", \"$1\", \"x\", \"(\\\\pL{900})\")";
    let selector = format!("a{{{}}}", heavy.join(","));
    let sum = heavy.iter().map(|own| format!("a{{{own}}}")).collect::<Vec<_>>().join(" or ");
    for query in [selector.as_str(), sum.as_str(), replace] {
        let refused = db.engine(true).instant(&Query::new(query), 0).unwrap_err().to_string();
        let told = ["expression too large", "invalid regular expression in label_replace()"];
        assert!(told.iter().any(|text| refused.contains(text)), "{query}: {refused}");
    }
    let one = format!("a{{{}}}", heavy[0]);
    assert!(db.engine(true).instant(&Query::new(&one), 0).is_ok());
}
