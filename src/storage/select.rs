//! The reading face of the store: series first, then samples in blocks of columns.
//!
//! A [`Selection`] fixes what the whole query sees. Memory is bounded by the blocks in flight.

mod slice;

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::model::histogram::Histogram;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::metadata::Metadata;
use crate::model::sample::TimeRange;
pub use slice::Slice;

/// Position of a series within one selection, in label order.
pub type QueryOrdinal = u32;

/// Series that one [`Selection::block`] may hold.
pub const BLOCK_SERIES_MAX: usize = 256;

/// What the reader will do with the samples, so that the store can skip work. All optional.
#[derive(Clone, Debug, Default)]
pub struct SelectHints {
    /// Stop after this many series; 0: all.
    pub series_count_max: usize,
    /// Only labels are wanted; no block will be pulled.
    pub labels_only: bool,
}

/// Why a query got no answer from the store.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A file could not be read.
    #[error("read samples: {0}")]
    Io(#[from] std::io::Error),
    /// Bytes on disk are not what was written.
    #[error("{}: corrupt data at byte {offset_bytes}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: std::path::PathBuf,
        /// Where in it.
        offset_bytes: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A store that answers queries. Every method may block on the disk.
pub trait Select: Send + Sync + 'static {
    /// Series that fulfil all matchers and may have samples in the range, in label order.
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
    ) -> Result<Selection, QueryError>;

    /// Sorted label names of the series that fulfil any of the matcher sets (no set: all series).
    fn label_names(
        &self,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError>;

    /// Sorted values of one label, likewise.
    fn label_values(
        &self,
        name: &str,
        sets: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<String>, QueryError>;

    /// Known metadata by metric name, sorted; of one metric or of all.
    fn metadata(&self, metric: Option<&str>) -> Vec<(String, Metadata)>;
}

/// Labels of one series, in order of names.
pub type Pairs<'a> = SmallVec<[(&'a str, &'a str); 16]>;

/// Where a selection gets its series from. Neither labels nor samples are held for all of them.
pub trait BlockSource: Send + Sync {
    /// The labels of a series, metric name included.
    fn pairs(&self, ordinal: QueryOrdinal) -> Result<Pairs<'_>, QueryError>;

    /// See [`Selection::block_labels`].
    fn block_labels(&self, first: QueryOrdinal, count: usize) -> Result<Arc<[Labels]>, QueryError> {
        let ordinals = first..first + count as u32;
        ordinals.map(|ordinal| Ok(Labels::from_sorted(self.pairs(ordinal)?))).collect()
    }

    /// The samples of `count` series from `first` on, within the range the selection was made for.
    fn block(&self, first: QueryOrdinal, count: usize) -> Result<ColumnBlock, QueryError>;

    /// See [`Selection::stride`].
    fn stride(&self) -> usize {
        BLOCK_SERIES_MAX
    }
}

/// About what a series of a selection takes: where it is, and what is derived from its labels.
const SERIES_BYTES: usize = 40;

/// Things that a [`Memo`] remembers.
const MEMO_MAX: usize = 8;

/// What readers have derived from the labels of a selection's series, kept as long as the store
/// keeps the selection.
#[derive(Default)]
pub struct Memo(Mutex<Vec<(String, Arc<dyn Any + Send + Sync>)>>);

impl Memo {
    /// What was derived under this key, or what `make` derives; kept when `is_kept` says so.
    pub fn get<T: Send + Sync + 'static, E>(
        &self,
        key: &str,
        is_kept: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let known =
            self.0.lock().iter().find(|(own, _)| own == key).map(|(_, known)| known.clone());
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        if is_kept(&made) {
            let mut all = self.0.lock();
            if all.len() == MEMO_MAX {
                all.remove(0);
            }
            all.push((key.to_owned(), made.clone()));
        }
        Ok(made)
    }
}

/// The series of a query in label order, and a door to their labels and samples.
pub struct Selection {
    len: usize,
    memo: Arc<Memo>,
    source: Box<dyn BlockSource>,
}

impl Selection {
    /// So many series in label order, and where they come from.
    pub fn new(len: usize, source: Box<dyn BlockSource>) -> Self {
        assert!(u32::try_from(len).is_ok(), "ordinals have 32 bits");
        let own = Self { len, memo: Arc::default(), source };
        debug_assert!(own.is_in_order(), "label order, no duplicate");
        own
    }

    /// Whether the first series are in order, as far as they can be read.
    fn is_in_order(&self) -> bool {
        let ordinals = 0..self.len.min(BLOCK_SERIES_MAX) as u32;
        let labels: Vec<_> = ordinals.filter_map(|ordinal| self.labels(ordinal).ok()).collect();
        labels.is_sorted_by(|a, b| a < b)
    }

