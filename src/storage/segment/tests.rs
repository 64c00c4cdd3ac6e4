//! Whole segments against a model, matchers against a naive filter, and hostile bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::format::{ENTRY_BYTES, Entry, FOOTER_BYTES, Footer, PAGE_BYTES, word};
use super::*;
use crate::base::disk::{Disk, SimDisk};
use crate::base::rng::{Rng as _, SimRng};
use crate::encoding::column::Density;
use crate::model::labels::Labels;
use crate::model::matcher::{MatchOp, Matcher};
use crate::model::sample::TimeRange;
use crate::storage::index::postings::HeadIndex;
use crate::storage::select::QueryError;

mod fixture;

const PATH: &str = "/data/segment";

/// One call of [`SegmentWriter::chunk`].
#[derive(Clone, Debug)]
struct Batch {
    labels: Labels,
    timestamps_ms: Vec<i64>,
    present: Vec<bool>,
    values: Vec<f64>,
}

impl Batch {
    fn samples(&self) -> Vec<(i64, u64)> {
        let rows = self.timestamps_ms.iter().zip(&self.values).zip(&self.present);
        let rows = rows.filter(|(_, present)| **present);
        rows.map(|((timestamp_ms, value), _)| (*timestamp_ms, value.to_bits())).collect()
    }
}

/// Good enough to tell series apart.
fn fingerprint(labels: &Labels) -> u128 {
    let text = labels.to_string();
    let half = |seed| u128::from(xxhash_rust::xxh64::xxh64(text.as_bytes(), seed));
    half(1) << 64 | half(2)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk
}

fn write(disk: &SimDisk, batches: &[Batch]) -> SegmentInfo {
    try_write(disk, batches).unwrap()
}

fn try_write(disk: &SimDisk, batches: &[Batch]) -> std::io::Result<SegmentInfo> {
    let mut writer = SegmentWriter::create(disk, Path::new(PATH), Density::Fast)?;
    for batch in batches {
        write_batch(&mut writer, batch)?;
    }
    writer.finish(SequenceRange { first: 3, last: 9 })
}

fn write_batch(writer: &mut SegmentWriter, batch: &Batch) -> std::io::Result<()> {
    let id = writer.begin_timestamps(&batch.timestamps_ms)?;
    let series = SeriesIdentity { fingerprint: fingerprint(&batch.labels), labels: &batch.labels };
    let mut mask = vec![0_u64; batch.present.len().div_ceil(64)];
    for row in (0..batch.present.len()).filter(|row| batch.present[*row]) {
        mask[row / 64] |= 1 << (row % 64);
    }
    let rows = if batch.present.contains(&false) { Rows::Mask(&mask) } else { Rows::All };
    let kept: Vec<_> = batch.samples().iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    writer.chunk(series, id, rows, &kept)
}

fn read_chunk(segment: &Segment, chunk: &ChunkRef) -> Result<Vec<(i64, u64)>, QueryError> {
    let whole = segment.decode_timestamps(chunk.timestamps)?;
    let timestamps_ms = segment.chunk_timestamps(chunk, &whole)?;
    let values = segment.decode_values(chunk)?;
    assert_eq!(timestamps_ms.len(), values.len());
    assert_eq!(values.len(), chunk.count as usize);
    assert_eq!(timestamps_ms.first(), Some(&chunk.first_ms));
    assert_eq!(timestamps_ms.last(), Some(&chunk.last_ms));
    let bits = values.iter().map(|value| value.to_bits());
    Ok(timestamps_ms.iter().copied().zip(bits).collect())
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof!["[ab]{0,2}", "x[0-9]{0,2}", Just("node_cpu".to_owned())];
    let pair = ("__name__|job|A|zone", value);
    prop::collection::vec(pair, 0..4).prop_map(Labels::from_pairs)
}

