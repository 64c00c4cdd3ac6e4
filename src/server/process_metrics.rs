//! `process_*`: what the operating system knows of this process, from `/proc`.

use std::path::Path;
use std::sync::Arc;

use crate::base::disk::Disk;
use crate::base::metrics::{Family, Kind, Registry, Sample};

/// Ticks per second of the times in `/proc/self/stat`: fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a page of memory on the machines that we run on.
const PAGE_BYTES: usize = 4096;

/// Reports processor time, memory, open files and the start time with each reading.
pub(super) fn register(registry: &Registry, disk: Arc<dyn Disk>, started_ms: i64) {
    registry.collect_from(move |families| {
        let mut add = |name: &str, help: &str, kind, value| {
            let samples = vec![Sample { suffix: "", labels: Vec::new(), value }];
            families.push(Family { name: name.to_owned(), help: help.to_owned(), kind, samples });
        };
        let started = started_ms as f64 / 1000.0;
        add(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            Kind::Gauge,
            started,
        );
        if let Some(stat) = read_stat(&*disk) {
            add(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                Kind::Counter,
                stat.cpu_seconds,
            );
            let resident = "process_resident_memory_bytes";
            add(resident, "Resident memory size in bytes.", Kind::Gauge, stat.resident_bytes);
            let virtual_memory = "process_virtual_memory_bytes";
            add(virtual_memory, "Virtual memory size in bytes.", Kind::Gauge, stat.virtual_bytes);
        }
        if let Ok(files) = disk.list(Path::new("/proc/self/fd")) {
            let open = files.len() as f64;
            add("process_open_fds", "Number of open file descriptors.", Kind::Gauge, open);
        }
        if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            let help = "Maximum number of open file descriptors.";
            add("process_max_fds", help, Kind::Gauge, most as f64);
        }
    });
}

struct Stat {
    cpu_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

fn read_stat(disk: &dyn Disk) -> Option<Stat> {
    let bytes = disk.read(Path::new("/proc/self/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&bytes), PAGE_BYTES)
}

/// Fields count from the state, which follows the name in parentheses; see proc(5).
fn parse_stat(text: &str, page_bytes: usize) -> Option<Stat> {
    let rest = text.rsplit_once(')')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Stat {
        cpu_seconds: (number(11)? + number(12)?) / TICKS_PER_SECOND,
        virtual_bytes: number(20)?,
        resident_bytes: number(21)? * page_bytes as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let text = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 19 4096 3 22";
        let stat = parse_stat(text, 4096).unwrap();
        assert_eq!(
            (stat.cpu_seconds, stat.virtual_bytes, stat.resident_bytes),
            (2.0, 4096.0, 12288.0)
        );
        assert!(parse_stat("", 4096).is_none());
    }
}
