//! Parts of allocations that are shared.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// Neighbouring values of a shared allocation: a clone or a part of it copies no value.
#[derive(Clone, Debug)]
pub struct Slice<T> {
    owner: Arc<Vec<T>>,
    start: u32,
    end: u32,
}

impl<T> Slice<T> {
    /// A part of an allocation. Panics when it is beyond the end.
    pub fn new(owner: Arc<Vec<T>>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= owner.len(), "a part of the values");
        assert!(u32::try_from(range.end).is_ok(), "no column is so long");
        Self { owner, start: range.start as u32, end: range.end as u32 }
    }

    /// The values alone: not copied when nobody else holds them.
    pub fn into_vec(self) -> Vec<T>
    where
        T: Copy,
    {
        let (start, end) = (self.start as usize, self.end as usize);
        match Arc::try_unwrap(self.owner) {
            Ok(mut own) => {
                own.truncate(end);
                own.drain(..start);
                own
            }
            Err(shared) => shared[start..end].to_vec(),
        }
    }

    /// A part of this. Panics when it is beyond the end.
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of the values");
        let (start, end) = (self.start + range.start as u32, self.start + range.end as u32);
        Self { owner: Arc::clone(&self.owner), start, end }
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.owner[self.start as usize..self.end as usize]
    }
}

impl<T> Default for Slice<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> From<Vec<T>> for Slice<T> {
    fn from(values: Vec<T>) -> Self {
        let len = values.len();
        Self::new(Arc::new(values), 0..len)
    }
}

impl<T> FromIterator<T> for Slice<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_parts_of_the_same_values() {
        let all: Slice<i32> = (0..10).collect();
        let part = all.part(2..8);
        assert_eq!(*part, [2, 3, 4, 5, 6, 7]);
        assert_eq!(*part.part(1..3), [3, 4]);
        assert!(part.part(6..6).is_empty());
        assert!(Arc::ptr_eq(&all.owner, &part.owner));
        assert_eq!(part.part(1..3).into_vec(), [3, 4]);
        drop((all, part.clone()));
        assert_eq!(part.into_vec(), [2, 3, 4, 5, 6, 7]);
    }
}
