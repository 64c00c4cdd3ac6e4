//! Tests of operations on histograms.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn spans(parts: &[(i32, u32)]) -> Vec<Span> {
    parts.iter().map(|(offset, length)| Span { offset: *offset, length: *length }).collect()
}

/// Exponential, with buckets from an index on and the sum of all counts as count.
fn exponential(schema: i32, first: i32, counts: &[f64]) -> Histogram {
    Histogram {
        schema,
        count: counts.iter().sum(),
        sum: 1.0,
        positive_spans: spans(&[(first, counts.len() as u32)]),
        positive_buckets: counts.to_vec(),
        ..Histogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[f64]) -> Histogram {
    Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_bounds: bounds.into(),
        ..exponential(0, 0, counts)
    }
}

fn borders(histogram: &Histogram) -> Vec<(f64, f64, f64)> {
    let buckets = histogram.buckets(true);
    buckets.iter().map(|bucket| (bucket.lower, bucket.upper, bucket.count)).collect()
}

#[test]
fn borders_of_buckets_are_powers_of_the_schema() {
    assert_eq!(borders(&exponential(0, 0, &[1.0, 2.0])), [(0.5, 1.0, 1.0), (1.0, 2.0, 2.0)]);
    assert_eq!(borders(&exponential(-2, 1, &[1.0])), [(1.0, 16.0, 1.0)]);
    let root = 2_f64.sqrt();
    assert_eq!(borders(&exponential(1, 1, &[1.0, 1.0])), [(1.0, root, 1.0), (root, 2.0, 1.0)]);
    let last = borders(&exponential(3, 1024 << 3, &[1.0, 1.0]));
    assert_eq!(last[0].1, f64::MAX, "the last bucket of numbers");
    assert_eq!(last[1], (f64::MAX, f64::INFINITY, 1.0), "the bucket of infinity");
    assert_eq!(
        borders(&custom(&[1.0, 5.0], &[1.0, 2.0, 3.0])),
        [(f64::NEG_INFINITY, 1.0, 1.0), (1.0, 5.0, 2.0), (5.0, f64::INFINITY, 3.0)]
    );
    let both = Histogram {
        zero_threshold: 0.6,
        zero_count: 4.0,
        negative_spans: spans(&[(0, 1), (1, 1)]),
        negative_buckets: vec![5.0, 6.0],
        ..exponential(0, 0, &[1.0])
    };
    let all = [(-4.0, -2.0, 6.0), (-1.0, -0.6, 5.0), (-0.6, 0.6, 4.0), (0.6, 1.0, 1.0)];
    assert_eq!(borders(&both), all, "clipped by the zero bucket");
}

#[test]
fn sums_are_taken_in_the_coarser_schema() {
    let (sum, merged) =
        exponential(1, 1, &[1.0, 2.0, 4.0]).add(&exponential(0, 2, &[8.0])).unwrap();
    assert_eq!(merged, Merged::default());
    assert_eq!((sum.schema, sum.count), (0, 15.0));
    assert_eq!(borders(&sum), [(1.0, 2.0, 3.0), (2.0, 4.0, 12.0)]);
    let (difference, _) = sum.subtract(&exponential(1, 3, &[4.0])).unwrap();
    assert_eq!(borders(&difference), [(1.0, 2.0, 3.0), (2.0, 4.0, 8.0)]);
    let (gap, _) = exponential(0, -3, &[1.0]).add(&exponential(0, 3, &[1.0])).unwrap();
    assert_eq!(gap.positive_spans, spans(&[(-3, 1), (5, 1)]));
}

#[test]
fn zero_buckets_widen_until_they_cut_no_populated_bucket() {
    let wide = Histogram { zero_threshold: 1.5, zero_count: 1.0, ..Histogram::default() };
    let (sum, _) = exponential(0, 0, &[2.0, 4.0, 8.0]).add(&wide).unwrap();
    assert_eq!((sum.zero_threshold, sum.zero_count), (2.0, 7.0));
    assert_eq!(borders(&sum), [(-2.0, 2.0, 7.0), (2.0, 4.0, 8.0)]);
    let (sum, _) = exponential(0, 0, &[2.0, 0.0, 8.0]).add(&wide).unwrap();
    assert_eq!((sum.zero_threshold, sum.zero_count), (1.5, 3.0), "an empty bucket may be cut");
}

#[test]
fn custom_bounds_are_reduced_to_common_ones() {
    let a = custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]);
    let b = custom(&[2.0, 4.0, 5.0], &[10.0, 20.0, 30.0, 40.0]);
    let (sum, merged) = a.add(&b).unwrap();
    assert!(merged.bounds_differ);
    assert_eq!(*sum.custom_bounds, [2.0, 5.0]);
    assert_eq!(sum.positive_buckets, [13.0, 53.0, 44.0]);
    assert_eq!(a.add(&exponential(0, 0, &[1.0])).unwrap_err(), Incompatible);
}