fn batch() -> impl Strategy<Value = Batch> {
    let value = prop_oneof![
        5 => (-500..500_i64).prop_map(|n| n as f64 / 10.0),
        1 => any::<u64>().prop_map(f64::from_bits),
    ];
    let row = (1..40_i64, prop::bool::weighted(0.8), value);
    let rows = prop::collection::vec(row, 1..90);
    (labels(), -1000..1000_i64, rows, any::<bool>()).prop_map(|(labels, first, rows, whole)| {
        let mut at = first;
        let step = |(step, ..): &(i64, bool, f64)| {
            at += step;
            at
        };
        Batch {
            labels,
            timestamps_ms: rows.iter().map(step).collect(),
            present: rows.iter().map(|row| whole || row.1).collect(),
            values: rows.iter().map(|row| row.2).collect(),
        }
    })
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![
        Just(MatchOp::Equal),
        Just(MatchOp::NotEqual),
        Just(MatchOp::Regex),
        Just(MatchOp::NotRegex)
    ];
    const EXPRESSIONS: &[&str] = &[
        "",
        "a|b",
        "|x1",
        "a|",
        "node_.*",
        "node_(cpu|mem)",
        "x1?",
        "x1*",
        "x{0,2}",
        "x1{0,1}",
        "a+.*",
        "[ab]*",
        "(a|b)+",
        "node_(cpu)|x[0-9]",
        "node_(cpu)|",
        ".*",
        ".+",
        "a.*|b.*",
        "x[0-9]?|",
        "(?i)A",
        "nod[e]_cpu",
        "x\\d+",
        "(a|)",
        "^x1$",
        "x1$|a",
        "(?i:X)1",
        "a(?x) b",
    ];
    // The first two make values, the last are expressions.
    let pattern = prop_oneof![
        2 => "[ab]{0,2}",
        2 => "x[0-9]",
        9 => proptest::sample::select(EXPRESSIONS).prop_map(str::to_owned),
    ];
    (op, "__name__|job|A|zone|nope", pattern)
        .prop_filter_map("valid", |(op, name, pattern)| Matcher::new(op, &name, &pattern).ok())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..Default::default() })]

    #[test]
    fn segments_give_back_what_was_written(batches in prop::collection::vec(batch(), 0..20)) {
        let mut model: BTreeMap<(String, Labels), Vec<Vec<(i64, u64)>>> = BTreeMap::new();
        for batch in batches.iter().filter(|batch| batch.present.contains(&true)) {
            let key = (batch.labels.name().to_owned(), batch.labels.clone());
            model.entry(key).or_default().push(batch.samples());
        }
        let disk = disk();
        let info = write(&disk, &batches);
        let segment = Segment::open(&disk, Path::new(PATH)).unwrap();
        prop_assert_eq!(segment.info(), &info);
        let samples = || model.values().flatten().flatten();
        prop_assert_eq!(info.sample_count, samples().count() as u64);
        prop_assert_eq!(info.min_ms, samples().map(|own| own.0).min().unwrap_or(i64::MAX));
        prop_assert_eq!(info.max_ms, samples().map(|own| own.0).max().unwrap_or(i64::MIN));
        prop_assert_eq!(segment.series_count() as usize, model.len());
        let middle = TimeRange { min_ms: 0, max_ms: 300 };
        for (ordinal, ((_, labels), expected)) in model.iter().enumerate() {
            let ordinal = ordinal as u32;
            prop_assert_eq!(&segment.labels(ordinal).unwrap(), labels);
            prop_assert_eq!(segment.fingerprint(ordinal).unwrap(), fingerprint(labels));
            let chunks = segment.chunks(ordinal, TimeRange::ALL).unwrap();
            let found: Vec<_> =
                chunks.iter().map(|chunk| read_chunk(&segment, chunk).unwrap()).collect();
            prop_assert_eq!(&found, expected);
            let some: Vec<_> = expected.iter().filter(|samples| {
                samples[0].0 <= middle.max_ms && middle.min_ms <= samples[samples.len() - 1].0
            }).collect();
            prop_assert_eq!(segment.chunks(ordinal, middle).unwrap().len(), some.len());
        }
        prop_assert!(segment.labels(segment.series_count()).is_err());
    }

    #[test]
    fn matchers_agree_with_a_naive_filter_in_head_and_segment(
        batches in prop::collection::vec(labels(), 0..40),
        sets in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 12),
    ) {
        let all: Vec<Labels> = batches;
        let batch = |labels: &Labels| Batch {
            labels: labels.clone(), timestamps_ms: vec![1], present: vec![true], values: vec![1.0],
        };
        let disk = disk();
        write(&disk, &all.iter().map(batch).collect::<Vec<_>>());
        let segment = Segment::open(&disk, Path::new(PATH)).unwrap();
        let mut head = HeadIndex::new();
        let series: Vec<Labels> =
            (0..segment.series_count()).map(|own| segment.labels(own).unwrap()).collect();
        for (id, labels) in series.iter().enumerate() {
            head.insert(id as u32, labels);
        }
        for set in sets {
            let fulfils = |labels: &Labels| {
                set.iter().all(|own| own.matches(labels.get(own.name()).unwrap_or("")))
            };
            let naive: roaring::RoaringBitmap = series.iter().enumerate()
                .filter(|(_, labels)| fulfils(labels)).map(|(id, _)| id as u32).collect();
            prop_assert_eq!(&segment.select(&set).unwrap(), &naive, "{:?}", set);
            prop_assert_eq!(&head.select(&set), &naive, "{:?}", set);
            for within in [None, Some(&naive)] {
                prop_assert_eq!(segment.label_names(within).unwrap(), head.label_names(within));
                for name in ["job", "__name__", "nope"] {
                    let found = segment.label_values(name, within).unwrap();
                    prop_assert_eq!(found, head.label_values(name, within));
                }
            }
        }
    }
}

