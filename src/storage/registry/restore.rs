//! The registry while a data directory is being opened.

use std::path::Path;

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::checkpoint::{Block, File, Label};
use super::sets::{LabelRef, List};
use super::{Registry, SeriesRef};
use crate::base::pages::reserve_large;
use crate::storage::index::collect::Collector;
use crate::storage::index::postings::HeadIndex;
use crate::storage::select::QueryError;

/// A registry that takes in many series; its index follows when it is asked for.
#[derive(Debug, Default)]
pub struct Restoring {
    registry: Registry,
    collector: Collector,
    lists: Vec<u8>,
    ends: Vec<usize>,
}

/// The label index of the series in a checkpoint.
pub fn index_of(file: &File<'_>) -> Result<HeadIndex, &'static str> {
    let mut names: Vec<&[u8]> = file.labels.iter().map(Label::name).collect();
    names.sort_unstable();
    names.dedup();
    // From 1 on, in the order of the names.
    let rank = |label: &Label<'_>| names.partition_point(|name| *name <= label.name());
    let ranks: Vec<usize> = file.labels.iter().map(rank).collect();
    let (mut index, mut collector) = (HeadIndex::new(), Collector::default());
    let (mut lists, mut ends, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let pair = |label: LabelRef| {
        let label = file.labels[label as usize];
        // Whoever adds the labels to the registry looks at them.
        let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
        (text(label.name()), text(label.value()))
    };
    for block in file.blocks() {
        let block = block?;
        lists.clear();
        ends.clear();
        block.push_lists(&mut lists, &mut ends)?;
        let mut start = 0;
        for ((series, _), end) in block.series()?.into_iter().zip(&ends) {
            let mut last = 0;
            own.clear();
            for label in List::new(&lists[start..*end]) {
                let rank = *ranks.get(label as usize).ok_or("unknown label")?;
                if rank <= last {
                    return Err("labels are out of order");
                }
                last = rank;
                own.push(label);
            }
            collector.add(series, &own);
            start = *end;
        }
        if collector.is_full() {
            collector.flush(pair, &mut index);
        }
    }
    collector.flush(pair, &mut index);
    Ok(index)
}

/// Whether a checkpoint can be read.
pub fn check(path: &Path, bytes: &[u8]) -> Result<(), QueryError> {
    let file = File::open(path, bytes)?;
    file.read_head(&mut |_, _| Ok(()))?;
    let read = || {
        index_of(&file)?;
        let mut restoring = Restoring::default();
        restoring.add_labels(&file.labels)?;
        for block in file.blocks() {
            let block = block?;
            restoring.add_block(&block, &block.series()?)?;
            block.newest_ms()?;
        }
        Ok(())
    };
    read().map_err(|reason| file.damaged(reason))
}

/// Parts of a table that are filled one after the other, because each fits in the cache.
const PARTS: usize = 256;

/// The series in a checkpoint by their fingerprints.
pub fn table_of(file: &File<'_>) -> Result<HashTable<SeriesRef>, &'static str> {
    let hash = |fingerprint: &[u8; 16]| u128::from_le_bytes(*fingerprint) as u64;
    let count = file.blocks().map_while(Result::ok).map(|block| block.fingerprints.len()).sum();
    let mut table = HashTable::with_capacity(count);
    // The lower bits of a hash say where in the table it belongs; one in eight places stays free.
    let bits = (table.capacity() / 7 * 8 / PARTS).max(1).ilog2();
    let part = |hash: u64| (hash >> bits) as usize % PARTS;
    let mut starts = [0; PARTS + 1];
    for block in file.blocks() {
        for fingerprint in block?.fingerprints {
            starts[part(hash(fingerprint)) + 1] += 1;
        }
    }
    for at in 0..PARTS {
        starts[at + 1] += starts[at];
    }
    let mut all = Vec::new();
    reserve_large(&mut all, count);
    all.resize(count, (0, 0));
    for block in file.blocks() {
        let block = block?;
        for ((series, _), fingerprint) in block.series()?.into_iter().zip(block.fingerprints) {
            let hash = hash(fingerprint);
            let at = &mut starts[part(hash)];
            all[*at] = (hash, series);
            *at += 1;
        }
    }
    for (hash, series) in all {
        table.insert_unique(hash, series, |_| unreachable!("there is room for all"));
    }
    Ok(table)
}

impl Restoring {
    /// Gets memory for all numbers below `len`.
    pub fn reserve(&mut self, len: usize) {
        reserve_large(&mut self.registry.fingerprints, len);
        reserve_large(&mut self.registry.spans, len);
        reserve_large(&mut self.registry.successors, len);
    }

    /// Takes the labels of a checkpoint, before any others.
    pub fn add_labels(&mut self, labels: &[Label<'_>]) -> Result<(), &'static str> {
        for (number, label) in labels.iter().enumerate() {
            if self.registry.sets.label(label.text)? as usize != number {
                return Err("label stands twice");
            }
        }
        Ok(())
    }

    /// Takes a block of a checkpoint. Nothing finds its series before
    /// [`Restoring::end_checkpoint`].
    pub fn add_block(
        &mut self,
        block: &Block<'_>,
        series: &[(SeriesRef, bool)],
    ) -> Result<(), &'static str> {
        let Some((last, _)) = series.last() else { return Ok(()) };
        self.make_room(*last);
        self.lists.clear();
        self.ends.clear();
        block.push_lists(&mut self.lists, &mut self.ends)?;
        let registry = &mut self.registry;
        let sets = registry.sets.push_lists(&self.lists, &self.ends);
        for (((series, _), fingerprint), set) in series.iter().zip(block.fingerprints).zip(sets) {
            let own = &mut registry.fingerprints[*series as usize];
            // Zero stands for none.
            if *own != 0 || *fingerprint == [0; 16] {
                return Err("number of a series stands twice, or a fingerprint is damaged");
            }
            *own = u128::from_le_bytes(*fingerprint);
            registry.spans[*series as usize] = set;
        }
        Ok(())
    }

    /// All series of the checkpoint were added; these are their table and their index.
    pub fn end_checkpoint(&mut self, table: HashTable<SeriesRef>, index: HeadIndex) {
        (self.registry.table, self.registry.index) = (table, index);
    }

    /// Binds a number that a log file tells.
    pub fn bind(
        &mut self,
        series: SeriesRef,
        fingerprint: u128,
        canonical: &[u8],
    ) -> Result<(), &'static str> {
        self.make_room(series);
        let registry = &mut self.registry;
        let own = registry.fingerprints[series as usize];
        if own == fingerprint {
            return Ok(());
        }
        registry.sets.read(canonical)?;
        let other = registry.find(fingerprint);
        if own != 0 || other.is_some() {
            // Freed and bound again after the checkpoint: the number, or the labels.
            let Registry { sets, index, .. } = registry;
            self.collector.flush(|label| sets.sets().pair(label), index);
            let outdated = (own != 0).then_some(series).into_iter().chain(other);
            outdated.for_each(|series| registry.unbind(series));
        }
        self.collector.add(series, registry.sets.last_read());
        registry.fingerprints[series as usize] = fingerprint;
        registry.spans[series as usize] = registry.sets.push_last_read();
        registry.add_to_table(series, fingerprint);
        self.flush_full();
        Ok(())
    }

    fn make_room(&mut self, series: SeriesRef) {
        if series as usize >= self.registry.fingerprints.len() {
            self.registry.extend(series);
        }
    }

    fn flush_full(&mut self) {
        if self.collector.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Registry { sets, index, .. } = &mut self.registry;
        self.collector.flush(|label| sets.sets().pair(label), index);
    }

    /// The fingerprint of a bound number; 0 when it is free.
    pub fn fingerprint(&self, series: SeriesRef) -> u128 {
        self.registry.fingerprint(series)
    }

    /// The label index of all series so far.
    pub fn index(&mut self) -> &HeadIndex {
        self.flush();
        &self.registry.index
    }

    /// When everything is read. `named` are the numbers that log files name: they are not free,
    /// even when their definition is lost, because another series would get their samples.
    pub fn finish(mut self, named: &RoaringBitmap) -> Registry {
        self.flush();
        let mut registry = self.registry;
        if let Some(last) = named.max().filter(|last| *last as usize >= registry.bound_max()) {
            registry.extend(last);
        }
        let numbers = (0..registry.bound_max() as SeriesRef).rev();
        let is_free = |series: &SeriesRef| registry.fingerprint(*series) == 0;
        registry.free = numbers.filter(is_free).filter(|series| !named.contains(*series)).collect();
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::{Rng as _, SimRng};
    use crate::model::labels::Labels;
    use crate::storage::append::SeriesKey;
    use crate::storage::fingerprint::{HashKey, push_canonical};

    /// Labels of which some are shared with the series before.
    fn labels(rng: &SimRng) -> Labels {
        let mut pairs = vec![("__name__".to_owned(), format!("m{}", rng.next_u64() % 5))];
        for name in ["a", "b", "c", "d"] {
            if !rng.next_u64().is_multiple_of(3) {
                pairs.push((name.to_owned(), format!("v{}", rng.next_u64() % 40)));
            }
        }
        Labels::from_pairs(pairs)
    }

    #[test]
    fn it_is_as_if_each_series_had_been_bound_by_itself() {
        for seed in 0..200 {
            let rng = SimRng::new(seed);
            let (mut restoring, mut expected) = (Restoring::default(), HeadIndex::new());
            let mut bound: Vec<Option<Labels>> = Vec::new();
            for _ in 0..200 {
                let labels = labels(&rng);
                let series = (rng.next_u64() % 120) as usize;
                bound.resize(bound.len().max(series + 1), None);
                let mut canonical = Vec::new();
                push_canonical(SeriesKey::Labels(&labels), &mut canonical);
                let fingerprint = HashKey(1, 2).fingerprint(&canonical);
                restoring.bind(series as SeriesRef, fingerprint, &canonical).unwrap();
                let same = bound.iter().position(|own| own.as_ref() == Some(&labels));
                for (number, own) in bound.iter_mut().enumerate() {
                    let is_over = same == Some(number) || number == series;
                    if let Some(labels) = own.take_if(|_| is_over) {
                        expected.remove(number as u32, &labels);
                    }
                }
                expected.insert(series as u32, &labels);
                bound[series] = Some(labels);
                if rng.next_u64().is_multiple_of(50) {
                    assert_eq!(restoring.index().stats(9), expected.stats(9), "seed {seed}");
                }
            }
            let registry = restoring.finish(&RoaringBitmap::new());
            for (number, own) in bound.iter().enumerate() {
                assert_eq!(registry.fingerprint(number as u32) != 0, own.is_some());
                for (name, value) in own.iter().flat_map(Labels::iter) {
                    let found = registry.index().label_values(name, Some(&[number as u32].into()));
                    assert_eq!(found, [value], "seed {seed}");
                }
            }
            assert_eq!(registry.index().stats(9), expected.stats(9), "seed {seed}");
        }
    }

    #[test]
    fn damaged_label_sets_are_refused_wherever_they_stand() {
        let good = &b"a\xff1\xffb\xff2\xffd\xff4\xff"[..];
        let bad = [
            &b"a"[..],
            b"a\xff",
            b"a\xff\xff",
            b"b\xff2\xffa\xff1\xff",
            b"a\xff1\xffa\xff1\xff",
            b"a\xff1\xffd\xff4\xffb\xff2\xff",
            b"a\xff1\xffc\xff3\xffb\xff2\xff",
            b"a\xff1\xffb\xff2",
            b"\xc3\xff1\xff",
            b"a\xff\xc3\xff",
        ];
        for bad in bad {
            let mut restoring = Restoring::default();
            assert!(restoring.bind(0, 1, bad).is_err(), "{bad:?}");
            restoring.bind(0, 1, good).unwrap();
            assert!(restoring.bind(1, 2, bad).is_err(), "{bad:?}");
            restoring.bind(1, 2, b"a\xff1\xffc\xff3\xff").unwrap();
            assert_eq!(restoring.finish(&RoaringBitmap::new()).len(), 2);
        }
    }
}
