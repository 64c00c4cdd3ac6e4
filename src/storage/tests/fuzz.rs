//! A data directory one file of which says anything, with checksums that fit: the store opens it
//! or refuses, and whatever it opens can be queried, sealed, merged and opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::base::disk::Disk;
use crate::base::fuzz::run;
use crate::model::metadata::MetricType;
use crate::storage::registry::checkpoint::File;
use crate::storage::registry::sets::List;
use crate::storage::segment::fuzz::reseal;

const LOG_HEADER_BYTES: usize = 40;
const FRAME_HEADER_BYTES: usize = 32;
const EDIT_HEADER_BYTES: usize = 16;
const MANIFEST_HEADER_BYTES: usize = 28;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Rows, loose and late samples, histograms, metadata, series that come and go: in a segment, a
/// registry, and an open log file.
fn directory() -> Files {
    let machine = Machine::new(1);
    // Late samples too are on this side of the hour at which segments are cut.
    machine.clock.advance_ms(60_000);
    let storage = machine.open();
    for step in 0..8 {
        let now_ms = machine.clock.now_ms();
        let mut samples: Vec<_> =
            (0..10).map(|i| (labels("m", i), now_ms, (i * step) as f64)).collect();
        samples.push((labels("h", step), now_ms, histogram(step as u64)));
        samples.push((labels("m", 3), now_ms - 5_000, 0.5));
        let mut batch = storage.appender(OnReject::Skip);
        let (metric_type, help) = (MetricType::Gauge, format!("help {step}"));
        batch.metadata("m", &Metadata { metric_type, help, unit: String::new() });
        drop(batch.commit().unwrap());
        append(&storage, &samples);
        machine.clock.advance_ms(15_000);
        if step == 3 {
            storage.seal_now().unwrap();
        }
    }
    drop(storage);
    let read = |path: PathBuf| (path.clone(), machine.disk.read(&path).unwrap());
    machine.disk.paths().into_iter().map(read).collect()
}

fn only(files: &Files, folder: &str) -> PathBuf {
    let found: Vec<_> = files.keys().filter(|own| own.starts_with(folder)).collect();
    let [path] = found[..] else { panic!("{folder} has {found:?}") };
    path.clone()
}

/// Opens, reads, changes and opens again; whether it could be opened.
fn survives(files: &Files, replaced: &Path, content: &[u8]) -> bool {
    let machine = Machine::new(1);
    for path in files.keys() {
        let content = if path == replaced { content } else { &files[path] };
        machine.disk.create_dir_all(path.parent().unwrap()).unwrap();
        machine.disk.create(path).unwrap().write_at(content, 0).unwrap();
    }
    let Ok(storage) = machine.try_open() else { return false };
    read_loosely(&storage);
    let at_ms = NOW_MS + 3_600_000;
    machine.clock.advance_ms(3_600_000);
    let _ = try_append(&storage, OnReject::Skip, &[(labels("m", 1), at_ms, 1.0)]);
    if storage.compact_now().is_ok() {
        read_loosely(&storage);
    }
    drop(storage);
    if let Ok(storage) = machine.try_open() {
        read_loosely(&storage);
    }
    true
}

/// Everything that can be read, without asking what it is.
fn read_loosely(storage: &Storage) {
    let Ok(selection) = storage.select(&[], TimeRange::ALL, &SelectHints::default()) else {
        return;
    };
    for first in 0..selection.len() {
        if let Ok(block) = selection.block(first as u32, 1) {
            for run in &block.series[0].runs {
                assert!(run.timestamps_ms.is_sorted_by(|a, b| a < b));
            }
        }
    }
    let _ = storage.label_names(&[], TimeRange::ALL);
    let _ = storage.label_values("i", &[vec![Matcher::equal("__name__", "m")]], TimeRange::ALL);
    let _ = (storage.stats(3), storage.metadata(None));
}

