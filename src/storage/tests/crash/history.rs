//! One random history: writers, maintenance, faults and restarts on a simulated machine.

use std::collections::BTreeSet;

use super::super::*;
use super::model::{Commit, Key, Model, State};
use crate::base::rng::Rng as _;
use crate::model::matcher::MatchOp;
use crate::model::metadata::MetricType;
use crate::storage::append::{Append, AppendError, Appended, REJECTED_EXAMPLES_MAX};

/// Series alive at one time; the numbers move on with churn.
const SERIES: usize = 24;
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Space that no history fills.
const PLENTY_BYTES: u64 = 1 << 40;

/// A batch that was staged but not committed.
struct Staged {
    batch: Box<dyn Append>,
    content: Commit,
    is_strict: bool,
    on_reject: OnReject,
}

/// See the module's text.
pub struct History {
    rng: SimRng,
    machine: Machine,
    storage: Option<Arc<Storage>>,
    model: Model,
    /// First series that is alive.
    first: usize,
    is_full: bool,
    /// The newest snapshot.
    snapshot: Option<Snapshot>,
}

/// A copy of the store, and what it must hold.
struct Snapshot {
    path: PathBuf,
    expected: State,
    /// Retention may have dropped what is older.
    least_ms: i64,
}

fn series_labels(number: usize) -> Labels {
    labels(["m", "n", "up"][number % 3], number)
}

