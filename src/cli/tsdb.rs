//! `narthex tsdb`: looks at a data directory, as promtool's commands of the same names do.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::base::clock::{Clock, OsClock};
use crate::base::disk::{Disk, OsDisk};
use crate::base::metrics::Registry;
use crate::base::rng::OsRng;
use crate::config::yaml::Bytes;
use crate::model::duration;
use crate::model::labels::Labels;
use crate::model::matcher::written::compile_all;
use crate::model::matcher::{CompileAllowance, Matcher};
use crate::model::sample::TimeRange;
use crate::promql::eval::format::general;
use crate::promql::parser::{ParserOptions, parse_metric_selector};
use crate::storage::Storage;
use crate::storage::append::{Appender, OnReject, SeriesKey};
use crate::storage::inspect::{self, SegmentSummary};
use crate::storage::options::{Limits, Options, Retention, StartTimestamps, WalSync};
use crate::storage::select::{BLOCK_SERIES_MAX, Column, Select, SelectHints};

/// A log file of a store that no server runs on.
const LOG_FILE_BYTES_MAX: u64 = 128 << 20;
/// Between two scrapes of the benchmark.
const SCRAPE_INTERVAL_MS: i64 = 15_000;
/// Series that one target of the benchmark has.
const TARGET_SERIES: usize = 1_000;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum TsdbCommand {
    /// Read every file and check all of it.
    Verify {
        /// Data directory.
        #[arg(default_value = "data/")]
        path: PathBuf,
    },
    /// List the segments.
    #[command(alias = "ls")]
    List {
        /// Print sizes and times for people.
        #[arg(short = 'r', long)]
        human_readable: bool,
        /// Data directory.
        #[arg(default_value = "data/")]
        path: PathBuf,
    },
    /// Tell which metrics and labels a segment has most of.
    Analyze(Analyze),
    /// Print samples as `{labels} value timestamp`. No server may run on the directory.
    Dump(Dump),
    /// Measure how fast samples are written.
    #[command(subcommand)]
    Bench(Bench),
}

/// What to analyze.
#[derive(Args, Debug)]
pub struct Analyze {
    /// How many entries of each list.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Series selector; all series when it is left out.
    #[arg(long = "match")]
    selector: Option<String>,
    /// Data directory.
    #[arg(default_value = "data/")]
    path: PathBuf,
    /// Number of a segment; the newest when it is left out.
    segment: Option<u64>,
}

/// What to print.
#[derive(Args, Debug)]
pub struct Dump {
    /// Oldest sample, in milliseconds since 1970.
    #[arg(long, default_value_t = i64::MIN, allow_negative_numbers = true)]
    min_time: i64,
    /// Newest sample, in milliseconds since 1970.
    #[arg(long, default_value_t = i64::MAX, allow_negative_numbers = true)]
    max_time: i64,
    /// Series selector; may be repeated.
    #[arg(long = "match", default_value = "{__name__=~\"(?s:.*)\"}")]
    selectors: Vec<String>,
    /// Print start timestamps too: a fourth field behind samples that have one.
    #[arg(long)]
    start_timestamps: bool,
    /// Data directory.
    #[arg(default_value = "data/")]
    path: PathBuf,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Commit scrapes one after the other.
    Write {
        /// Data directory of the benchmark.
        #[arg(long, default_value = "benchout")]
        out: PathBuf,
        /// Series.
        #[arg(long, default_value_t = 10_000)]
        metrics: usize,
        /// Samples of each.
        #[arg(long, default_value_t = 3_000)]
        scrapes: usize,
    },
}

/// Does it.
pub fn run(command: TsdbCommand) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match command {
        TsdbCommand::Verify { path } => verify(&mut out, &path),
        TsdbCommand::List { human_readable, path } => list(&mut out, &path, human_readable),
        TsdbCommand::Analyze(analyze) => print_analysis(&mut out, &analyze),
        TsdbCommand::Dump(dump) => print_samples(&mut out, &dump),
        TsdbCommand::Bench(Bench::Write { out: folder, metrics, scrapes }) => {
            bench_write(&mut out, folder, metrics, scrapes)
        }
    }?;
    out.flush().context("write to standard output")
}