/// A segment with every kind of chunk and more than one page.
fn varied() -> Vec<Batch> {
    let rng = SimRng::new(5);
    let below = |limit: u64| (rng.next_u64() % limit) as f64;
    (0..400)
        .map(|at| {
            let pod = format!("pod-{}", at % 150);
            let kind = at % 5;
            let labels = Labels::from_pairs([
                ("__name__", ["up", "cpu", "mem", "lat", "odd"][kind]),
                ("job", if at % 3 == 0 { "a" } else { "b" }),
                ("pod", &pod),
            ]);
            let mut sum = 0.0;
            let value = |row: usize| match kind {
                0 => 1.0,
                1 => {
                    sum += below(100);
                    sum
                }
                2 => below(1000) / 100.0,
                3 => below(1 << 50) / 3e9,
                _ => f64::from(u8::from(row % 30 < 9)),
            };
            let jitter = |row: i64| if at % 7 == 0 { row * row % 5 } else { 0 };
            Batch {
                labels,
                timestamps_ms: (0..100).map(|row| row * 15_000 + jitter(row)).collect(),
                present: (0..100).map(|row| at % 4 != 0 || row % 11 != 3).collect(),
                values: (0..100).map(value).collect(),
            }
        })
        .collect()
}

/// Opens any bytes as a segment and reads everything in it: the entry for fuzzing.
fn fuzz(bytes: &[u8]) -> Result<(), QueryError> {
    let disk = disk();
    disk.create(Path::new(PATH)).unwrap().write_at(bytes, 0).unwrap();
    let segment = Segment::open(&disk, Path::new(PATH))?;
    let mut first_error = Ok(());
    let mut note = |result: Result<(), QueryError>| {
        if first_error.is_ok() {
            first_error = result;
        }
    };
    for ordinal in 0..segment.series_count().min(1000) {
        note(segment.labels(ordinal).map(drop));
        note(segment.fingerprint(ordinal).map(drop));
        match segment.chunks(ordinal, TimeRange::ALL) {
            Ok(chunks) => {
                for chunk in chunks.iter().take(100) {
                    note(read_chunk_loosely(&segment, chunk));
                }
            }
            Err(err) => note(Err(err)),
        }
    }
    for (op, name, value) in [
        (MatchOp::Equal, "job", "a"),
        (MatchOp::Regex, "pod", "pod-1.*"),
        (MatchOp::NotRegex, "pod", ".*7"),
        (MatchOp::Equal, "pod", ""),
    ] {
        note(segment.select(&[Matcher::new(op, name, value).unwrap()]).map(drop));
    }
    note(segment.label_names(None).map(drop));
    note(segment.label_values("pod", Some(&roaring::RoaringBitmap::from([3]))).map(drop));
    first_error
}

/// As [`read_chunk`], without trusting that the parts agree.
fn read_chunk_loosely(segment: &Segment, chunk: &ChunkRef) -> Result<(), QueryError> {
    let values = segment.decode_values(chunk)?;
    let whole = segment.decode_timestamps(chunk.timestamps)?;
    let timestamps_ms = segment.chunk_timestamps(chunk, &whole)?;
    assert_eq!(timestamps_ms.len(), values.len());
    assert!(timestamps_ms.is_sorted());
    Ok(())
}

