//! Which group each series of a selection belongs to, found once for all queries that group it
//! alike.

use std::sync::Arc;

use crate::model::labels::Labels;
use crate::promql::engine::QueryError;
use crate::storage::select::{BLOCK_SERIES_MAX, Selection};

use super::super::labels::{Groups, Projection};

/// Groups within a block are counted in bytes.
const _: () = assert!(BLOCK_SERIES_MAX <= u8::MAX as usize + 1);

/// The groups of all series of a selection.
pub(super) struct Assigned {
    /// Of each series the group within its block, in order of appearance.
    in_block: Box<[u8]>,
    /// The groups of each block.
    blocks: Box<[Box<[u32]>]>,
    /// Of each group.
    pub(super) labels: Box<[Labels]>,
}

impl Assigned {
    /// Finds them.
    pub(super) fn new(
        selection: &Selection,
        projection: &Projection,
        drop_name: bool,
    ) -> Result<Self, QueryError> {
        let (mut groups, mut labels) = (Groups::default(), Vec::new());
        let mut in_block = Vec::with_capacity(selection.len());
        let mut blocks = Vec::with_capacity(selection.len().div_ceil(BLOCK_SERIES_MAX));
        // Of each group: the last block that has it, and its number there.
        let mut last: Vec<(usize, u8)> = Vec::new();
        for first in (0..selection.len()).step_by(BLOCK_SERIES_MAX) {
            let number = first / BLOCK_SERIES_MAX;
            let mut own: Vec<u32> = Vec::new();
            for at in first..selection.len().min(first + BLOCK_SERIES_MAX) {
                let pairs = selection.pairs(at as u32)?;
                let (group, new) = groups.of(projection, pairs.iter().copied(), drop_name);
                if new {
                    labels.push(projection.of(pairs.iter().copied(), drop_name));
                    last.push((usize::MAX, 0));
                }
                if last[group].0 != number {
                    last[group] = (number, own.len() as u8);
                    own.push(group as u32);
                }
                in_block.push(last[group].1);
            }
            blocks.push(own.into());
        }
        Ok(Self { in_block: in_block.into(), blocks: blocks.into(), labels: labels.into() })
    }

    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|own| 16 + size_of_val(&**own));
        let labels = self.labels.iter().map(|own| size_of_val(own) + own.heap_bytes());
        self.in_block.len() + blocks.sum::<usize>() + labels.sum::<usize>()
    }

    /// Whether they take little beside the series.
    pub(super) fn is_small(&self) -> bool {
        self.labels.len() <= 64 + self.in_block.len() / 8
    }
}

/// No number yet.
const NONE: u32 = u32::MAX;

/// The groups of one block, numbered in the order in which series with values come.
pub(super) struct InBlock {
    pub(super) all: Arc<Assigned>,
    block: usize,
    /// Numbers, by group within the block.
    numbers: Box<[u32]>,
    /// The group among all, by number.
    pub(super) whole: Vec<u32>,
    /// Numbers, by group among all; empty until blocks are merged into this one.
    merged: Vec<u32>,
}

impl InBlock {
    pub(super) fn new(all: Arc<Assigned>, block: usize) -> Self {
        let count = all.blocks.get(block).map_or(0, |own| own.len());
        let numbers = vec![NONE; count].into();
        Self { all, block, numbers, whole: Vec::new(), merged: Vec::new() }
    }

    /// The number of the group of a series of the block, and whether it is new.
    pub(super) fn of(&mut self, position: u32) -> Option<(usize, bool)> {
        let at = self.block * BLOCK_SERIES_MAX + position as usize;
        let in_block = usize::from(*self.all.in_block.get(at)?);
        let number = self.numbers.get_mut(in_block)?;
        if *number != NONE {
            return Some((*number as usize, false));
        }
        *number = self.whole.len() as u32;
        self.whole.push(self.all.blocks[self.block][in_block]);
        Some((*number as usize, true))
    }

    /// The number of a group of another block, and whether it is new.
    pub(super) fn merged_into(&mut self, whole: u32) -> (usize, bool) {
        if self.merged.is_empty() {
            self.merged = vec![NONE; self.all.labels.len()];
            for (number, whole) in (0..).zip(&self.whole) {
                self.merged[*whole as usize] = number;
            }
        }
        let number = &mut self.merged[whole as usize];
        if *number != NONE {
            return (*number as usize, false);
        }
        *number = self.whole.len() as u32;
        self.whole.push(whole);
        (*number as usize, true)
    }
}