#[test]
fn reset_hints_merge_and_may_collide() {
    use ResetHint::{CounterReset as Reset, Gauge, NotCounterReset as NoReset, Unknown};
    for (a, b, merged, collide) in [
        (Reset, Reset, Reset, false),
        (Reset, NoReset, Unknown, true),
        (NoReset, Unknown, Unknown, false),
        (Gauge, Reset, Gauge, false),
        (Unknown, Gauge, Gauge, false),
    ] {
        for (a, b) in [(a, b), (b, a)] {
            let of = |reset_hint| Histogram { reset_hint, ..Histogram::default() };
            let (sum, found) = of(a).add(&of(b)).unwrap();
            assert_eq!((sum.reset_hint, found.hints_collide), (merged, collide), "{a:?} {b:?}");
        }
    }
}

#[test]
fn resets_are_seen_in_hints_counts_and_layout() {
    let before = exponential(1, 1, &[1.0, 2.0]);
    let is_reset = |after: &Histogram| after.is_reset_since(&before);
    assert!(!is_reset(&before));
    assert!(!is_reset(&exponential(1, 0, &[1.0, 1.0, 2.0])), "a new bucket");
    assert!(is_reset(&exponential(1, 1, &[5.0, 1.0])), "a bucket that fell");
    assert!(is_reset(&exponential(1, 1, &[9.0])), "a bucket that is gone");
    assert!(is_reset(&exponential(2, 1, &[1.0, 2.0, 3.0])), "finer buckets");
    assert!(!is_reset(&exponential(0, 1, &[3.0])), "coarser buckets");
    assert!(is_reset(&exponential(0, 1, &[2.0, 9.0])), "coarser buckets with less in one");
    assert!(is_reset(&custom(&[1.0], &[9.0, 9.0])), "other kinds of buckets");
    let hinted = |reset_hint, one| Histogram { reset_hint, ..one };
    assert!(is_reset(&hinted(ResetHint::CounterReset, before.clone())));
    assert!(!is_reset(&hinted(ResetHint::NotCounterReset, exponential(1, 1, &[0.0]))));
    let widened = |zero_threshold, zero_count| Histogram {
        zero_threshold,
        zero_count,
        count: 9.0,
        ..exponential(1, 3, &[1.0])
    };
    assert!(!is_reset(&widened(2.0, 3.0)), "all buckets have moved into the zero bucket");
    assert!(is_reset(&widened(2.0, 2.0)), "not all of them");
    assert!(is_reset(&widened(1.9, 3.0)), "a zero bucket that ends within a bucket");
    let a = custom(&[1.0, 2.0], &[1.0, 1.0, 1.0]);
    assert!(!custom(&[2.0, 3.0], &[2.0, 0.0, 1.0]).is_reset_since(&a));
    assert!(custom(&[2.0, 3.0], &[1.0, 5.0, 1.0]).is_reset_since(&a));
}

#[test]
fn equality_is_of_buckets_not_of_spans() {
    let mut a = exponential(0, 0, &[1.0, 2.0]);
    let b = a.clone();
    a.positive_spans = spans(&[(0, 1), (0, 0), (0, 1)]);
    assert!(a.has_same_values(&b));
    assert!(!exponential(0, 0, &[1.0, 2.0, 0.0]).has_same_values(&b));
    assert!(a.clone().compacted() == b);
    assert!(!a.scaled(2.0).has_same_values(&b));
}

#[test]
fn division_by_zero_leaves_no_bucket() {
    let divided = exponential(0, 0, &[1.0]).divided(0.0);
    assert_eq!((divided.count, divided.positive_buckets.len()), (f64::INFINITY, 0));
    assert_eq!(exponential(0, 0, &[1.0]).scaled(-1.0).reset_hint, ResetHint::Gauge);
}

#[test]
fn trimming_divides_the_bucket_that_is_cut() {
    let linear = custom(&[0.0, 10.0], &[0.0, 4.0, 2.0]);
    let below = linear.trimmed_above(5.0);
    assert_eq!((below.count, below.sum, borders(&below).len()), (2.0, 5.0, 1));
    let above = linear.trimmed_below(5.0);
    assert_eq!((above.count, above.sum), (4.0, 2.0 * 7.5 + 2.0 * 10.0));
    let all = linear.trimmed_below(-1.0);
    assert_eq!(all, linear, "nothing is cut, the sum stays");
    let half = exponential(0, 1, &[4.0]).trimmed_above(2_f64.sqrt());
    assert!((half.count - 2.0).abs() < 1e-9, "on a line of logarithms: {}", half.count);
}

#[test]
fn a_mean_survives_a_sum_that_would_overflow() {
    let huge = exponential(0, 0, &[f64::MAX]);
    let mut mean = HistogramMean::of(&huge);
    mean.add(&huge).unwrap();
    mean.add(&huge).unwrap();
    let mean = mean.finish();
    assert!((mean.count / f64::MAX - 1.0).abs() < 1e-9, "{}", mean.count);
    let mut sum = HistogramSum::of(&exponential(0, 0, &[1e100]));
    sum.add(&exponential(0, 0, &[1.0])).unwrap();
    sum.add(&exponential(0, 0, &[-1e100])).unwrap();
    assert_eq!(sum.total().positive_buckets, [1.0], "what rounding loses is kept");
}

