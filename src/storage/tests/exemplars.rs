//! Exemplars: judged, bounded, and there again after restarts.

use super::*;
use crate::model::exemplar::Exemplar;
use crate::model::matcher::Matcher;

fn exemplar(offset_ms: i64, trace: &str, value: f64) -> Exemplar {
    let labels = Labels::from_pairs([("trace_id", trace)]);
    Exemplar { labels, value, timestamp_ms: NOW_MS + offset_ms }
}

fn add(storage: &Storage, series: &Labels, all: &[Exemplar]) -> append::Appended {
    let mut batch = storage.appender(OnReject::Skip);
    for own in all {
        batch.exemplar(SeriesKey::Labels(series), own);
    }
    batch.commit().unwrap().0
}

/// Everything in the range, as `labels: time=trace/value …`.
fn shown(storage: &Storage, set: Vec<Matcher>, range: TimeRange) -> String {
    let mut out = String::new();
    for (labels, exemplars) in storage.exemplars(&[set], range) {
        let text = |own: &Exemplar| {
            let trace = own.labels.get("trace_id").unwrap_or("");
            format!("{}={trace}/{}", own.timestamp_ms - NOW_MS, own.value)
        };
        let exemplars: Vec<_> = exemplars.iter().map(text).collect();
        out += &format!("{labels}: {}\n", exemplars.join(" "));
    }
    out
}

fn every(storage: &Storage) -> String {
    shown(storage, Vec::new(), TimeRange::ALL)
}

#[test]
fn exemplars_ascend_within_a_series_and_are_selected_by_labels_and_time() {
    let machine = Machine::new(1);
    let storage = machine.open();
    let (one, two) = (labels("m", 1), labels("m", 2));
    append(&storage, &[(one.clone(), NOW_MS, 1.0), (two.clone(), NOW_MS, 1.0)]);
    let first = [exemplar(0, "a", 1.0), exemplar(0, "b", 1.0), exemplar(0, "b", 2.0)];
    assert_eq!(add(&storage, &one, &first).exemplar_count, 3);
    // The newest again, older ones, and one that is too long or too far in the future.
    let again = [exemplar(0, "b", 2.0), exemplar(0, "a", 2.0), exemplar(-1, "z", 9.0)];
    let appended = add(&storage, &one, &again);
    assert_eq!((appended.exemplar_count, appended.exemplar_out_of_order_count), (1, 2));
    let wrong = [exemplar(5, &"x".repeat(121), 1.0), exemplar(3_600_000, "a", 1.0)];
    assert_eq!(add(&storage, &two, &wrong).exemplar_count, 0);
    assert_eq!(add(&storage, &two, &[exemplar(7, &"x".repeat(120), 1.0)]).exemplar_count, 1);
    add(&storage, &two, &[exemplar(9, "c", 3.0)]);
    let range = |min, max| TimeRange { min_ms: NOW_MS + min, max_ms: NOW_MS + max };
    let found = |number: &str, min, max| {
        shown(&storage, vec![Matcher::equal("i", number)], range(min, max))
    };
    assert_eq!(found("1", 0, 9), "{__name__=\"m\", i=\"1\"}: 0=a/1 0=b/1 0=b/2\n");
    assert_eq!(found("2", 8, 9), "{__name__=\"m\", i=\"2\"}: 9=c/3\n");
    assert_eq!(found("1", 1, 9), "");
    assert!(storage.exemplars(&[], TimeRange::ALL).is_empty());
}

#[test]
fn the_newest_ones_survive_restarts_and_sealing() {
    let machine = Machine::new(1);
    let storage = machine.open();
    storage.set_exemplars_max(5);
    for number in 0..4 {
        let all = [exemplar(number, "t", 0.5), exemplar(number + 10, "u", -0.0)];
        append(&storage, &[(labels("m", number as usize), NOW_MS, 1.0)]);
        add(&storage, &labels("m", number as usize), &all);
    }
    let expected = "{__name__=\"m\", i=\"1\"}: 11=u/-0\n\
                    {__name__=\"m\", i=\"2\"}: 2=t/0.5 12=u/-0\n\
                    {__name__=\"m\", i=\"3\"}: 3=t/0.5 13=u/-0\n";
    assert_eq!(every(&storage), expected);
    let restarted = |storage: Arc<Storage>| {
        drop(storage);
        let storage = machine.open();
        storage.set_exemplars_max(5);
        storage
    };
    let storage = restarted(storage);
    assert_eq!(every(&storage), expected, "from the log");
    storage.seal_now().unwrap();
    add(&storage, &labels("m", 3), &[exemplar(14, "v", 1.0)]);
    let storage = restarted(storage);
    let moved = expected.replace("{__name__=\"m\", i=\"1\"}: 11=u/-0\n", "");
    let moved = moved.replace("13=u/-0", "13=u/-0 14=v/1");
    assert_eq!(every(&storage), moved, "from checkpoint and log");
    // What is known is not taken again.
    let again = add(&storage, &labels("m", 3), &[exemplar(13, "u", -0.0)]);
    assert_eq!((again.exemplar_count, again.exemplar_out_of_order_count), (0, 1));
    storage.set_exemplars_max(0);
    assert_eq!(every(&storage), "");
    assert_eq!(add(&storage, &labels("m", 3), &[exemplar(20, "w", 1.0)]).exemplar_count, 0);
}
