//! Removing what is older than the retention or too much, and the thread that does this and seals.
//!
//! Whole segments are dropped by one edit of the manifest. Where rules keep some series longer or
//! shorter than others, segments of which only some series are over are written anew without
//! these, as merging does for whatever it writes.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use tracing::{error, warn};

use super::compact::Merge;
use super::compact::plan::{Plan, Urgency};
use super::delete::Hidden;
use super::manifest::Edit;
use super::options::{Retention, SealError};
use super::recovery::keep_for_people;
use super::segment::{Damage, Segment};
use super::select::QueryError;
use super::store::{Store, segment_file_name};
use super::version::{OpenSegment, Version};
use crate::model::sample::TimeRange;

/// How often the background thread looks at ages without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Store {
    /// Drops segments all of whose samples are older than any retention, seen from the newest
    /// sample, and then the oldest ones until all files together are short enough.
    pub fn apply_retention(&self) -> Result<(), SealError> {
        let _maintenance = self.begin_maintenance()?;
        let retention = self.retention.load_full();
        if let Some(newest_ms) = self.newest_believed_ms() {
            self.tell_of_leap(&retention, newest_ms);
            let least_ms = newest_ms.saturating_sub(retention.longest_ms());
            let is_old = |own: &Arc<OpenSegment>| own.segment.time_range().max_ms < least_ms;
            let old = |version: &Version| {
                version.segments.iter().filter(|own| is_old(own)).cloned().collect()
            };
            if self.drop_segments(old)? {
                self.metrics.time_retentions.inc();
            }
            self.forget_losses_before(least_ms)?;
        }
        let Some(bytes_max) = self.bytes_max(&retention)? else { return Ok(()) };
        if self.drop_segments(|version| surplus(version, bytes_max))? {
            self.metrics.size_retentions.inc();
            // What was lost of that time would have been dropped with the rest.
            let oldest_ms = self.range().map_or(i64::MAX, |range| range.min_ms);
            self.forget_losses_before(oldest_ms)?;
        }
        Ok(())
    }

    /// When the store is opened: a clock that is wrong from the beginning on does not make old what
    /// is stored.
    pub fn begin_moment(&self) {
        let now_ms = self.clock.now_ms();
        let known_ms = self.range().map_or(now_ms, |range| range.max_ms.min(now_ms));
        self.moment.lock().believe(known_ms, self.clock.monotonic());
    }

    /// The newest sample, or the clock when that is behind it: ages are counted from this.
    fn newest_believed_ms(&self) -> Option<i64> {
        let newest_ms = self.range()?.max_ms;
        let now_ms = self.moment.lock().believe(self.clock.now_ms(), self.clock.monotonic());
        Some(newest_ms.min(now_ms.saturating_add(self.options.future_ms_max)))
    }

    /// Tells people once when samples would go, were the clock believed.
    fn tell_of_leap(&self, retention: &Retention, newest_ms: i64) {
        let Some(range) = self.range() else { return };
        let would_ms = range.max_ms.min(self.clock.now_ms()).saturating_sub(retention.longest_ms());
        let least_ms = newest_ms.saturating_sub(retention.longest_ms());
        let version = self.version.load();
        let mut ends = version.segments.iter().map(|own| own.segment.time_range().max_ms);
        if ends.any(|end_ms| least_ms <= end_ms && end_ms < would_ms)
            && !self.moment.lock().set_told()
        {
            error!(
                "The clock leapt ahead. Samples that are too old by it are kept for two more hours; \
                 if it is wrong, set it right before."
            );
        }
    }

    /// Drops some segments; whether there were any.
    fn drop_segments(
        &self,
        choose: impl FnOnce(&Version) -> Vec<Arc<OpenSegment>>,
    ) -> Result<bool, SealError> {
        // Merging exchanges segments with the manifest locked.
        let mut manifest = self.lock_manifest();
        let mut version = Version::clone(&self.version.load());
        let dropped = choose(&version);
        if dropped.is_empty() {
            return Ok(false);
        }
        if self.is_poisoned() {
            return Err(SealError::Poisoned);
        }
        let ids: Vec<u64> = dropped.iter().map(|own| own.entry.id).collect();
        let edits: Vec<_> = ids.iter().map(|id| Edit::DropSegment(*id)).collect();
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        version.exchange(&ids, []);
        self.version.store(Arc::new(version));
        drop(manifest);
        for own in dropped {
            let _ = self.disk.remove_file(own.segment.path());
        }
        Ok(true)
    }

    /// Drops segments of which readers met damage that concerns all of them, and keeps their files
    /// for people to look at; tells of segments that have some damaged chunks. Stops the store when
    /// a log file was cut, because nobody knows what else will be.
    pub fn quarantine(&self) -> Result<(), SealError> {
        let _maintenance = self.begin_maintenance()?;
        let version = self.version.load_full();
        if let Some(log) = version.logs.iter().find(|log| log.is_torn()) {
            let err = io::Error::other(log.path().display().to_string());
            self.poison("log file was cut while it was open", &err);
        }
        let mut kept = BTreeSet::new();
        for own in &version.segments {
            let Some(Damage { offset_bytes, reason }) = own.segment.damage() else {
                self.tell_of_hole(own);
                continue;
            };
            if own.segment.is_torn() && self.is_long(own)? {
                self.open_anew(own);
                continue;
            }
            let (path, name) = (own.segment.path(), segment_file_name(own.entry.id));
            error!(
                path = %path.display(), offset_bytes, reason,
                "A segment is damaged and left out; its file is in the folder quarantine."
            );
            keep_for_people(&*self.disk, &self.folders, path, &name)
                .map_err(|err| SealError::Io(io::Error::other(err)))?;
            self.metrics.segment_corruptions.inc();
            kept.insert(own.entry.id);
        }
        // Readers may have met more meanwhile, of which there is no second name yet.
        let has_copy = |own: &&Arc<OpenSegment>| kept.contains(&own.entry.id);
        let damaged =
            |version: &Version| version.segments.iter().filter(has_copy).cloned().collect();
        self.drop_segments(damaged).map(drop)
    }

    /// Whether a segment's file still has its length: then nobody cut it.
    fn is_long(&self, own: &OpenSegment) -> Result<bool, SealError> {
        Ok(self.disk.len(own.segment.path())? == own.segment.bytes())
    }

    /// A device that failed once may give the bytes now. Until it does, queries give an error.
    fn open_anew(&self, own: &Arc<OpenSegment>) {
        let path = own.segment.path().display();
        match Segment::open(&*self.disk, own.segment.path()) {
            Err(err) => warn!(%path, error = %err, "A segment cannot be read."),
            Ok(segment) => {
                warn!(%path, "A segment could not be read and is opened anew.");
                // Versions change under the lock of the manifest.
                let _manifest = self.lock_manifest();
                let mut version = Version::clone(&self.version.load());
                let known = version.segments.iter_mut().find(|known| Arc::ptr_eq(known, own));
                if let Some(known) = known {
                    *known = Arc::new(own.anew(segment));
                    self.version.store(Arc::new(version));
                }
            }
        }
    }

    /// How long all files together may be.
    pub fn bytes_max(&self, retention: &Retention) -> Result<Option<u64>, SealError> {
        let Some(percentage) = retention.percentage else { return Ok(retention.bytes) };
        let total_bytes = self.disk.total_bytes(&self.options.path)?;
        Ok(Some((total_bytes as f64 * percentage / 100.0) as u64))
    }

    /// What the retention lets go of a segment now.
    pub fn expired(&self, segment: &Segment) -> Result<Vec<Hidden>, QueryError> {
        let retention = self.retention.load();
        let (own, mut expired) = (segment.time_range(), Vec::new());
        let Some(newest_ms) = self.newest_believed_ms() else { return Ok(expired) };
        let least_ms = newest_ms.saturating_sub(retention.shortest_ms());
        if least_ms <= own.min_ms {
            return Ok(expired);
        }
        let mut rest: RoaringBitmap = (0..segment.series_count()).collect();
        let mut add = |series: RoaringBitmap, time_ms: Option<i64>| {
            let least_ms = newest_ms.saturating_sub(time_ms.unwrap_or(i64::MAX));
            if own.min_ms < least_ms && !series.is_empty() {
                let range = TimeRange { min_ms: i64::MIN, max_ms: least_ms - 1 };
                expired.push(Hidden { tombstone: 0, range, series, bytes: 0 });
            }
        };
        for rule in &retention.rules {
            let series = segment.select(&rule.matchers)? & &rest;
            rest -= &series;
            add(series, rule.time_ms);
        }
        add(rest, retention.time_ms);
        Ok(expired)
    }

    /// Writes segments anew without series all of whose samples are older than their retention.
    pub fn clean_expired(&self, urgency: Urgency) -> Result<(), SealError> {
        let _turn = self.begin_merging(urgency)?;
        while let Some(merge) = self.next_to_expire(urgency)? {
            if self.is_poisoned() {
                return Err(SealError::Poisoned);
            }
            self.merge_and_count(&merge, urgency)?;
        }
        Ok(())
    }

    fn next_to_expire(&self, urgency: Urgency) -> Result<Option<Merge>, QueryError> {
        if self.retention.load().rules.is_empty() {
            return Ok(None);
        }
        let version = self.version.load();
        for own in &version.segments {
            let range = own.segment.time_range();
            let expired = self.expired(&own.segment)?;
            let is_due = expired.iter().any(|hidden| range.max_ms <= hidden.range.max_ms);
            if is_due && self.has_room(own.segment.bytes(), urgency) {
                let plan =
                    Plan { level: own.entry.level, inputs: Vec::new(), windows: vec![range] };
                let (inputs, tombstone) = (vec![Arc::clone(own)], version.tombstone());
                return Ok(Some(Merge { plan, inputs, tombstone }));
            }
        }
        Ok(None)
    }

    /// Closes the open log file when it is old enough.
    pub fn close_old_log(&self) -> Result<(), SealError> {
        let active = self.active.load();
        // One of the future was begun by a clock that was wrong, and is as good as old.
        let age_ms = self.clock.now_ms().abs_diff(active.header().base_ms);
        let is_old = age_ms >= self.options.log_file_age_max_ms.unsigned_abs();
        if is_old && !active.is_empty() { self.close_log() } else { Ok(()) }
    }

    /// The background thread: seals and applies the retention until the store closes.
    pub fn run_background(&self) {
        let (state, wake) = &self.background;
        loop {
            {
                let mut state = state.lock();
                if !state.has_work && !state.is_stopped {
                    wake.wait_for(&mut state, LOOK_EVERY);
                }
                if state.is_stopped {
                    return;
                }
                state.has_work = false;
            }
            // Each on its own, what frees space first: a full disk must not keep it from being freed.
            self.keep_reserve();
            let steps = [
                self.quarantine(),
                self.with_reserve(|| self.apply_retention()),
                self.with_reserve(|| self.seal_closed()),
                self.close_old_log().and_then(|()| self.seal_closed()),
            ];
            for worked in steps {
                // Poisoning was reported when it happened.
                if let Err(err) = worked
                    && !matches!(err, SealError::Poisoned | SealError::Closing)
                {
                    warn!(error = %err, "Sealing or retention failed and will be tried again.");
                }
            }
        }
    }
}

/// The oldest segments, from the first on with which the newer files are too long.
fn surplus(version: &Version, bytes_max: u64) -> Vec<Arc<OpenSegment>> {
    let mut bytes: u64 = version.logs.iter().map(|log| log.allocated_bytes()).sum();
    let mut segments = version.segments.clone();
    segments.sort_by_key(|own| std::cmp::Reverse(own.segment.time_range().max_ms));
    let fits = segments.iter().take_while(|own| {
        bytes += own.segment.bytes();
        bytes <= bytes_max
    });
    let kept = fits.count();
    segments.split_off(kept)
}
