//! The registry while a data directory is being opened.

use roaring::RoaringBitmap;

use super::sets::LabelRef;
use super::{Registry, SeriesRef};
use crate::storage::index::collect::Collector;
use crate::storage::index::postings::HeadIndex;

/// A registry that takes in many series; its index follows when it is asked for.
#[derive(Debug, Default)]
pub struct Restoring {
    registry: Registry,
    collector: Collector,
    /// Labels by their numbers in the checkpoint.
    labels: Vec<LabelRef>,
    own: Vec<LabelRef>,
}

impl Restoring {
    /// Takes the next label of the checkpoint, in canonical form.
    pub fn add_label(&mut self, text: &[u8]) -> Result<(), &'static str> {
        self.labels.push(self.registry.sets.label(text)?);
        Ok(())
    }

    /// Takes a series of the checkpoint, by the numbers of its labels there. Nothing finds it by
    /// its fingerprint before [`Restoring::end_checkpoint`].
    pub fn add(
        &mut self,
        series: SeriesRef,
        fingerprint: u128,
        labels: &[u32],
    ) -> Result<(), &'static str> {
        self.make_room(series);
        let registry = &mut self.registry;
        if registry.fingerprints[series as usize] != 0 {
            return Err("number of a series stands twice");
        }
        self.own.clear();
        for label in labels {
            self.own.push(*self.labels.get(*label as usize).ok_or("unknown label")?);
        }
        registry.fingerprints[series as usize] = fingerprint;
        registry.spans[series as usize] = registry.sets.push(&self.own);
        self.collector.add(series, &self.own);
        self.flush_full();
        Ok(())
    }

    /// All series of the checkpoint were added.
    pub fn end_checkpoint(&mut self) {
        self.labels = Vec::new();
        self.registry.fill_table();
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
            self.collector.flush(registry.sets.sets(), &mut registry.index);
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
            self.collector.flush(self.registry.sets.sets(), &mut self.registry.index);
        }
    }

    /// The fingerprint of a bound number; 0 when it is free.
    pub fn fingerprint(&self, series: SeriesRef) -> u128 {
        self.registry.fingerprint(series)
    }

    /// The label index of all series so far.
    pub fn index(&mut self) -> &HeadIndex {
        self.collector.flush(self.registry.sets.sets(), &mut self.registry.index);
        &self.registry.index
    }

    /// When everything is read. `named` are the numbers that log files name: they are not free,
    /// even when their definition is lost, because another series would get their samples.
    pub fn finish(mut self, named: &RoaringBitmap) -> Registry {
        self.collector.flush(self.registry.sets.sets(), &mut self.registry.index);
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