/// `[length in four bytes] [crc] [header] [body]`, the CRC over header, body and length.
fn framed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let bytes = (body.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[header, body].concat()), &bytes);
    [&bytes, &crc.to_le_bytes()[..], header, body].concat()
}

/// The bodies of frames, each with two bytes of length before it.
fn bodies(mut file: &[u8], header_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(bytes) = file.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) {
        let end = header_bytes + bytes as usize;
        if bytes == 0 || file.len() < end {
            break;
        }
        out.extend((bytes as u16).to_le_bytes());
        out.extend_from_slice(&file[header_bytes..end]);
        file = &file[end..];
    }
    out
}

fn split_bodies(mut input: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    while let Some((bytes, rest)) = input.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*bytes))));
        if !body.is_empty() {
            out.push(body);
        }
        input = rest;
    }
    out
}

#[test]
fn row_log() {
    let files = directory();
    let path = only(&files, "/data/wal");
    let header = files[&path][..LOG_HEADER_BYTES].to_vec();
    let frames = &files[&path][LOG_HEADER_BYTES..];
    let (file_id, first_sequence) = (&frames[8..16], &frames[16..24]);
    let first_sequence = u64::from_le_bytes(first_sequence.try_into().unwrap());
    run("row-log", 300, vec![bodies(frames, FRAME_HEADER_BYTES)], |input| {
        let mut file = header.clone();
        for (sequence, body) in (first_sequence..).zip(split_bodies(input)) {
            let own = [file_id, &sequence.to_le_bytes(), &[0; 8]].concat();
            file.extend(framed(&own, body));
        }
        file.resize(file.len() + 4096, 0);
        survives(&files, &path, &file)
    });
}

#[test]
fn manifest() {
    let files = directory();
    let path = files.keys().find(|own| own.parent() == Some(Path::new("/data")));
    let path = path.expect("a manifest").clone();
    let header = files[&path][..MANIFEST_HEADER_BYTES].to_vec();
    let edits = &files[&path][MANIFEST_HEADER_BYTES..];
    let first = u64::from_le_bytes(edits[8..16].try_into().unwrap());
    run("manifest", 300, vec![bodies(edits, EDIT_HEADER_BYTES)], |input| {
        let mut file = header.clone();
        for (number, body) in (first..).zip(split_bodies(input)) {
            file.extend(framed(&number.to_le_bytes(), body));
        }
        survives(&files, &path, &file)
    });
}

#[test]
fn registry() {
    let files = directory();
    let path = only(&files, "/data/registry");
    let (content, _) = files[&path].split_last_chunk::<4>().unwrap();
    run("registry", 300, vec![content.to_vec()], |input| {
        let file = [input, &crc32c::crc32c(input).to_le_bytes()].concat();
        !has_twins(&path, &file) && survives(&files, &path, &file)
    });
}

/// Whether a checkpoint has two series with the same labels. Only a forged checksum brings that, and
/// each start would pay for looking.
fn has_twins(path: &Path, file: &[u8]) -> bool {
    let Ok(file) = File::open(path, file) else { return false };
    let mut sets = BTreeSet::new();
    for block in file.blocks() {
        let (mut lists, mut ends, mut start) = (Vec::new(), Vec::new(), 0);
        if block.and_then(|block| block.push_lists(&mut lists, &mut ends)).is_err() {
            return false;
        }
        for end in ends {
            let labels = List::new(&lists[start..end]);
            let texts = labels.filter_map(|label| Some(file.labels.get(label as usize)?.text));
            if !sets.insert(texts.collect::<Vec<_>>()) {
                return true;
            }
            start = end;
        }
    }
    false
}

#[test]
fn segment() {
    let files = directory();
    let path = only(&files, "/data/segments");
    run("segment", 300, vec![files[&path].clone()], |input| {
        let mut file = input.to_vec();
        reseal(&mut file);
        survives(&files, &path, &file)
    });
}
