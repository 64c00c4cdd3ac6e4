//! Targets listed in JSON and YAML files (`file_sd_configs`).
//!
//! Files are read again when their folders change and at the refresh interval. A file that cannot
//! be read or parsed keeps the targets it had; a file that is gone loses them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, watch};

use super::FileOptions;
use super::manager::Report;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::model::labels::{Labels, quote};
use crate::model::target::TargetGroup;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files that one configuration reads at most.
const FILES_MAX: usize = 10_000;
/// Changes are gathered this long before the files are read.
const SETTLE: Duration = Duration::from_millis(100);

/// Why a file gives no targets.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("file is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Yaml(String),
    #[error("unexpected file extension {0}")]
    Extension(String),
    #[error("{} is not a valid label name", quote(.0))]
    LabelName(String),
    #[error("nil target group item found (index {0})")]
    Nil(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Reads, reports and watches until `stop` is closed.
pub(super) async fn run(
    options: FileOptions,
    report: Report,
    mut stop: watch::Receiver<()>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
) {
    let (sender, mut changes) = mpsc::channel(1);
    // Without a watcher (no inotify left) the refresh interval still works.
    let _watcher = watcher(&options.files, sender);
    let mut known = BTreeMap::new();
    loop {
        let started = clock.monotonic();
        refresh(&options.files, &mut known, &metrics).await;
        metrics.file_scan_seconds.observe(clock.monotonic().saturating_sub(started).as_secs_f64());
        report.replace(known.values().flatten().cloned().collect());
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(options.refresh.max(Duration::from_secs(1))) => {}
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
            }
        }
    }
}

/// Watches the folders of all patterns; tells of changes by a message that says nothing more.
fn watcher(patterns: &[PathBuf], sender: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<notify::Event>| {
        // Our own reading is an access too.
        let is_change = !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. }));
        if is_change {
            // A full channel already holds the news.
            let _ = sender.try_send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(err) => {
            tracing::warn!(error = %err, "Error adding file watcher.");
            return None;
        }
    };
    let folders: BTreeSet<&Path> = patterns.iter().filter_map(|path| path.parent()).collect();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Err(err) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(error = %err, path = %folder.display(), "Error adding file watch.");
        }
    }
    Some(watcher)
}

async fn refresh(
    patterns: &[PathBuf],
    known: &mut BTreeMap<PathBuf, Vec<TargetGroup>>,
    metrics: &Metrics,
) {
    let patterns = patterns.to_vec();
    let listed = tokio::task::spawn_blocking(move || list(&patterns)).await.unwrap_or_default();
    known.retain(|path, _| listed.contains(path));
    for path in listed {
        match read(&path).await {
            Ok(groups) => {
                known.insert(path, groups);
            }
            Err(err) => {
                metrics.file_read_errors.inc();
                tracing::error!(error = %err, path = %path.display(), "Error reading file.");
            }
        }
    }
}

/// The files that match. Blocks on the file system.
fn list(patterns: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        match glob::glob(&pattern.to_string_lossy()) {
            Ok(paths) => found.extend(paths.flatten().take(FILES_MAX - found.len().min(FILES_MAX))),
            Err(err) => {
                tracing::error!(error = %err, pattern = %pattern.display(), "Error expanding glob.");
            }
        }
    }
    found
}

async fn read(path: &Path) -> Result<Vec<TargetGroup>, FileError> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<TargetGroup>, FileError> {
    let extension = path.extension().map(|own| own.to_string_lossy().to_ascii_lowercase());
    let raw: Vec<Option<RawGroup>> = match extension.as_deref() {
        Some("json") => serde_json::from_str(text)?,
        Some("yml" | "yaml") if text.trim().is_empty() => Vec::new(),
        Some("yml" | "yaml") => {
            serde_saphyr::from_str(text).map_err(|err| FileError::Yaml(err.to_string()))?
        }
        other => return Err(FileError::Extension(other.unwrap_or_default().to_owned())),
    };
    let shown = path.to_string_lossy();
    let groups = raw.into_iter().enumerate().map(|(index, group)| {
        let group = group.ok_or(FileError::Nil(index))?;
        if group.labels.contains_key("") {
            return Err(FileError::LabelName(String::new()));
        }
        let own = group.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let targets = group.targets.iter();
        Ok(TargetGroup {
            source: format!("{shown}:{index}"),
            targets: targets.map(|own| Labels::from_pairs([("__address__", own)])).collect(),
            labels: Labels::from_pairs(own.chain([("__meta_filepath", shown.as_ref())])),
        })
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> String {
        match parse(Path::new(name), text) {
            Ok(groups) => {
                let shown = groups
                    .iter()
                    .map(|group| format!("{} {:?} {}", group.source, group.targets, group.labels));
                shown.collect::<Vec<_>>().join("\n")
            }
            Err(err) => format!("error: {}", err.to_string().lines().next().unwrap_or_default()),
        }
    }

    #[test]
    fn json_and_yaml_list_groups() {
        let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"x": "y"}}, {"targets": []}]"#;
        let expected = "/t.json:0 [{__address__=\"a:1\"}, {__address__=\"b:2\"}] {__meta_filepath=\"/t.json\", x=\"y\"}\n/t.json:1 [] {__meta_filepath=\"/t.json\"}";
        assert_eq!(check("/t.json", json), expected);
        let yaml = "- targets: [a:1, 'b:2']\n  labels:\n    x: y\n- targets: []\n";
        assert_eq!(check("/t.yml", yaml), expected.replace("/t.json", "/t.yml"));
        assert_eq!(check("/t.yaml", ""), "");
    }

    #[test]
    fn broken_files_are_refused() {
        for (name, text) in [
            ("/t.json", "[{\"targets\": [1]}]"),
            ("/t.json", "[null]"),
            ("/t.json", "[{\"target\": [\"a\"]}]"),
            ("/t.yml", "- targets: a\n"),
            ("/t.yml", "- tragets: [a]\n"),
            ("/t.yml", "a: [b"),
            ("/t.txt", "[]"),
        ] {
            assert!(check(name, text).starts_with("error: "), "{name} {text}");
        }
    }
}
