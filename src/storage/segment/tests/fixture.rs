//! A committed segment of each version, which must open for ever and give back what is computed
//! here. `UPDATE_FIXTURES=1 cargo test fixture` writes the file anew, which only a new version of
//! the format is a reason for.

use super::*;
use crate::base::disk::OsDisk;
use crate::model::histogram::{Histogram, Span};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/segment-v1");

const ROWS: u64 = 300;

/// The same numbers for ever.
fn noise(row: u64) -> u64 {
    (row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17
}

/// One column for each codec, and what else chunks may be.
fn batches() -> Vec<Batch> {
    let columns: [(&str, fn(u64) -> f64); 9] = [
        ("bits", |row| f64::from_bits(noise(row) << 40 | noise(row + 7))),
        ("constant", |_| -0.0),
        ("sparse", |row| f64::from(u8::from(row % 90 < 30))),
        ("often_the_same", |row| (noise(row / 4) as f64).sqrt()),
        ("counter", |row| (row * 1000 + noise(row) % 256) as f64),
        ("hundredths", |row| (row * 70 + noise(row) % 3) as f64 / 100.0),
        ("bursts", |row| (noise(row) >> (noise(row + 1) % 47 + 1)) as f64),
        ("precise", |row| 1e4 + (row * row) as f64 / 3.0),
        ("ends", |row| if row + 1 < ROWS { 5.0 } else { f64::from_bits(0x7ff0_0000_0000_0002) }),
    ];
    let mut batches = Vec::new();
    for (at, (name, value)) in columns.into_iter().enumerate() {
        for host in 0..3 {
            let labels = Labels::from_pairs([
                ("__name__", name),
                ("host", &*format!("host-{host}")),
                (if at % 2 == 0 { "job" } else { "zone" }, "ä"),
            ]);
            let step_ms = |row: u64| row as i64 * 15_000 + (at as i64 % 3) * (row % 5) as i64;
            batches.push(Batch {
                labels,
                timestamps_ms: (0..ROWS).map(|row| 1_700_000_000_000 + step_ms(row)).collect(),
                present: (0..ROWS).map(|row| host != 1 || 9 < row && row % 50 != 20).collect(),
                values: (0..ROWS).map(|row| value(row + host * 1000)).collect(),
            });
        }
    }
    batches
}

fn histograms() -> Vec<Arc<Histogram>> {
    let histogram = |row: u64| {
        let positive_buckets: Vec<f64> =
            (0..4).map(|at| (row * at + noise(row) % 9) as f64).collect();
        Arc::new(Histogram {
            schema: 3,
            zero_threshold: 1e-128,
            zero_count: row as f64,
            count: positive_buckets.iter().sum::<f64>() + row as f64,
            sum: row as f64 * 1.25,
            positive_spans: vec![
                Span { offset: -2, length: 1 },
                Span { offset: if row < 20 { 1 } else { 2 }, length: 3 },
            ],
            positive_buckets,
            ..Histogram::default()
        })
    };
    (0..40).map(histogram).collect()
}

fn histogram_labels() -> Labels {
    Labels::from_pairs([("__name__", "latency"), ("host", "host-0")])
}

fn write_fixture(disk: &dyn Disk, path: &Path) {
    let mut writer = SegmentWriter::create(disk, path, Density::Dense).unwrap();
    for batch in batches() {
        write_batch(&mut writer, &batch).unwrap();
    }
    let labels = histogram_labels();
    let identity = SeriesIdentity { fingerprint: fingerprint(&labels), labels: &labels };
    let values = histograms();
    let times: Vec<i64> = (0..values.len() as i64).map(|row| 1_700_000_000_000 + row).collect();
    let timestamps = writer.begin_timestamps(&times).unwrap();
    writer.histogram_chunk(identity, timestamps, Rows::All, &values).unwrap();
    writer.finish(SequenceRange { first: 3, last: 9 }).unwrap();
}

fn check_fixture(segment: &Segment) {
    let find = |labels: &Labels| {
        let matchers: Vec<_> = labels
            .iter()
            .map(|(name, value)| Matcher::new(MatchOp::Equal, name, value).unwrap())
            .collect();
        let found: Vec<u32> = segment.select(&matchers).unwrap().iter().collect();
        assert_eq!(found.len(), 1, "{labels}");
        assert_eq!(&segment.labels(found[0]).unwrap(), labels);
        assert_eq!(segment.fingerprint(found[0]).unwrap(), fingerprint(labels));
        segment.chunks(found[0], TimeRange::ALL).unwrap()
    };
    let batches = batches();
    for batch in &batches {
        let chunks = find(&batch.labels);
        assert_eq!(chunks.len(), 1);
        assert_eq!(read_chunk(segment, &chunks[0]).unwrap(), batch.samples(), "{}", batch.labels);
    }
    let chunks = find(&histogram_labels());
    let found = segment.decode_histograms(&chunks[0]).unwrap();
    assert!(found.iter().zip(histograms()).all(|(own, other)| own.has_same_values(&other)));
    let info = segment.info();
    assert_eq!((info.series_count as usize, info.chunk_count), (batches.len() + 1, 28));
    assert_eq!(info.sequences, SequenceRange { first: 3, last: 9 });
    let samples: usize = batches.iter().map(|own| own.samples().len()).sum();
    assert_eq!(info.sample_count as usize, samples + found.len());
    let names = ["__name__", "host", "job", "zone"];
    assert_eq!(segment.label_names(None).unwrap(), names);
}

#[test]
fn the_fixture_opens() {
    let path = Path::new(FOLDER).join("segment");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        OsDisk.create_dir_all(Path::new(FOLDER)).unwrap();
        write_fixture(&OsDisk, &path);
    }
    check_fixture(&Segment::open(&OsDisk, &path).unwrap());
}