fn selector(text: &str) -> anyhow::Result<Vec<Matcher>> {
    let parsed = parse_metric_selector(text, &ParserOptions::ALL);
    let written = parsed.map_err(|err| anyhow::anyhow!("parse the selector {text}: {err}"))?;
    compile_all(&written, &mut CompileAllowance::default()).context("compile the selector")
}

fn verify(out: &mut impl Write, path: &std::path::Path) -> anyhow::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let found = inspect::verify(&disk, path).context("read the manifest")?;
    for note in &found.notes {
        writeln!(out, "note: {note}")?;
    }
    let (files, bytes, samples) = (found.file_count, found.bytes, found.sample_count);
    writeln!(out, "{files} files, {bytes} bytes, {samples} samples in segments")?;
    if found.problems.is_empty() {
        return Ok(writeln!(out, "SUCCESS")?);
    }
    out.flush()?;
    bail!("{} files are damaged:\n{}", found.problems.len(), found.problems.join("\n"))
}

fn list(out: &mut impl Write, path: &std::path::Path, for_people: bool) -> anyhow::Result<()> {
    let mut rows = vec![
        [
            "SEGMENT",
            "LEVEL",
            "MIN TIME",
            "MAX TIME",
            "DURATION",
            "NUM SAMPLES",
            "NUM CHUNKS",
            "NUM SERIES",
            "SIZE",
        ]
        .map(str::to_owned),
    ];
    for SegmentSummary { id, level, info } in
        inspect::list(&OsDisk, path).context("read segments")?
    {
        let time = |ms: i64| match Timestamp::from_millisecond(ms) {
            Ok(moment) if for_people => moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            _ => ms.to_string(),
        };
        let span = std::time::Duration::from_millis(info.max_ms.abs_diff(info.min_ms));
        let size = if for_people { rounded(info.bytes) } else { info.bytes.to_string() };
        rows.push([
            id.to_string(),
            level.to_string(),
            time(info.min_ms),
            time(info.max_ms),
            duration::format(span),
            info.sample_count.to_string(),
            info.chunk_count.to_string(),
            info.series_count.to_string(),
            size,
        ]);
    }
    Ok(write!(out, "{}", table(&rows))?)
}

/// Columns side by side.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Three digits and a unit.
fn rounded(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    for unit in units {
        if value < 1024.0 || unit == "TiB" {
            let digits = usize::from(value < 100.0 && unit != "B");
            return format!("{value:.digits$}{unit}");
        }
        value /= 1024.0;
    }
    Bytes(bytes).to_string()
}

fn print_analysis(out: &mut impl Write, analyze: &Analyze) -> anyhow::Result<()> {
    let all = inspect::list(&OsDisk, &analyze.path).context("read segments")?;
    let wanted = |own: &&SegmentSummary| analyze.segment.is_none_or(|id| own.id == id);
    let Some(own) = all.iter().rfind(wanted) else { bail!("there is no such segment") };
    let matchers = analyze.selector.as_deref().map(selector).transpose()?.unwrap_or_default();
    let series = inspect::series(&OsDisk, &analyze.path, own.id, &matchers);
    let series = series.context("read the segment")?;
    let span = std::time::Duration::from_millis(own.info.max_ms.abs_diff(own.info.min_ms));
    writeln!(out, "Segment: {}", own.id)?;
    writeln!(out, "Duration: {}", duration::format(span))?;
    writeln!(out, "Total Series: {}", series.len())?;
    Ok(write!(out, "{}", Analysis::of(&series).text(analyze.limit))?)
}

/// Counts over the labels of series.
#[derive(Default)]
struct Analysis<'a> {
    /// Series by pair.
    pairs: BTreeMap<(&'a str, &'a str), u64>,
    /// Series by metric.
    metrics: BTreeMap<&'a str, u64>,
    entries: u64,
}

impl<'a> Analysis<'a> {
    fn of(series: &'a [Labels]) -> Self {
        let mut found = Self::default();
        for labels in series {
            *found.metrics.entry(labels.name()).or_default() += 1;
            for (name, value) in labels.iter() {
                *found.pairs.entry((name, value)).or_default() += 1;
                found.entries += 1;
            }
        }
        found
    }

