//! When a target is scraped: on a grid of its own, fixed by its identity and the server's, so that
//! load is spread, restarts keep the phase and the members of an HA pair differ.

use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::model::labels::Labels;

/// A scrape that starts this close to its grid point gets the grid point as timestamp, which
/// compresses better; never more than a hundredth of the interval.
const SNAP_MS_MAX: i64 = 2;

/// The moments `phase_ms + n * interval_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub interval_ms: i64,
    pub phase_ms: i64,
}

impl Grid {
    /// The grid of the target with this hash on the server with this seed.
    pub fn new(interval: Duration, target_hash: u64, seed: u64) -> Self {
        let interval_ns = interval.as_nanos().clamp(1_000_000, u128::from(u64::MAX)) as u64;
        let phase_ns = (target_hash ^ seed) % interval_ns;
        let interval_ms = (interval_ns / 1_000_000) as i64;
        Self { interval_ms, phase_ms: (phase_ns / 1_000_000) as i64 % interval_ms }
    }

    /// The next moment after `now_ms`. A clock that was set back a little does not cause a second
    /// scrape at `last_ms`.
    pub fn next(self, now_ms: i64, last_ms: Option<i64>) -> i64 {
        let behind = (now_ms - self.phase_ms).rem_euclid(self.interval_ms);
        let next = now_ms - behind + self.interval_ms;
        match last_ms {
            Some(last) if next <= last && last - next < self.interval_ms => last + self.interval_ms,
            _ => next,
        }
    }

    /// The timestamp of a scrape that was due at `due_ms` and starts at `now_ms`.
    pub fn snap(self, due_ms: i64, now_ms: i64) -> i64 {
        let tolerance_ms = SNAP_MS_MAX.min(self.interval_ms / 100);
        if (now_ms - due_ms).abs() <= tolerance_ms { due_ms } else { now_ms }
    }
}

/// The seed of a server: members of an HA pair differ by host name or external labels.
pub(super) fn server_seed(hostname: &str, external_labels: &Labels) -> u64 {
    fnv1a(format!("{hostname}{external_labels}").as_bytes())
}

/// The hash that fixes a target's phase, made as in Prometheus.
pub(super) fn target_hash(labels: &Labels, url: &str) -> u64 {
    fnv1a(format!("{:016}{url}", hash(labels)).as_bytes())
}

/// The label hash of Prometheus' default build: xxHash64 over names and values, each after its
/// length (one byte, or 255 and three bytes, lowest first).
fn hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                bytes.extend((text.len() as u32).to_le_bytes().into_iter().take(3));
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    xxh64(&bytes, 0)
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_on_the_grid() {
        let grid = Grid { interval_ms: 15_000, phase_ms: 4_000 };
        for (now_ms, last_ms, expected) in [
            (0, None, 4_000),
            (3_999, None, 4_000),
            (4_000, Some(4_000), 19_000),
            // Late: the missed tick is skipped.
            (36_000, Some(4_000), 49_000),
            // Set back by a moment: not scraped twice.
            (18_990, Some(19_000), 34_000),
            // Set back for good: goes on there.
            (100_000, Some(3_600_004_000), 109_000),
        ] {
            assert_eq!(grid.next(now_ms, last_ms), expected, "{now_ms} {last_ms:?}");
        }
        assert_eq!(grid.snap(19_000, 19_002), 19_000);
        assert_eq!(grid.snap(19_000, 19_003), 19_003);
        let short = Grid { interval_ms: 100, phase_ms: 0 };
        assert_eq!(short.snap(200, 202), 202);
    }

    #[test]
    fn phases_differ_between_targets_and_servers_and_stay() {
        let labels = Labels::from_pairs([("__address__", "a:1"), ("job", "x")]);
        let hash = target_hash(&labels, "http://a:1/metrics");
        let seed = |host: &str| server_seed(host, &Labels::empty());
        let phase = |hash, host| Grid::new(Duration::from_mins(1), hash, seed(host)).phase_ms;
        assert_eq!(phase(hash, "one"), phase(hash, "one"));
        assert_ne!(phase(hash, "one"), phase(hash, "two"));
        assert_ne!(phase(hash, "one"), phase(target_hash(&labels, "http://a:2/metrics"), "one"));
        // FNV-1a's published test vector.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
