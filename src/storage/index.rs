//! Label indexes: which series have which labels.
//!
//! [`matchers::select`] evaluates matchers against any [`LabelIndex`]; the head's is
//! [`postings::HeadIndex`], a segment brings its own. An expression is matched against the values
//! of a label, never against series.

pub mod collect;
pub mod dictionary;
pub mod matchers;
pub mod postings;
pub mod union;

use roaring::RoaringBitmap;

/// Series by their labels. Ids are dense small numbers of the implementor's choice.
pub trait LabelIndex {
    /// What can go wrong while looking something up.
    type Error;

    /// Every series.
    fn all(&self) -> Result<RoaringBitmap, Self::Error>;

    /// Adds the series that have the label at all.
    fn add_name(&self, name: &str, into: &mut RoaringBitmap) -> Result<(), Self::Error>;

    /// Adds the series whose label has exactly this value.
    fn add_value(
        &self,
        name: &str,
        value: &str,
        into: &mut RoaringBitmap,
    ) -> Result<(), Self::Error>;

    /// Adds the series whose label has a value that begins with `prefix` and that `accept` takes.
    fn add_values(
        &self,
        name: &str,
        prefix: &str,
        accept: &mut dyn FnMut(&str) -> bool,
        into: &mut RoaringBitmap,
    ) -> Result<(), Self::Error>;
}