/// Gives damaged bytes checksums that fit, as an attacker would.
fn reseal(bytes: &mut [u8]) {
    let footer_at = bytes.len() - FOOTER_BYTES;
    let tables = word(bytes, footer_at) as usize;
    let pages = tables.div_ceil(PAGE_BYTES);
    for page in 0..pages {
        let crc = crc32c::crc32c(&bytes[page * PAGE_BYTES..tables.min((page + 1) * PAGE_BYTES)]);
        bytes[tables + page * 4..][..4].copy_from_slice(&crc.to_le_bytes());
    }
    let mut footer = Vec::new();
    Footer {
        tables_offset: tables as u64,
        page_count: pages as u32,
        section_count: ((footer_at - tables - pages * 4) / ENTRY_BYTES) as u32,
        tables_crc: crc32c::crc32c(&bytes[tables..footer_at]),
    }
    .write(&mut footer);
    bytes[footer_at..].copy_from_slice(&footer);
}

fn segment_bytes(batches: &[Batch]) -> Vec<u8> {
    let disk = disk();
    write(&disk, batches);
    disk.read(Path::new(PATH)).unwrap()
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = segment_bytes(&varied()[..8]);
    fuzz(&bytes).unwrap();
    let rng = SimRng::new(2);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        let at = rng.next_u64() as usize % bytes.len();
        // The zeros of header and footer mean nothing; the header is a part of the first page.
        damaged[at] ^= 1 << (rng.next_u64() % 8);
        assert!(fuzz(&damaged).is_err(), "byte {at} of {}", bytes.len());
    }
    for len in [0, 7, 16, 40, bytes.len() / 2, bytes.len() - 1] {
        assert!(fuzz(&bytes[..len]).is_err(), "cut to {len}");
    }
}

#[test]
fn damage_that_passes_the_checksums_does_no_harm() {
    let bytes = segment_bytes(&varied());
    assert!(2 * PAGE_BYTES < bytes.len());
    fuzz(&bytes).unwrap();
    let tables = word(&bytes, bytes.len() - FOOTER_BYTES) as usize;
    let entries = bytes.len() - FOOTER_BYTES - 30 * ENTRY_BYTES;
    let sections = bytes[entries..bytes.len() - FOOTER_BYTES].as_chunks::<ENTRY_BYTES>().0;
    let sections: Vec<_> = sections.iter().map(Entry::read).collect();
    let rng = SimRng::new(3);
    let mut errors = 0;
    for round in 0..400 {
        let mut damaged = bytes.clone();
        // Each section in turn, then the tables.
        let (start, len) = match sections.get(round % (sections.len() + 1)) {
            Some(entry) => (entry.offset as usize, entry.bytes().unwrap() as usize),
            None => (tables, bytes.len() - FOOTER_BYTES - tables),
        };
        for _ in 0..=rng.next_u64() % 4 {
            let at = start + rng.next_u64() as usize % len.max(1);
            damaged[at] = rng.next_u64() as u8;
        }
        reseal(&mut damaged);
        errors += usize::from(fuzz(&damaged).is_err());
    }
    assert!(100 < errors, "damage is mostly noticed, but only {errors} times");
}

#[test]
fn chunks_with_all_rows_share_their_timestamps_and_short_ones_their_bytes() {
    let batch = |pod: &str, value: f64| Batch {
        labels: Labels::from_pairs([("__name__", "up"), ("pod", pod)]),
        timestamps_ms: (0..100).map(|row| row * 15_000).collect(),
        present: vec![true; 100],
        values: vec![value; 100],
    };
    let disk = disk();
    write(&disk, &[batch("a", 1.0), batch("b", 1.0), batch("c", 2.0)]);
    let segment = Segment::open(&disk, Path::new(PATH)).unwrap();
    let chunk = |ordinal| segment.chunks(ordinal, TimeRange::ALL).unwrap()[0];
    let whole = segment.decode_timestamps(chunk(0).timestamps).unwrap();
    assert_eq!(chunk(0).timestamps, chunk(2).timestamps);
    assert!(Arc::ptr_eq(&segment.chunk_timestamps(&chunk(1), &whole).unwrap(), &whole));
    let place = |ordinal| (chunk(ordinal).offset, chunk(ordinal).length);
    assert_eq!(place(0), place(1));
    assert_ne!(place(0), place(2));
}

