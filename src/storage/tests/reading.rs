//! Queries between appends: what is kept for later queries never shows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::sample::stale_nan;

/// What is done to a store, one after the other.
#[derive(Clone, Debug)]
enum Step {
    /// A scrape of series `first..first + count` at the next moment; the numbers that `mask` takes
    /// (modulo 8) are left out, others get a value that depends on `value`.
    Scrape { first: usize, count: usize, mask: u8, value: u8 },
    /// One sample, this many milliseconds before the newest moment.
    Late { series: usize, ago_ms: i64 },
    /// A query from `from_ms` to `to_ms` before the newest moment, for numbers that match.
    Query { pattern: &'static str, from_ms: i64, to_ms: i64 },
    /// The open log file is sealed.
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    let patterns = prop::sample::select(vec![".*", ".*[02468]", "1.*|7", "[0-9]", "33", "x"]);
    prop_oneof![
        6 => (0_usize..3, 1_usize..90, prop::num::u8::ANY, prop::num::u8::ANY).prop_map(
            |(first, count, mask, value)| {
                let mask = if mask % 3 == 0 { mask } else { 0 };
                Step::Scrape { first: first * 40, count, mask, value }
            }
        ),
        1 => (0_usize..90, 1_i64..60_000)
            .prop_map(|(series, ago_ms)| Step::Late { series, ago_ms }),
        5 => (patterns, 0_i64..200_000, 0_i64..100_000).prop_map(|(pattern, span_ms, to_ms)| {
            Step::Query { pattern, from_ms: to_ms + span_ms, to_ms }
        }),
        1 => Just(Step::Seal),
    ]
}

/// Series and their samples; of one moment the first value counts.
type Model = BTreeMap<Labels, BTreeMap<i64, u64>>;

fn value(series: usize, moment: usize, value: u8) -> f64 {
    match value % 8 {
        0 => stale_nan(),
        1 => f64::NAN,
        2 => f64::INFINITY,
        3 | 4 => series as f64,
        _ => (moment * (series % 5)) as f64 + f64::from(value),
    }
}

fn expected(model: &Model, matcher: &Matcher, range: TimeRange) -> Vec<(Labels, Vec<(i64, u64)>)> {
    let wanted =
        model.iter().filter(|(labels, _)| matcher.matches(labels.get("i").unwrap_or_default()));
    let samples = |samples: &BTreeMap<i64, u64>| {
        let inside = samples.iter().filter(|(ms, _)| range.contains(**ms));
        inside.map(|(ms, bits)| (*ms, *bits)).collect::<Vec<_>>()
    };
    let all = wanted.map(|(labels, own)| (labels.clone(), samples(own)));
    all.filter(|(_, samples)| !samples.is_empty()).collect()
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let storage = Machine::new(1).open();
    let mut model = Model::new();
    let mut now_ms = NOW_MS - 4_000_000;
    for (moment, step) in steps.iter().enumerate() {
        let mut samples = Vec::new();
        match step {
            Step::Scrape { first, count, mask, value: own } => {
                now_ms += 5_000;
                for series in *first..first + count {
                    if mask >> (series % 8) & 1 == 0 {
                        samples.push((labels("m", series), now_ms, value(series, moment, *own)));
                    }
                }
            }
            Step::Late { series, ago_ms } => {
                samples.push((labels("m", *series), now_ms - ago_ms, moment as f64));
            }
            Step::Seal => storage.seal_now().unwrap(),
            Step::Query { pattern, from_ms, to_ms } => {
                let range = TimeRange { min_ms: now_ms - from_ms, max_ms: now_ms - to_ms };
                let matcher = Matcher::new(crate::model::matcher::MatchOp::Regex, "i", pattern);
                let matcher = matcher.unwrap();
                let hints = SelectHints::default();
                let found = storage.select(std::slice::from_ref(&matcher), range, &hints).unwrap();
                let mut found = read(&found);
                found.retain(|(_, samples)| !samples.is_empty());
                prop_assert_eq!(found, expected(&model, &matcher, range), "step {}", moment);
            }
        }
        append(&storage, &samples);
        for (labels, ms, value) in samples {
            model.entry(labels).or_default().entry(ms).or_insert(value.to_bits());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn queries_between_appends_find_what_was_appended(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(&steps)?;
    }
}

#[test]
fn a_query_keeps_to_what_was_there_when_it_began() {
    let storage = Machine::new(1).open();
    let scrape = |step: i64, count: usize| {
        let at = NOW_MS + step * 1000;
        let samples: Vec<_> = (0..count).map(|i| (labels("m", i), at, step as f64)).collect();
        append(&storage, &samples);
    };
    scrape(0, 600);
    scrape(1, 600);
    let before = all(&storage);
    scrape(2, 700);
    let after = all(&storage);
    let lengths = |selection: &Selection| {
        let lengths = read(selection).into_iter().map(|(_, samples)| samples.len());
        lengths.collect::<Vec<_>>()
    };
    // The longer columns are read first, so that the older query finds them.
    let [newer, older] = [lengths(&after), lengths(&before)];
    assert_eq!((newer.len(), older.len()), (700, 600));
    assert_eq!(newer.iter().sum::<usize>(), 600 * 3 + 100);
    assert!(older.iter().all(|length| *length == 2), "{older:?}");
}

#[test]
fn series_that_come_and_go_share_their_timestamps() {
    let storage = Machine::new(1).open();
    let lives = [0..200, 0..90, 0..90, 70..200, 70..200, 70..150, 70..150, 180..200];
    for row in 0..200 {
        let alive = (0..).zip(&lives).filter(|(_, life)| life.contains(&row));
        let at = NOW_MS + row * 1000;
        let samples: Vec<_> = alive.map(|(i, _)| (labels("m", i), at, row as f64)).collect();
        append(&storage, &samples);
    }
    for seen in [0..200, 80..81, 63..129, 75..160] {
        let range =
            TimeRange { min_ms: NOW_MS + seen.start * 1000, max_ms: NOW_MS + seen.end * 1000 - 1 };
        let found = storage.select(&[], range, &SelectHints::default()).unwrap();
        let block = found.block(0, found.len()).unwrap();
        let rows: Vec<Vec<i64>> = block
            .series
            .iter()
            .map(|own| own.runs.iter().flat_map(|run| run.timestamps_ms.iter().copied()).collect())
            .collect();
        for (i, life) in lives.iter().enumerate() {
            let (start, end) = (life.start.max(seen.start), life.end.min(seen.end));
            let own = rows.get(i).cloned().unwrap_or_default();
            assert_eq!(own, (start..end).map(|row| NOW_MS + row * 1000).collect::<Vec<_>>());
        }
        for pair in [[1, 2], [3, 4], [5, 6]] {
            let [one, other] = pair.map(|i| &block.series[i].runs);
            if let ([one], [other]) = (&one[..], &other[..]) {
                assert!(Arc::ptr_eq(&one.timestamps_ms, &other.timestamps_ms));
            }
        }
    }
}

#[test]
fn only_series_with_a_chunk_in_the_range_are_listed() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let minute = 60_000;
    for row in 0..30 {
        let mut samples = vec![(labels("m", 1), NOW_MS + row * minute, 1.0)];
        if row < 10 {
            samples.push((labels("m", 2), NOW_MS + row * minute, 2.0));
        }
        if 20 <= row {
            samples.push((labels("m", 3), NOW_MS + row * minute, 3.0));
        }
        machine.clock.advance_ms(minute);
        append(&storage, &samples);
    }
    storage.seal_now().unwrap();
    let listed = |first: i64, last: i64, series_count_max: usize| {
        let (min_ms, max_ms) = (NOW_MS + first * minute, NOW_MS + last * minute);
        let hints = SelectHints { series_count_max, labels_only: true };
        let found = storage.select(&[], TimeRange { min_ms, max_ms }, &hints).unwrap();
        let number = |at| found.labels(at).unwrap().get("i").unwrap_or_default().to_owned();
        (0..found.len() as u32).map(number).collect::<Vec<_>>().join(" ")
    };
    for _ in 0..3 {
        // Kept answers are those of all ranges that need the same files.
        assert_eq!(listed(0, 29, 0), "1 2 3");
        assert_eq!(listed(0, 9, 0), "1 2");
        assert_eq!(listed(10, 19, 0), "1");
        assert_eq!(listed(9, 20, 0), "1 2 3");
        assert_eq!(listed(20, 40, 0), "1 3");
        assert_eq!(listed(20, 40, 1), "1");
        assert_eq!(listed(30, 40, 0), "");
    }
}
