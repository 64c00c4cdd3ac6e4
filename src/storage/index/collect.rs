//! Many series for the head's index at once, as a restart brings them.
//!
//! Series that follow each other share most of their labels. A label that stands where it stood in
//! the series before is found by one comparison, another one by its hash; each remembers the series
//! that have it, and all of them go into the index together.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use memchr::memchr;

use super::postings::HeadIndex;
use crate::storage::fingerprint::END;

/// So many series are collected before the index takes them.
const SERIES_MAX: usize = 64 << 10;
/// So many labels are remembered from one round to the next.
const LABELS_MAX: usize = 256 << 10;

/// Series that the index does not know yet.
#[derive(Debug, Default)]
pub struct Collector {
    labels: Vec<Label>,
    /// Numbers of labels by their text.
    by_text: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// Labels that have series.
    touched: Vec<u32>,
    series: Vec<u32>,
    /// Labels of the series before, and of this one.
    last: Vec<u32>,
    own: Vec<u32>,
}

/// A name with a value.
#[derive(Debug)]
struct Label {
    /// In canonical form: name, 0xFF, value, 0xFF.
    text: Box<[u8]>,
    name_bytes: usize,
    series: Vec<u32>,
}

impl Label {
    fn name(&self) -> &[u8] {
        &self.text[..self.name_bytes]
    }

    /// Name and value, which [`Collector::number`] found to be texts.
    fn pair(&self) -> (&str, &str) {
        let value = &self.text[self.name_bytes + 1..self.text.len() - 1];
        let text = |bytes| std::str::from_utf8(bytes).expect("looked at when it was new");
        (text(self.name()), text(value))
    }
}

impl Collector {
    /// Adds a series by its labels in canonical form. Its number must be in neither the index nor
    /// the collector.
    pub fn add(&mut self, series: u32, canonical: &[u8]) -> Result<(), &'static str> {
        let (mut rest, mut at) = (canonical, 0);
        self.own.clear();
        while !rest.is_empty() {
            // What stands at `at` comes after the own labels so far in the order of names.
            let guess = self.last.get(at).copied();
            let guess = guess.filter(|own| rest.starts_with(&self.labels[*own as usize].text));
            let number = if let Some(number) = guess {
                at += 1;
                number
            } else {
                let number = self.number(rest)?;
                let name_of = |number: u32| self.labels[number as usize].name();
                let name = name_of(number);
                if self.own.last().is_some_and(|before| name <= name_of(*before)) {
                    return Err("label set is damaged");
                }
                while self.last.get(at).is_some_and(|other| name_of(*other) <= name) {
                    at += 1;
                }
                number
            };
            rest = &rest[self.labels[number as usize].text.len()..];
            self.own.push(number);
        }
        for number in &self.own {
            let label = &mut self.labels[*number as usize];
            if label.series.is_empty() {
                self.touched.push(*number);
            }
            label.series.push(series);
        }
        std::mem::swap(&mut self.last, &mut self.own);
        self.series.push(series);
        Ok(())
    }

    /// The number of the label at the beginning of `text`.
    fn number(&mut self, text: &[u8]) -> Result<u32, &'static str> {
        let end_of = |text: &[u8]| memchr(END, text).ok_or("label set is damaged");
        let name_bytes = end_of(text)?;
        let value = &text[name_bytes + 1..];
        let value = &value[..end_of(value)?];
        let text = &text[..name_bytes + value.len() + 2];
        let hash = self.hasher.hash_one(text);
        let labels = &self.labels;
        let is_same = |own: &u32| *labels[*own as usize].text == *text;
        if let Some(number) = self.by_text.find(hash, is_same) {
            return Ok(*number);
        }
        let name = &text[..name_bytes];
        if value.is_empty() || [name, value].iter().any(|text| std::str::from_utf8(text).is_err()) {
            return Err("label set is damaged");
        }
        let number = self.labels.len() as u32;
        self.labels.push(Label { text: text.into(), name_bytes, series: Vec::new() });
        let (labels, hasher) = (&self.labels, &self.hasher);
        let hash_of = |own: &u32| hasher.hash_one(&*labels[*own as usize].text);
        self.by_text.insert_unique(hash, number, hash_of);
        Ok(number)
    }

    /// Whether it is time to [`Collector::flush`].
    pub fn is_full(&self) -> bool {
        SERIES_MAX <= self.series.len()
    }

    /// Gives the series to the index.
    pub fn flush(&mut self, index: &mut HeadIndex) {
        self.series.sort_unstable();
        index.insert_many(&self.series);
        self.series.clear();
        let labels = &mut self.labels;
        self.touched
            .sort_unstable_by(|a, b| labels[*a as usize].text.cmp(&labels[*b as usize].text));
        for number in &self.touched {
            let series = &mut labels[*number as usize].series;
            if !series.is_sorted() {
                series.sort_unstable();
            }
        }
        let name_of = |number: &u32| labels[*number as usize].name();
        for numbers in self.touched.chunk_by(|a, b| name_of(a) == name_of(b)) {
            let pairs = numbers.iter().map(|number| &labels[*number as usize]);
            let pairs = pairs.map(|label| (label.pair(), &*label.series));
            let name = labels[numbers[0] as usize].pair().0;
            index.insert_label(name, pairs.map(|((_, value), series)| (value, series)));
        }
        for number in self.touched.drain(..) {
            labels[number as usize].series.clear();
        }
        if LABELS_MAX < self.labels.len() {
            *self = Self::default();
        }
    }
}