    /// With what was remembered of the same series.
    pub fn with_memo(self, memo: Arc<Memo>) -> Self {
        Self { memo, ..self }
    }

    /// What is remembered of the series.
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    /// A selection without series.
    pub fn empty() -> Self {
        struct Nothing;
        impl BlockSource for Nothing {
            fn pairs(&self, _: QueryOrdinal) -> Result<Pairs<'_>, QueryError> {
                Ok(Pairs::new())
            }

            fn block(&self, _: QueryOrdinal, _: usize) -> Result<ColumnBlock, QueryError> {
                Ok(ColumnBlock { series: Vec::new() })
            }
        }
        Self::new(0, Box::new(Nothing))
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.len * SERIES_BYTES
    }

    /// The labels of a series, metric name included, without making a [`Labels`] of them. Panics
    /// when it is beyond the series.
    pub fn pairs(&self, ordinal: QueryOrdinal) -> Result<Pairs<'_>, QueryError> {
        assert!((ordinal as usize) < self.len);
        self.source.pairs(ordinal)
    }

    /// The labels of a series, metric name included. Panics when it is beyond the series.
    pub fn labels(&self, ordinal: QueryOrdinal) -> Result<Labels, QueryError> {
        Ok(Labels::from_sorted(self.pairs(ordinal)?))
    }

    /// The labels of neighbouring series, as many as [`Selection::block`] gives at most: kept for
    /// later queries where they are few. Panics when `first + count` is beyond the series.
    pub fn block_labels(
        &self,
        first: QueryOrdinal,
        count: usize,
    ) -> Result<Arc<[Labels]>, QueryError> {
        assert!(count <= BLOCK_SERIES_MAX && first as usize + count <= self.len);
        self.source.block_labels(first, count)
    }

    /// Series, a multiple of [`BLOCK_SERIES_MAX`], that are best pulled by one thread one block
    /// after the other: the first of the selection, the next, and so on.
    pub fn stride(&self) -> usize {
        self.source.stride().max(1).next_multiple_of(BLOCK_SERIES_MAX)
    }

    /// At most [`BLOCK_SERIES_MAX`] neighbouring series with their complete samples of the range.
    /// Panics when `first + count` is beyond the series.
    pub fn block(&self, first: QueryOrdinal, count: usize) -> Result<ColumnBlock, QueryError> {
        assert!(count <= BLOCK_SERIES_MAX && first as usize + count <= self.len);
        let block = self.source.block(first, count)?;
        assert_eq!(block.series.len(), count, "a block has the series that were asked for");
        Ok(block)
    }
}

/// Samples of neighbouring series.
#[derive(Clone, Debug)]
pub struct ColumnBlock {
    /// One entry for each series asked for, in order; series without samples are empty.
    pub series: Vec<SeriesColumns>,
}

/// Samples of one series: runs in order of time. A change of the kind of value (float, histogram)
/// starts a new run; stale markers are still in place.
#[derive(Clone, Debug, Default)]
pub struct SeriesColumns {
    /// Runs; mostly one.
    pub runs: SmallVec<[Run; 1]>,
}

/// Samples of one kind.
#[derive(Clone, Debug)]
pub struct Run {
    /// Strictly ascending. Series scraped together share one slice (compare by pointer).
    pub timestamps_ms: Arc<[i64]>,
    /// As many values as timestamps.
    pub values: Column,
    /// When counting started, for each sample, 0 where that is not known; `None`: nowhere known.
    pub starts_ms: Option<Arc<[i64]>>,
    /// The positions of stale markers among floats, ascending; `None`: somebody has to look.
    pub stale: Option<Box<[u32]>>,
}

impl Run {
    /// What of it lies in a range; `None`: nothing.
    pub fn within(&self, range: TimeRange) -> Option<Cow<'_, Self>> {
        let times = &self.timestamps_ms;
        let start = times.partition_point(|ms| *ms < range.min_ms);
        let end = times.partition_point(|ms| *ms <= range.max_ms);
        if end <= start {
            return None;
        }
        if end - start == times.len() {
            return Some(Cow::Borrowed(self));
        }
        Some(Cow::Owned(Self {
            timestamps_ms: times[start..end].into(),
            values: match &self.values {
                Column::Floats(values) => Column::Floats(values.part(start..end)),
                Column::Histograms(values) => Column::Histograms(values[start..end].into()),
            },
            starts_ms: self.starts_ms.as_ref().map(|starts| starts[start..end].into()),
            stale: None,
        }))
    }
}

/// Values of one kind.
#[derive(Clone, Debug)]
pub enum Column {
    /// Plain values; any bit pattern.
    Floats(Slice<f64>),
    /// Native histograms; neighbours may share one allocation.
    Histograms(Arc<[Arc<Histogram>]>),
}
