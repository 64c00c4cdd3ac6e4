//! Random histories on a disk that fails, loses and tears, against a model.
//!
//! After each crash the store must hold exactly the first `k` commits, for a `k` that is not below
//! the last commit whose ticket was settled: nothing acknowledged is lost, nothing is invented,
//! and no commit is seen in part.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::rng::Rng as _;

/// Histories of an ordinary test run. `SIM_SEED` runs one, `SIM_SEEDS` so many.
const SEEDS: u64 = 100;
const STEPS: usize = 60;
const SERIES: usize = 14;

type Key = (usize, i64);
type Commit = Vec<(Key, u64)>;
type Samples = BTreeMap<Key, u64>;

struct History {
    rng: SimRng,
    machine: Machine,
    storage: Option<Arc<Storage>>,
    commits: Vec<Commit>,
    /// Commits that are known to be durable.
    acknowledged: usize,
    newest_ms: i64,
    retention_ms: Option<i64>,
}

impl History {
    fn new(seed: u64) -> Self {
        let rng = SimRng::new(seed ^ 0x5eed);
        let window_ms = [0, 600_000, 7_200_000][rng.next_u64() as usize % 3];
        let mut machine = Machine::new(seed).window(window_ms);
        machine.options.log_file_bytes_max = 2_000 + rng.next_u64() % 6_000;
        let storage = Some(machine.open());
        let (commits, acknowledged) = (Vec::new(), 0);
        Self {
            rng,
            machine,
            storage,
            commits,
            acknowledged,
            newest_ms: i64::MIN,
            retention_ms: None,
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    /// The samples of the first commits, where the first value counts.
    fn state(&self, commits: usize) -> Samples {
        let mut state = Samples::new();
        self.commits[..commits].iter().for_each(|commit| apply(&mut state, commit));
        self.retain(state)
    }

    /// Without what retention may have dropped.
    fn retain(&self, mut state: Samples) -> Samples {
        let least_ms = self.retention_ms.map_or(i64::MIN, |own| self.newest_ms.saturating_sub(own));
        state.retain(|(_, timestamp_ms), _| *timestamp_ms >= least_ms);
        state
    }

    fn found(&self) -> Samples {
        let mut found = Samples::new();
        for (labels, samples) in read(&all(self.storage())) {
            let number: usize = labels.get("i").unwrap().parse().unwrap();
            found.extend(samples.into_iter().map(|(ms, bits)| ((number, ms), bits)));
        }
        self.retain(found)
    }

    fn append(&mut self) {
        let now_ms = self.machine.clock.now_ms();
        let mut batch: BTreeMap<Key, u64> = BTreeMap::new();
        // A scrape: series side by side with one timestamp.
        if self.below(3) > 0 {
            let (start, count) = (self.below(SERIES as u64) as usize, self.below(7) as usize);
            for series in start..(start + count).min(SERIES) {
                batch.insert((series, now_ms), self.below(3));
            }
        }
        // Samples of any series at any time: late, doubled, too old, too new.
        for _ in 0..self.below(4) {
            let delta_ms = match self.below(4) {
                0 => 0,
                1 => -(self.below(20) as i64) * 1_000,
                2 => -(self.below(4_000) as i64) * 1_000,
                _ => self.below(900) as i64 * 1_000 - 100_000,
            };
            batch.insert((self.below(SERIES as u64) as usize, now_ms + delta_ms), self.below(3));
        }
        let on_reject = if self.below(4) == 0 { OnReject::Abort } else { OnReject::Skip };
        let samples: Vec<_> = batch
            .iter()
            .map(|((series, ms), bits)| (labels("m", *series), *ms, f64::from_bits(*bits)))
            .collect();
        let Ok((appended, ticket)) = try_append(self.storage(), on_reject, &samples) else {
            return;
        };
        let refused: BTreeSet<(String, i64)> = appended
            .rejected_examples
            .iter()
            .map(|own| (own.labels.get("i").unwrap().to_owned(), own.timestamp_ms))
            .collect();
        assert!(refused.len() < append::REJECTED_EXAMPLES_MAX);
        batch.retain(|(series, ms), _| !refused.contains(&(series.to_string(), *ms)));
        assert_eq!(batch.len() as u64, appended.sample_count);
        self.newest_ms = batch.keys().map(|key| key.1).fold(self.newest_ms, i64::max);
        self.commits.push(batch.into_iter().collect());
        if self.below(3) == 0 {
            self.storage().store.sync_once();
            if ticket.wait().is_ok() {
                self.acknowledged = self.commits.len();
            }
        }
    }

    fn step(&mut self) {
        match self.below(40) {
            0..20 => self.append(),
            20..28 => self.machine.clock.advance_ms(self.below(60_000) as i64),
            28 => self.machine.clock.advance_ms(self.below(5_000_000) as i64),
            29..32 => drop(self.storage().seal_now()),
            32 => drop(self.storage().store.seal_closed()),
            33 => {
                let retention_ms = 3_600_000 + self.below(10_000_000) as i64;
                // What a shorter one dropped is gone.
                let shortest = self.retention_ms.unwrap_or(i64::MAX).min(retention_ms);
                self.retention_ms = Some(shortest);
                self.storage().set_retention_ms(self.retention_ms);
                drop(self.storage().store.apply_retention());
            }
            34 => self.restart(),
            35 => self.machine.disk.fail_after(Some(self.below(30))),
            36..39 => assert_eq!(self.found(), self.state(self.commits.len())),
            _ => self.crash(),
        }
    }

    fn restart(&mut self) {
        self.machine.disk.fail_after(None);
        let is_poisoned = self.storage().is_poisoned();
        drop(self.storage.take());
        if is_poisoned {
            self.machine.disk.crash();
        } else {
            self.acknowledged = self.commits.len();
        }
        self.open_and_check();
    }

    fn crash(&mut self) {
        self.machine.disk.crash();
        drop(self.storage.take());
        self.open_and_check();
    }

    fn open_and_check(&mut self) {
        while self.below(3) == 0 {
            self.machine.disk.fail_after(Some(self.below(12)));
            drop(self.machine.try_open());
            self.machine.disk.crash();
        }
        self.storage = Some(self.machine.open());
        let found = self.found();
        let mut state = self.state(self.acknowledged);
        let mut kept = self.acknowledged;
        while self.retain(state.clone()) != found {
            let lost = state.iter().find(|(key, bits)| found.get(key) != Some(bits));
            assert!(kept < self.commits.len(), "lost or invented: {lost:?}");
            apply(&mut state, &self.commits[kept]);
            kept += 1;
        }
        self.commits.truncate(kept);
        self.acknowledged = kept;
    }
}

fn apply(state: &mut Samples, commit: &Commit) {
    for (key, bits) in commit {
        state.entry(*key).or_insert(*bits);
    }
}

fn run(seed: u64) {
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.crash();
    history.restart();
}

#[test]
fn what_is_acknowledged_is_found_and_what_is_found_was_submitted() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A series without samples was forgotten by the index but known to the successor of another, and
/// so got a second number beside the first.
#[test]
fn a_forgotten_series_comes_back_under_its_own_number() {
    run(1071);
}