#[test]
fn a_crash_or_a_full_disk_leaves_no_segment_behind() {
    for operations in 0..6 {
        let disk = disk();
        disk.fail_after(Some(operations));
        let written = try_write(&disk, &varied()[..20]);
        disk.fail_after(None);
        disk.crash();
        let opened = Segment::open(&disk, Path::new(PATH));
        match written {
            Ok(info) => assert_eq!(opened.unwrap().info(), &info),
            Err(_) => assert!(opened.is_err(), "after {operations} operations"),
        }
    }
}

#[test]
fn errors_name_file_and_offset() {
    let bytes = segment_bytes(&varied());
    let check = |at: usize| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fuzz(&damaged).unwrap_err().to_string()
    };
    let tables = word(&bytes, bytes.len() - FOOTER_BYTES) as usize;
    let errors = [0, 8, 40_000, tables - 1, tables + 1, bytes.len() - 20, bytes.len() - 1];
    insta::assert_snapshot!(errors.map(check).join("\n"), @r"
    /data/segment: corrupt data at byte 0: no segment
    /data/segment: corrupt data at byte 8: unknown version of segments
    /data/segment: corrupt data at byte 32768: checksum of the page does not fit
    /data/segment: corrupt data at byte 65536: checksum of the page does not fit
    /data/segment: corrupt data at byte 84517: checksum of the tables does not fit
    /data/segment: corrupt data at byte 85321: checksum of the footer does not fit
    /data/segment: corrupt data at byte 85321: no footer: the file is torn or no segment
    ");
}

/// What the whole file costs, for a fleet of targets as they are scraped for half an hour.
#[test]
fn files_are_small() {
    let rng = SimRng::new(9);
    let below = |limit: u64| (rng.next_u64() % limit) as f64;
    let mut batches = Vec::new();
    for metric in 0..60 {
        for target in 0..20 {
            let labels = Labels::from_pairs([
                ("__name__", &*format!("node_metric_{metric}_total")),
                ("instance", &format!("host-{target}:9100")),
                ("job", "node"),
            ]);
            let mut sum = below(100_000);
            // Seven of ten series stand still, as on a real machine.
            let value = |_| match metric % 10 {
                0 => {
                    sum += 100.0 + below(50);
                    sum
                }
                1 => below(5000) / 100.0,
                2 => {
                    sum += 15.0 + below(3) / 100.0;
                    (sum * 100.0).round() / 100.0
                }
                _ => f64::from(metric),
            };
            batches.push(Batch {
                labels,
                timestamps_ms: (0..120).map(|row| row * 15_000 + target * 731).collect(),
                present: vec![true; 120],
                values: (0..120).map(value).collect(),
            });
        }
    }
    let disk = disk();
    let info = write(&disk, &batches);
    let segment = Segment::open(&disk, Path::new(PATH)).unwrap();
    let per_sample = |bytes: u64| bytes as f64 / info.sample_count as f64;
    let sizes = segment.sizes().into_iter().filter(|own| 0.0005 <= per_sample(own.1));
    let mut lines: Vec<_> = sizes
        .map(|(section, bytes)| format!("{section}: {:.3} B/sample", per_sample(bytes)))
        .collect();
    lines.push(format!("all: {:.3} B/sample", per_sample(info.bytes)));
    insta::assert_snapshot!(lines.join("\n"), @r"
    Columns: 0.297 B/sample
    Fingerprints: 0.133 B/sample
    RunFirst: 0.001 B/sample
    RunValues: 0.001 B/sample
    RunLabelFirst: 0.001 B/sample
    ValueBits: 0.005 B/sample
    ChunkTimestamps: 0.005 B/sample
    ChunkOffset: 0.017 B/sample
    ChunkLength: 0.008 B/sample
    SymbolStarts: 0.001 B/sample
    SymbolText: 0.010 B/sample
    IndexValuePostings: 0.001 B/sample
    Postings: 0.019 B/sample
    Tables: 0.006 B/sample
    all: 0.507 B/sample
    ");
}
