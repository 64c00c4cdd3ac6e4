//! Segments: immutable files of columns that replace closed log files.
//!
//! The interface, as the head and the reader of the store use it (being built in this order):
//!
//! ```text
//! SegmentWriter::create(disk: &dyn Disk, path: &Path) -> io::Result<SegmentWriter>
//!   .begin_timestamps(&mut self, timestamps_ms: &[i64]) -> io::Result<TimestampsId>   strictly ascending, not empty
//!   .chunk(&mut self, series: SeriesIdentity<'_>, timestamps: TimestampsId, rows: Rows<'_>, values: &[f64]) -> io::Result<()>
//!   .finish(self, sequences: SequenceRange) -> io::Result<SegmentInfo>                written and synced, name too
//! SeriesIdentity { fingerprint: u128, labels: &Labels }
//! Rows::All (one value per timestamp) | Rows::Mask(&[u64]) (bit r of word r/64: row r has a value; values only of set rows)
//! SequenceRange { first: u64, last: u64 }
//! SegmentInfo { min_ms, max_ms, series_count: u32, chunk_count: u32, sample_count: u64, bytes: u64, sequences }
//!
//! Segment::open(disk: &dyn Disk, path: &Path) -> Result<Segment, QueryError>           Send + Sync; methods take &self
//!   .info() -> SegmentInfo   .time_range() -> TimeRange
//!   .labels(ordinal: u32) -> Result<Labels, QueryError>   .fingerprint(ordinal) -> Result<u128, _>
//!   .find(fingerprint: u128) -> Result<Option<u32>, _>
//!   .select(&[Matcher]) -> Result<RoaringBitmap, _>       of ordinals; metric name, then label order
//!   .label_names(within: Option<&RoaringBitmap>) -> Result<Vec<String>, _>
//!   .label_values(name, within: Option<&RoaringBitmap>) -> Result<Vec<String>, _>
//!   .chunks(ordinal, range: TimeRange) -> Result<Vec<ChunkRef>, _>     in write order
//!   .decode_timestamps(TimestampsId) -> Result<Arc<[i64]>, _>          the whole shared column
//!   .chunk_timestamps(&ChunkRef, &Arc<[i64]>) -> Result<Arc<[i64]>, _>  the same Arc when the chunk has all rows
//!   .decode_values(&ChunkRef) -> Result<Vec<f64>, _>                    one per chunk timestamp
//! ChunkRef { timestamps: TimestampsId, first_ms: i64, last_ms: i64, count: u32, .. }
//! ```
