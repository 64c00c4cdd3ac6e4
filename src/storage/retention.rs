//! Removing what is older than the retention, and the thread that does this and seals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use super::manifest::Edit;
use super::options::SealError;
use super::store::Store;
use super::version::{OpenSegment, Version};

/// How often the background thread looks at ages without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Store {
    /// Drops segments all of whose samples are older than the retention, seen from the newest.
    pub fn apply_retention(&self) -> Result<(), SealError> {
        let retention_ms = self.retention_ms.load(Ordering::Relaxed);
        let _maintenance = self.maintenance.lock();
        let Some(newest_ms) = self.range().map(|range| range.max_ms) else { return Ok(()) };
        let least_ms = newest_ms.saturating_sub(retention_ms);
        if self.is_poisoned() {
            return Err(SealError::Poisoned);
        }
        // Merging exchanges segments with the manifest locked.
        let mut manifest = self.manifest.lock();
        let mut version = Version::clone(&self.version.load());
        let is_old = |own: &Arc<OpenSegment>| own.segment.time_range().max_ms < least_ms;
        let (old, kept): (Vec<_>, Vec<_>) = version.segments.into_iter().partition(is_old);
        if old.is_empty() || retention_ms == i64::MAX {
            return Ok(());
        }
        let edits: Vec<_> = old.iter().map(|own| Edit::DropSegment(own.entry.id)).collect();
        manifest.edit(&edits).map_err(|err| self.classify("manifest could not be written", err))?;
        version.segments = kept;
        self.version.store(Arc::new(version));
        drop(manifest);
        for own in old {
            let _ = self.disk.remove_file(own.segment.path());
        }
        self.metrics.time_retentions.inc();
        Ok(())
    }

    /// Closes the open log file when it is old enough.
    pub fn close_old_log(&self) -> Result<(), SealError> {
        let active = self.active.load();
        let age_ms = self.clock.now_ms().saturating_sub(active.header().base_ms);
        let is_old = age_ms >= self.options.log_file_age_max_ms;
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
            let steps = [
                self.apply_retention(),
                self.seal_closed(),
                self.close_old_log().and_then(|()| self.seal_closed()),
            ];
            for worked in steps {
                // Poisoning was reported when it happened.
                if let Err(err) = worked
                    && !matches!(err, SealError::Poisoned)
                {
                    warn!(error = %err, "Sealing or retention failed and will be tried again.");
                }
            }
        }
    }
}