#[test]
fn what_is_written_today_reads_as_the_fixture_does() {
    let disk = disk();
    write_fixture(&disk, Path::new(PATH));
    check_fixture(&Segment::open(&disk, Path::new(PATH)).unwrap());
}

/// Series, timestamps, start timestamps.
fn with_starts() -> Vec<(Labels, Vec<i64>, Vec<i64>)> {
    let starts: [(&str, fn(i64) -> i64); 4] = [
        ("always_the_same", |_| 1_699_999_990_000),
        ("restarts", |row| 1_700_000_000_000 + row / 30 * 30_000 - 7),
        ("sometimes_unknown", |row| if row % 5 < 2 { 0 } else { 1_699_999_999_999 }),
        ("deltas", |row| 1_700_000_000_000 + (row - 1) * 1_000),
    ];
    let times: Vec<i64> = (0..100).map(|row| 1_700_000_000_000 + row * 1_000).collect();
    let one = |(name, start): (&str, fn(i64) -> i64)| {
        let labels = Labels::from_pairs([("__name__", name)]);
        (labels, times.clone(), (0..100).map(start).collect())
    };
    starts.into_iter().map(one).collect()
}

/// Floats and then histograms of each series.
fn write_starts(disk: &dyn Disk, path: &Path) {
    let mut writer = SegmentWriter::create(disk, path, Density::Fast).unwrap();
    let histograms = histograms();
    for (labels, times, starts) in with_starts() {
        let identity = SeriesIdentity { fingerprint: fingerprint(&labels), labels: &labels };
        let timestamps = writer.begin_timestamps(&times[..60]).unwrap();
        let values: Vec<f64> = (0..60).map(f64::from).collect();
        writer.chunk(identity, timestamps, Rows::All, &values).unwrap();
        writer.starts(&starts[..60]).unwrap();
        let timestamps = writer.begin_timestamps(&times[60..]).unwrap();
        writer.histogram_chunk(identity, timestamps, Rows::All, &histograms).unwrap();
        writer.starts(&starts[60..]).unwrap();
    }
    writer.finish(SequenceRange { first: 3, last: 9 }).unwrap();
}

fn check_starts(segment: &Segment) {
    for (labels, _, starts) in with_starts() {
        let name = Matcher::new(MatchOp::Equal, "__name__", labels.name()).unwrap();
        let ordinal = segment.select(&[name]).unwrap().min().unwrap();
        let chunks = segment.chunks(ordinal, TimeRange::ALL).unwrap();
        let found = chunks.iter().map(|chunk| segment.decode_starts(chunk).unwrap().unwrap());
        let found: Vec<i64> = found.flatten().collect();
        assert_eq!(found, starts, "{labels}");
        assert!(chunks.iter().all(|chunk| segment.has_starts(chunk).unwrap()));
    }
}

#[test]
fn the_fixture_with_start_timestamps_opens() {
    let path = Path::new(FOLDER).join("starts");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        write_starts(&OsDisk, &path);
    }
    check_starts(&Segment::open(&OsDisk, &path).unwrap());
    let disk = disk();
    write_starts(&disk, Path::new(PATH));
    check_starts(&Segment::open(&disk, Path::new(PATH)).unwrap());
}