prop_compose! {
    /// Whole counts, so that sums are exact.
    fn side()(parts in prop::collection::vec((0_i32..4, prop::collection::vec(0_u8..5, 0..4)), 0..4),
              first in -20_i32..20) -> (Vec<Span>, Vec<f64>) {
        let (mut spans, mut counts) = (Vec::new(), Vec::new());
        for (at, (gap, part)) in parts.into_iter().enumerate() {
            let offset = if at == 0 { first } else { gap };
            spans.push(Span { offset, length: part.len() as u32 });
            counts.extend(part.into_iter().map(f64::from));
        }
        (spans, counts)
    }
}

prop_compose! {
    fn any_exponential()(schema in -4_i32..=8, positive in side(), negative in side(),
                         zero in 0_u8..5, width in 0_u8..4) -> Histogram {
        let zero_count = f64::from(zero);
        let count = positive.1.iter().chain(&negative.1).sum::<f64>() + zero_count;
        Histogram {
            schema,
            zero_threshold: f64::from(width) * 0.4,
            zero_count,
            count,
            sum: count * 2.0,
            positive_spans: positive.0,
            positive_buckets: positive.1,
            negative_spans: negative.0,
            negative_buckets: negative.1,
            ..Histogram::default()
        }
    }
}

prop_compose! {
    fn any_custom()(steps in prop::collection::vec((1_u8..4, 0_u8..5), 0..6), last in 0_u8..5)
        -> Histogram {
        let mut bound = 0.0;
        let (mut bounds, mut counts) = (Vec::new(), Vec::new());
        for (step, count) in steps {
            bound += f64::from(step);
            bounds.push(bound);
            counts.push(f64::from(count));
        }
        counts.push(f64::from(last));
        custom(&bounds, &counts)
    }
}

fn any_pair() -> impl Strategy<Value = (Histogram, Histogram)> {
    prop_oneof![(any_exponential(), any_exponential()), (any_custom(), any_custom())]
}

fn in_buckets(histogram: &Histogram) -> f64 {
    histogram.buckets(true).iter().map(|bucket| bucket.count).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn additions_lose_nothing_and_commute((a, b) in any_pair()) {
        let (sum, _) = a.add(&b).unwrap();
        prop_assert_eq!(sum.count, a.count + b.count);
        prop_assert_eq!(in_buckets(&sum), in_buckets(&a) + in_buckets(&b));
        prop_assert!(b.add(&a).unwrap().0.has_same_values(&sum));
        let mut total = HistogramSum::of(&a);
        total.add(&b).unwrap();
        prop_assert!(total.total().has_same_values(&sum));
    }

    #[test]
    fn what_was_added_can_be_taken_away((a, b) in any_pair()) {
        let (sum, _) = a.add(&b).unwrap();
        let (back, _) = sum.subtract(&b).unwrap();
        prop_assert_eq!(back.count, a.count);
        prop_assert_eq!(in_buckets(&back), in_buckets(&a));
        prop_assert!(!sum.is_reset_since(&a), "a counter that went up was not reset");
    }

    #[test]
    fn compaction_and_reduction_keep_counts(a in any_exponential(), schema in -4_i32..=8) {
        let compact = a.clone().compacted();
        prop_assert!(compact.positive_buckets.iter().all(|count| *count != 0.0));
        prop_assert_eq!(in_buckets(&compact), in_buckets(&a));
        let reduced = a.reduced(schema);
        prop_assert_eq!(reduced.schema, a.schema.min(schema));
        prop_assert_eq!(in_buckets(&reduced), in_buckets(&a));
        prop_assert!(!reduced.is_reset_since(&a));
    }

    #[test]
    fn two_trims_share_the_observations(a in any_exponential(), bound in -50.0..50.0_f64) {
        let (below, above) = (a.trimmed_above(bound), a.trimmed_below(bound));
        let both = in_buckets(&below) + in_buckets(&above);
        prop_assert!((both - in_buckets(&a)).abs() < 1e-6, "{} and {}", both, in_buckets(&a));
    }

    #[test]
    fn spans_that_make_no_sense_do_no_harm(
        parts in prop::collection::vec((any::<i32>(), any::<u32>()), 0..4),
        counts in prop::collection::vec(-2.0..2.0_f64, 0..6),
        schema in any::<i32>(),
    ) {
        let odd = Histogram { schema, positive_spans: spans(&parts), positive_buckets: counts.clone(),
            custom_bounds: Arc::from([1.0]), ..Histogram::default() };
        prop_assert!(odd.buckets(true).len() <= counts.len());
        let _ = (odd.add(&odd), odd.is_reset_since(&odd), odd.trimmed_above(1.0), odd.reduced(0));
    }
}