    fn text(&self, limit: usize) -> String {
        let (mut values, mut lengths) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in self.pairs.keys() {
            *values.entry(*name).or_default() += 1;
            *lengths.entry(*name).or_default() += value.len() as u64;
        }
        let pairs =
            self.pairs.iter().map(|((name, value), count)| (format!("{name}={value}"), *count));
        let owned = |map: &BTreeMap<&str, u64>| {
            map.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let mut out = format!(
            "Label names: {}\nPostings (unique label pairs): {}\nPostings entries (total label pairs): {}\n",
            values.len(),
            self.pairs.len(),
            self.entries
        );
        for (title, entries) in [
            ("Most common label pairs", pairs.collect()),
            ("Label names with highest cumulative label value length", owned(&lengths)),
            ("Highest cardinality labels", owned(&values)),
            ("Highest cardinality metric names", owned(&self.metrics)),
        ] {
            out += &format!("\n{title}:\n{}", largest(entries, limit));
        }
        out
    }
}

fn largest(mut entries: Vec<(String, u64)>, limit: usize) -> String {
    entries.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    entries.iter().take(limit).map(|(name, count)| format!("{count} {name}\n")).collect()
}

/// A store on a folder, without a server.
fn open(path: PathBuf, wal_sync: WalSync) -> anyhow::Result<Arc<Storage>> {
    let options = Options {
        path,
        retention: Retention::default(),
        limits: Limits::default(),
        reserve_bytes_max: 0,
        out_of_order_window_ms: Arc::new(AtomicI64::new(0)),
        wal_sync,
        log_file_bytes_max: LOG_FILE_BYTES_MAX,
        log_file_age_max_ms: i64::MAX,
        future_ms_max: i64::MAX,
        start_timestamps: StartTimestamps { are_kept: true, begin_with_zero: false },
    };
    let (disk, clock) = (Arc::new(OsDisk), Arc::new(OsClock::new()));
    let opened = Storage::open(disk, clock, Arc::new(OsRng), &Registry::new(), options);
    opened.context("open the data directory")
}

fn print_samples(out: &mut impl Write, dump: &Dump) -> anyhow::Result<()> {
    if !OsDisk.exists(&dump.path) {
        bail!("{}: no such data directory", dump.path.display());
    }
    let store = open(dump.path.clone(), WalSync::Batch)?;
    let range = TimeRange { min_ms: dump.min_time, max_ms: dump.max_time };
    for text in &dump.selectors {
        let selection = store.select(&selector(text)?, range, &SelectHints::default())?;
        for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
            let count = (selection.len() - first).min(BLOCK_SERIES_MAX);
            let block = selection.block(first as u32, count)?;
            let all = selection.block_labels(first as u32, count)?;
            for (labels, columns) in all.iter().zip(&block.series) {
                for run in &columns.runs {
                    for (row, ms) in run.timestamps_ms.iter().enumerate() {
                        let value = match &run.values {
                            Column::Floats(values) => general(values[row]),
                            Column::Histograms(values) => values[row].to_string(),
                        };
                        write!(out, "{labels} {value} {ms}")?;
                        let start_ms = run.starts_ms.as_ref().map_or(0, |starts| starts[row]);
                        if dump.start_timestamps && start_ms != 0 {
                            write!(out, " {start_ms}")?;
                        }
                        writeln!(out)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn bench_write(
    out: &mut impl Write,
    folder: PathBuf,
    metrics: usize,
    scrapes: usize,
) -> anyhow::Result<()> {
    let store = open(folder.clone(), WalSync::Batch)?;
    let clock = OsClock::new();
    let series: Vec<Labels> = (0..metrics)
        .map(|i| {
            let (target, number) =
                ((i / TARGET_SERIES).to_string(), (i % TARGET_SERIES).to_string());
            Labels::from_pairs([
                ("__name__", "bench_total"),
                ("instance", &target),
                ("number", &number),
            ])
        })
        .collect();
    let begun = clock.monotonic();
    let start_ms = clock.now_ms() - scrapes as i64 * SCRAPE_INTERVAL_MS;
    let mut last = None;
    for scrape in 0..scrapes {
        let timestamp_ms = start_ms + scrape as i64 * SCRAPE_INTERVAL_MS;
        for target in series.chunks(TARGET_SERIES) {
            let mut batch = store.appender(OnReject::Skip);
            for (number, labels) in target.iter().enumerate() {
                let value = (scrape * (1 + number % 97)) as f64;
                batch.float(SeriesKey::Labels(labels), timestamp_ms, value);
            }
            last = Some(batch.commit().context("commit samples")?.1);
        }
    }
    if let Some(ticket) = last {
        ticket.wait().context("sync samples")?;
    }
    let written = clock.monotonic().saturating_sub(begun).as_secs_f64();
    store.compact_now().context("merge segments")?;
    let compacted = clock.monotonic().saturating_sub(begun).as_secs_f64() - written;
    store.close();
    let samples = (metrics * scrapes) as f64;
    let bytes: u64 = inspect::list(&OsDisk, &folder)
        .context("read segments")?
        .iter()
        .map(|own| own.info.bytes)
        .sum();
    writeln!(out, "ingestion: {written:.2} s, {:.0} samples/s", samples / written)?;
    writeln!(out, "compaction: {compacted:.2} s, {:.0} samples/s", samples / compacted)?;
    Ok(writeln!(out, "segments: {bytes} bytes, {:.3} bytes per sample", bytes as f64 / samples)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        (folder, path)
    }

    fn text(work: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> String {
        let mut out = Vec::new();
        work(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_directory_is_written_listed_analyzed_dumped_and_verified() {
        let (_folder, path) = folder();
        let bench = text(|out| bench_write(out, path.clone(), 30, 4));
        assert!(bench.contains("bytes per sample"), "{bench}");
        let listed = text(|out| list(out, &path, false));
        assert!(listed.starts_with("SEGMENT  LEVEL  MIN TIME"), "{listed}");
        let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[4..8], ["45s", "120", "30", "30"]);
        assert!(text(|out| list(out, &path, true)).contains(" UTC"));
        let analyze = Analyze { limit: 1, selector: None, path: path.clone(), segment: None };
        let analysis = text(|out| print_analysis(out, &analyze));
        assert!(analysis.contains("Total Series: 30"), "{analysis}");
        assert!(analysis.contains("Highest cardinality labels:\n30 number\n"), "{analysis}");
        let dump = Dump {
            min_time: i64::MIN,
            max_time: i64::MAX,
            selectors: vec!["bench_total{number=\"2\"}".to_owned()],
            start_timestamps: false,
            path: path.clone(),
        };
        let samples = text(|out| print_samples(out, &dump));
        let first: Vec<&str> = samples.lines().nth(1).unwrap().rsplitn(3, ' ').collect();
        assert_eq!(first[1..], ["3", "{__name__=\"bench_total\", instance=\"0\", number=\"2\"}"]);
        assert_eq!(samples.lines().count(), 4);
        let verified = text(|out| verify(out, &path));
        assert!(verified.contains("120 samples in segments\nSUCCESS"), "{verified}");
        let store = open(path.clone(), WalSync::Batch).unwrap();
        let mut batch = store.appender(OnReject::Skip);
        batch.start(3_900_000_000_000);
        batch.float(SeriesKey::Pairs(&[("__name__", "started")]), 4_000_000_000_000, 7.0);
        batch.commit().unwrap();
        store.close();
        drop(store);
        let mut dump = Dump { selectors: vec!["started".to_owned()], ..dump };
        let mut started = || {
            dump.start_timestamps = !dump.start_timestamps;
            text(|out| print_samples(out, &dump))
        };
        let plain = "{__name__=\"started\"} 7 4000000000000";
        assert_eq!(started(), format!("{plain} 3900000000000\n"));
        assert_eq!(started(), format!("{plain}\n"));
    }

    #[test]
    fn damage_is_told_with_file_and_offset() {
        let (_folder, path) = folder();
        text(|out| bench_write(out, path.clone(), 300, 40));
        let segments = path.join("segments");
        let name = OsDisk.list(&segments).unwrap().remove(0);
        OsDisk.open(&segments.join(&name)).unwrap().write_at(&[0x55; 9], 100).unwrap();
        OsDisk.create(&segments.join("stranger")).unwrap();
        let mut out = Vec::new();
        let refused = verify(&mut out, &path).unwrap_err().to_string();
        assert!(refused.contains(&name) && refused.contains("corrupt data at byte 0"), "{refused}");
        assert!(String::from_utf8(out).unwrap().contains("stranger: the manifest does not name"));
    }
}
