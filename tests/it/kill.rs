//! `kill -9` under load at random moments: what was acknowledged is there afterwards.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use narthex::base::rng::{Rng, SimRng};

use crate::process::{SeriesToWrite, Server, instant, now_ms, remote_write};

const ROUNDS: usize = 50;
/// Writers that send at the same time, each its own series.
const WRITERS: usize = 3;
const SERIES_PER_WRITER: usize = 20;
/// How far apart the rows of a writer are. They start an hour ago and must end before they reach
/// the ten minutes of future that remote write refuses, however fast the machine is.
const ROW_INTERVAL_MS: i64 = 10;
/// How soon the server must typically answer again.
const READY_MAX: Duration = Duration::from_secs(1);
/// The same for the slowest of all restarts, on a machine that runs other tests meanwhile.
const SLOWEST_MAX: Duration = Duration::from_secs(5);

/// Writes rows with the values 0, 1, 2 … until told to stop; keeps the newest
/// acknowledged one.
fn write_rows(port: u16, writer: usize, start_ms: i64, next: &AtomicI64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let row = next.load(Ordering::Relaxed);
        let series: Vec<_> = (0..SERIES_PER_WRITER)
            .map(|index| SeriesToWrite {
                labels: vec![
                    ("__name__", "kept_total".to_owned()),
                    ("series", index.to_string()),
                    ("writer", writer.to_string()),
                ],
                samples: vec![(start_ms + row * ROW_INTERVAL_MS, row as f64)],
            })
            .collect();
        match remote_write(port, &series) {
            Some(answer) => {
                assert_eq!(answer.status, 204, "{}", answer.body);
                next.store(row + 1, Ordering::Relaxed);
            }
            // Killed meanwhile; the row may or may not be there and is sent again.
            None => return,
        }
    }
}

fn assert_all_there(server: &Server, start_ms: i64, acknowledged: &[AtomicI64]) {
    for (writer, next) in acknowledged.iter().enumerate() {
        let rows = next.load(Ordering::Relaxed);
        if rows == 0 {
            continue;
        }
        // The newest acknowledged row, and that none before it is missing.
        let at = (start_ms + (rows - 1) * ROW_INTERVAL_MS) as f64 / 1000.0;
        let range_ms = rows * ROW_INTERVAL_MS;
        let counted =
            format!("count_over_time(kept_total{{writer=\"{writer}\"}}[{range_ms}ms] @ {at})");
        let found = instant(server.port, &counted);
        let found = found.as_array().unwrap();
        assert_eq!(found.len(), SERIES_PER_WRITER, "{counted}\n{}", server.log());
        for series in found {
            assert_eq!(series["value"][1], rows.to_string().as_str(), "{counted}\n{series}");
        }
        let newest = instant(server.port, &format!("kept_total{{writer=\"{writer}\"}} @ {at}"));
        for series in newest.as_array().unwrap() {
            assert_eq!(series["value"][1], (rows - 1).to_string().as_str());
        }
    }
}

#[test]
fn acknowledged_samples_survive_fifty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut server =
        Server::start(folder.path(), "global: {}\n", &["--web.enable-remote-write-receiver"]);
    let rng = SimRng::new(now_ms() as u64);
    let start_ms = now_ms() / 1000 * 1000 - 3_600_000;
    let acknowledged: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(0)).collect();
    let mut restarts = Vec::new();
    for _ in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, next) in acknowledged.iter().enumerate() {
                let (port, stop) = (server.port, &stop);
                scope.spawn(move || write_rows(port, writer, start_ms, next, stop));
            }
            std::thread::sleep(Duration::from_millis(20 + rng.next_u64() % 200));
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        restarts.push(server.start_again());
        assert_all_there(&server, start_ms, &acknowledged);
    }
    let rows: i64 = acknowledged.iter().map(|next| next.load(Ordering::Relaxed)).sum();
    assert!(rows > ROUNDS as i64, "the load was real");
    restarts.sort();
    let (median, slowest) = (restarts[ROUNDS / 2], restarts[ROUNDS - 1]);
    println!(
        "{rows} rows acknowledged over {ROUNDS} kills; restarts: median {median:?}, slowest {slowest:?}"
    );
    assert!(
        median < READY_MAX && slowest < SLOWEST_MAX,
        "ready after {median:?}, at most {slowest:?}"
    );
}
