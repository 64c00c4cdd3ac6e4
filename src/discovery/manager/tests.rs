//! The manager with static and file providers.

use super::*;
use crate::base::clock::OsClock;
use crate::base::disk::{Disk as _, OsDisk};
use crate::discovery::FileOptions;
use crate::model::labels::Labels;

fn group(address: &str) -> TargetGroup {
    TargetGroup {
        source: String::new(),
        targets: vec![Labels::from_pairs([("__address__", address)])],
        labels: Labels::empty(),
    }
}

fn manager() -> (Manager, watch::Receiver<Arc<TargetSets>>) {
    let interval = Duration::from_millis(10);
    let clock = Arc::new(OsClock::new());
    let manager = Manager::with_interval("scrape", clock, &Registry::new(), interval);
    let targets = manager.targets();
    (manager, targets)
}

/// Waits for the next publication; addresses by set.
async fn next(targets: &mut watch::Receiver<Arc<TargetSets>>) -> Vec<String> {
    let changed = tokio::time::timeout(Duration::from_secs(20), targets.changed()).await;
    changed.expect("published in time").expect("manager lives");
    let sets = targets.borrow_and_update().clone();
    let lines = sets.iter().map(|(name, groups)| {
        let targets = groups.iter().flat_map(|group| &group.targets);
        let list: Vec<_> = targets.map(|own| own.get("__address__").unwrap_or("")).collect();
        format!("{name}={}", list.join(","))
    });
    lines.collect()
}

fn sets(list: Vec<(&str, Vec<Options>)>) -> BTreeMap<String, Vec<Options>> {
    list.into_iter().map(|(name, options)| (name.to_owned(), options)).collect()
}

#[tokio::test(start_paused = true)]
async fn static_targets_are_published_at_once_and_shared_by_sets() {
    let (manager, mut targets) = manager();
    let shared = Options::Static(vec![group("a:1"), group("b:1")]);
    let own = Options::Static(vec![group("c:1")]);
    let begin = Instant::now();
    manager.apply(sets(vec![("x", vec![shared.clone()]), ("y", vec![shared.clone(), own])]));
    assert_eq!(next(&mut targets).await, ["x=a:1,b:1", "y=a:1,b:1,c:1"]);
    manager.apply(sets(vec![("y", vec![shared])]));
    assert_eq!(next(&mut targets).await, ["y=a:1,b:1"]);
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn files_are_read_watched_and_kept_when_they_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let write = |text: &str| OsDisk.replace(&path, text.as_bytes()).unwrap();
    write(r#"[{"targets": ["a:1"]}]"#);
    let options =
        FileOptions { files: vec![folder.path().join("*.json")], refresh: Duration::from_hours(1) };
    let (manager, mut targets) = manager();
    manager.apply(sets(vec![("x", vec![Options::File(options)])]));
    assert_eq!(next(&mut targets).await, ["x=a:1"]);
    write(r#"[{"targets": ["broken"#);
    let errors = &manager.inner.metrics.file_read_errors;
    while errors.get() == 0.0 {
        // The watcher works in another thread, beyond tokio's clock.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(targets.borrow().get("x").map(Vec::len), Some(1), "kept");
    write(r#"[{"targets": ["b:2", "c:3"]}]"#);
    assert_eq!(next(&mut targets).await, ["x=b:2,c:3"]);
    OsDisk.remove_file(&path).unwrap();
    assert_eq!(next(&mut targets).await, ["x="]);
}