impl History {
    /// The beginning of the history that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let rng = SimRng::new(seed ^ 0x5eed);
        let window_ms = [0, 600_000, 7_200_000][rng.next_u64() as usize % 3];
        let mut machine = Machine::new(seed).window(window_ms);
        machine.options.log_file_bytes_max = 2_000 + rng.next_u64() % 8_000;
        let storage = Some(machine.open());
        let model = Model::default();
        Self { rng, machine, storage, model, first: 0, is_full: false, snapshot: None }
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().expect("the store is open between steps")
    }

    /// Repeats often, and is every kind of float.
    fn bits(&self) -> u64 {
        match self.below(14) {
            12 | 13 => histogram(self.below(40)).to_bits(),
            0 => STALE_BITS,
            1 => self.rng.next_u64(),
            2 => f64::NAN.to_bits() | self.below(1 << 20),
            3 => (-0.0_f64).to_bits(),
            4 => (self.below(100_000) as f64 / 100.0).to_bits(),
            _ => (self.below(3) as f64).to_bits(),
        }
    }

    /// Samples of one batch, in the order in which they are staged.
    fn samples(&self) -> Vec<(Key, u64)> {
        let now_ms = self.machine.clock.now_ms();
        let alive = |offset: u64| self.first + offset as usize % SERIES;
        let mut samples = Vec::new();
        // Scrapes: series side by side with one timestamp, some of them without gaps.
        for _ in 0..[0, 1, 1, 2][self.below(4) as usize] {
            let (start, count) = (self.below(SERIES as u64), self.below(20));
            let gaps = self.below(2) == 0;
            let delta_ms = if self.below(6) == 0 { self.below(30_000) as i64 } else { 0 };
            let same = (self.below(4) == 0).then(|| self.bits());
            for offset in (start..start + count).filter(|_| !gaps || self.below(5) > 0) {
                let bits = same.unwrap_or_else(|| self.bits());
                samples.push(((alive(offset), now_ms - delta_ms), bits));
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
            samples.push(((alive(self.below(SERIES as u64)), now_ms + delta_ms), self.bits()));
        }
        if self.below(8) == 0 && !samples.is_empty() {
            let again = samples[self.below(samples.len() as u64) as usize];
            samples.push(if self.below(2) == 0 { again } else { (again.0, self.bits()) });
        }
        samples
    }

    fn metadata(&self) -> Vec<(String, Metadata)> {
        let count = if self.below(6) == 0 { 1 + self.below(2) } else { 0 };
        let one = |_| {
            let help = "help ".repeat(self.below(4) as usize);
            let metric_type = [MetricType::Counter, MetricType::Gauge][self.below(2) as usize];
            let metadata = Metadata { metric_type, help, unit: String::new() };
            (["m", "n", "up"][self.below(3) as usize].to_owned(), metadata)
        };
        (0..count).map(one).collect()
    }

    fn stage(&self) -> Staged {
        let on_reject = if self.below(4) == 0 { OnReject::Abort } else { OnReject::Skip };
        let mut batch = self.storage().appender(on_reject);
        let mut content = Commit { samples: self.samples(), metadata: self.metadata() };
        let is_strict = self.below(8) == 0;
        batch.reject_out_of_order(is_strict);
        for (metric, metadata) in &content.metadata {
            batch.metadata(metric, metadata);
        }
        // What is known already when it is staged is no news, whoever commits in between.
        let known = &self.model.now().metadata;
        content.metadata.retain(|(metric, own)| known.get(metric) != Some(own));
        let as_pairs = self.below(2) == 0;
        for ((series, timestamp_ms), bits) in &content.samples {
            let labels = series_labels(*series);
            let pairs: Vec<_> = labels.iter().collect();
            let key = if as_pairs { SeriesKey::Pairs(&pairs) } else { SeriesKey::Labels(&labels) };
            stage(&mut *batch, key, *timestamp_ms, *bits);
        }
        Staged { batch, content, is_strict, on_reject }
    }

    /// Several writers stage side by side and commit in any order.
    fn append(&mut self) {
        let count = [1, 1, 1, 2, 3][self.below(5) as usize];
        let mut staged: Vec<Staged> = (0..count).map(|_| self.stage()).collect();
        while !staged.is_empty() {
            let next = staged.swap_remove(self.below(staged.len() as u64) as usize);
            self.commit(next);
            if self.below(12) == 0 {
                self.maintain();
            }
        }
    }

    fn commit(&mut self, staged: Staged) {
        let Staged { batch, content, is_strict, on_reject } = staged;
        self.model.submit(&content.samples);
        let was_poisoned = self.storage().is_poisoned();
        let before = self.model.now().clone();
        let (appended, ticket) = match batch.commit() {
            Ok(done) => done,
            Err(AppendError::Io(_)) => {
                assert!(!was_poisoned && self.storage().is_poisoned());
                self.model.commit_failed(content);
                return;
            }
            Err(AppendError::DiskFull) => {
                assert!(self.is_full, "there is space");
                return;
            }
            Err(AppendError::Poisoned) => {
                assert!(was_poisoned);
                return;
            }
            Err(AppendError::Rejected(_)) => {
                assert_eq!(on_reject, OnReject::Abort);
                return;
            }
        };
        assert!(!was_poisoned);
        let commit = self.accepted(content, &appended, &before);
        if is_strict {
            let late = |own: &&(Key, u64)| {
                let newer = (own.0.0, own.0.1 + 1)..(own.0.0 + 1, i64::MIN);
                !before.samples.contains_key(&own.0) && before.samples.range(newer).next().is_some()
            };
            let late = commit.samples.iter().find(late);
            assert_eq!(late, None, "taken although out-of-order data was not wanted");
        }
        self.model.commit(commit);
        if self.below(3) == 0 {
            self.storage().store.sync_once();
            if ticket.wait().is_ok() {
                self.model.acknowledge();
            }
        }
    }

    /// What the store took of a batch, by its own words or, where they do not say it all, by what
    /// can be read.
    fn accepted(&self, mut content: Commit, appended: &Appended, before: &State) -> Commit {
        let refused: BTreeSet<Key> = appended
            .rejected_examples
            .iter()
            .map(|own| (own.labels.get("i").unwrap().parse().unwrap(), own.timestamp_ms))
            .collect();
        let mut seen = BTreeSet::new();
        let twice = content.samples.iter().any(|own| !seen.insert(own.0));
        if (twice && !refused.is_empty()) || REJECTED_EXAMPLES_MAX <= refused.len() {
            let found = self.found(&all(self.storage())).unwrap();
            content.samples.retain(|(key, bits)| {
                !before.samples.contains_key(key) && found.samples.get(key) == Some(bits)
            });
            return content;
        }
        content.samples.retain(|own| !refused.contains(&own.0));
        assert_eq!(content.samples.len() as u64, appended.sample_count);
        content
    }

    fn found(&self, selection: &Selection) -> Result<State, QueryError> {
        Self::found_in(self.storage(), selection)
    }

    fn found_in(storage: &Storage, selection: &Selection) -> Result<State, QueryError> {
        let mut state = State::default();
        for (labels, samples) in try_read(selection)? {
            let number: usize = labels.get("i").unwrap().parse().unwrap();
            assert_eq!(labels, series_labels(number));
            state.samples.extend(samples.into_iter().map(|(ms, bits)| ((number, ms), bits)));
        }
        state.metadata = storage.metadata(None).into_iter().collect();
        Ok(state)
    }

    fn check(&self) {
        let found = self.found(&all(self.storage())).unwrap();
        let expected = self.model.now();
        let samples = self.model.retained(found.samples);
        let expected_samples = self.model.retained(expected.samples.clone());
        let wrong = |own: &(&Key, &u64)| expected_samples.get(own.0) != Some(own.1);
        assert_eq!(samples.iter().find(wrong), None, "found, but should not be");
        let missing = expected_samples.keys().find(|key| !samples.contains_key(*key));
        assert_eq!(missing, None, "should be found");
        // A failed write may leave its metadata known until the restart.
        if !self.storage().is_poisoned() {
            assert_eq!(found.metadata, expected.metadata);
        }
        self.check_part();
    }

    /// A part by matcher and time.
    fn check_part(&self) {
        let pattern = ["[1-3].*", ".*[05]", ".+", ""][self.below(4) as usize];
        let op = [MatchOp::Regex, MatchOp::NotRegex][self.below(2) as usize];
        let name = ["m", "n", "up"][self.below(3) as usize];
        let matchers = [Matcher::equal("__name__", name), Matcher::new(op, "i", pattern).unwrap()];
        let min_ms = self.machine.clock.now_ms() - self.below(4_000_000) as i64;
        let range = TimeRange { min_ms, max_ms: min_ms + self.below(3_000_000) as i64 };
        let selection = self.storage().select(&matchers, range, &SelectHints::default()).unwrap();
        let found = self.found(&selection).unwrap();
        let mut expected = self.model.now().samples.clone();
        expected.retain(|(series, ms), _| {
            let labels = series_labels(*series);
            let fits = |own: &Matcher| own.matches(labels.get(own.name()).unwrap_or(""));
            range.contains(*ms) && matchers.iter().all(fits)
        });
        let expected = self.model.retained(expected);
        assert_eq!(self.model.retained(found.samples), expected, "{matchers:?} {range:?}");
        let values = self.storage().label_values("i", &[matchers.to_vec()], range).unwrap();
        let known: BTreeSet<String> = values.into_iter().collect();
        for (series, _) in expected.keys() {
            assert!(known.contains(&series.to_string()), "label value of {series}");
        }
    }

    /// Seals, drops, moves on.
    fn maintain(&mut self) {
        match self.below(4) {
            0 => drop(self.storage().seal_now()),
            1 => drop(self.storage().compact_now()),
            2 => drop(self.storage().clean_tombstones()),
            _ => {
                self.model.retain(3_600_000 + self.below(10_000_000) as i64);
                let retention = Retention::of_time_ms(self.model.retention_ms());
                self.storage().set_retention(retention);
                drop(self.storage().store.apply_retention());
            }
        }
    }

    /// Deletes a part of the samples of some series.
    fn delete(&mut self) {
        let start = self.first + self.below(SERIES as u64) as usize;
        let series = start..start + 1 + self.below(5) as usize;
        let numbers: Vec<_> = series.clone().map(|number| number.to_string()).collect();
        let matchers = vec![Matcher::new(MatchOp::Regex, "i", &numbers.join("|")).unwrap()];
        let now_ms = self.machine.clock.now_ms();
        let range = match self.below(3) {
            0 => TimeRange::ALL,
            1 => TimeRange { min_ms: now_ms - self.below(60_000) as i64, max_ms: i64::MAX },
            _ => {
                let min_ms = now_ms - self.below(4_000_000) as i64;
                TimeRange { min_ms, max_ms: min_ms + self.below(3_000_000) as i64 }
            }
        };
        match self.storage().delete_series(&[matchers], range) {
            Ok(()) => {
                // What came before was synced when its log file was closed.
                self.model.acknowledge();
                self.model.delete(series, range, true);
            }
            Err(SealError::Io(_)) => self.model.delete(series, range, false),
            Err(SealError::Poisoned) => {}
            Err(err) => assert!(self.is_full, "there is space: {err}"),
        }
    }

    /// Makes a snapshot, of which nothing that happens later may change anything.
    fn take_snapshot(&mut self) {
        match self.storage().snapshot(true) {
            Ok(name) => {
                // All of it was sealed before.
                self.model.acknowledge();
                let path = self.machine.options.path.join("snapshots").join(name);
                let (expected, least_ms) = (self.model.now().clone(), self.model.least_ms());
                self.snapshot = Some(Snapshot { path, expected, least_ms });
            }
            Err(SealError::Io(_) | SealError::Read(_) | SealError::Poisoned) => {}
            Err(err) => assert!(self.is_full, "there is space: {err}"),
        }
    }

    /// The newest snapshot is a store that holds what the original held at its moment.
    fn check_snapshot(&self) {
        let Some(Snapshot { path, expected, least_ms }) = &self.snapshot else { return };
        let options = Options { path: path.clone(), ..self.machine.options.clone() };
        let (disk, clock) = (Arc::new(self.machine.disk.clone()), self.machine.clock.clone());
        let registry = Registry::new();
        let copy = Storage::open_quiet(disk, clock, &SimRng::new(7), &registry, options).unwrap();
        let mut found = Self::found_in(&copy, &all(&copy)).unwrap();
        let mut expected = expected.clone();
        for own in [&mut found, &mut expected] {
            own.samples.retain(|(_, timestamp_ms), _| least_ms <= timestamp_ms);
        }
        assert_eq!(found, expected, "snapshot");
    }

    /// One step.
    pub fn step(&mut self) {
        match self.below(51) {
            0..20 => self.append(),
            20..27 => self.machine.clock.advance_ms(self.below(60_000) as i64),
            27 => self.machine.clock.advance_ms(-(self.below(20_000) as i64)),
            28 => self.machine.clock.advance_ms(self.below(5_000_000) as i64),
            29 => self.first += self.below(SERIES as u64) as usize,
            30..35 => self.maintain(),
            35 => self.restart(),
            36 => self.kill(),
            37 => self.machine.disk.fail_after(Some(self.below(30))),
            38 => self.machine.disk.fail_once_after(self.below(30)),
            39 => {
                self.is_full = true;
                self.machine.disk.set_free_bytes(self.below(20_000));
            }
            40 | 41 => self.free_space(),
            42..46 => self.check(),
            46 | 47 => self.delete(),
            48 => self.take_snapshot(),
            _ => self.crash(),
        }
    }

    fn free_space(&mut self) {
        self.is_full = false;
        self.machine.disk.set_free_bytes(PLENTY_BYTES);
    }

    /// A clean end, unless the store has failed before: then the machine goes too.
    fn restart(&mut self) {
        self.machine.disk.fail_after(None);
        let is_poisoned = self.storage().is_poisoned();
        drop(self.storage.take());
        if is_poisoned {
            self.machine.disk.crash();
        } else {
            self.model.acknowledge();
        }
        self.open_and_check(false);
    }

    /// The program dies, the machine does not: everything that was written is there.
    fn kill(&mut self) {
        let everything = !self.storage().is_poisoned();
        self.machine.disk.kill();
        drop(self.storage.take());
        self.open_and_check(everything);
    }

    fn crash(&mut self) {
        self.machine.disk.crash();
        drop(self.storage.take());
        self.open_and_check(false);
    }

    fn open_and_check(&mut self, mut everything: bool) {
        while self.below(3) == 0 {
            match self.below(3) {
                0 => self.machine.disk.fail_once_after(self.below(12)),
                1 => self.machine.disk.fail_after(Some(self.below(12))),
                _ => self.machine.disk.set_free_bytes(self.below(5_000)),
            }
            drop(self.machine.try_open());
            if self.below(2) == 0 {
                self.machine.disk.crash();
                everything = false;
            } else {
                self.machine.disk.kill();
            }
        }
        self.free_space();
        self.storage = Some(self.machine.open());
        let found = self.found(&all(self.storage())).unwrap();
        let recovered = self.model.recovered(&found, everything);
        assert_eq!(recovered, Ok(()));
        self.check();
        self.check_snapshot();
    }

    /// The last step: bits flip. Whatever can be read then was handed in once.
    pub fn end_with_damage(mut self) {
        self.machine.disk.fail_after(None);
        drop(self.storage.take());
        self.machine.disk.kill();
        let paths = self.machine.disk.paths();
        if self.below(3) == 0 {
            self.machine.disk.flip_reads(1 + self.below(8));
        } else {
            for _ in 0..=self.below(3) {
                let path = &paths[self.below(paths.len() as u64) as usize];
                let bytes = self.machine.disk.len(path).unwrap().max(1);
                let (at, bit) = (self.below(bytes) as usize, self.below(8) as u8);
                self.machine.disk.flip_bit(path, at, bit);
            }
        }
        let Ok(storage) = self.machine.try_open() else { return };
        self.storage = Some(storage);
        let found = self.storage().select(&[], TimeRange::ALL, &SelectHints::default());
        let Ok(found) = found.and_then(|selection| try_read(&selection)) else { return };
        for (labels, samples) in found {
            let number: usize = labels.get("i").unwrap().parse().unwrap();
            assert_eq!(labels, series_labels(number));
            for (ms, bits) in samples {
                assert!(self.model.was_submitted(&(number, ms), bits), "invented {number} at {ms}");
            }
        }
    }
}
