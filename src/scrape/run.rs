//! The loop of one target: wait for the next moment of its grid, fetch, append, report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::append::{self, BodyAppender, Counts, Parser, ScrapeError};
use super::cache::{Cache, SharedMetadata};
use super::fetch::{Fetch, Fetched};
use super::metrics::Metrics;
use super::options::JobOptions;
use super::report::{Outcome, ReportSeries};
use super::status::Health;
use super::target::Target;
use super::timing::Grid;
use crate::base::clock::Clock;
use crate::model::duration;
use crate::storage::append::{Append, Appended, Appender, OnReject};

/// What all loops of a manager share.
pub(super) struct Shared {
    pub storage: Arc<dyn Appender>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    /// Sets servers apart in their phases.
    pub seed: AtomicU64,
    /// True when the server stops.
    pub shutdown: watch::Sender<bool>,
}

/// A job with what its options were turned into.
pub(super) struct Job {
    pub options: JobOptions,
    pub fetch: Arc<dyn Fetch>,
}

/// What a loop is to do; replaced as a whole.
#[derive(Clone)]
pub(super) enum Order {
    /// Scrape this.
    Scrape(Arc<Assignment>),
    /// The target is gone: end its series, then stop.
    Retire,
}

/// A target with the options to scrape it by.
pub(super) struct Assignment {
    pub job: Arc<Job>,
    pub target: Arc<Target>,
    /// Fails every scrape without fetching.
    pub forced_error: Option<String>,
    pub report: ReportSeries,
}

impl Assignment {
    pub fn new(job: &Arc<Job>, target: Arc<Target>, forced_error: Option<String>) -> Self {
        let report = ReportSeries::new(&job.options, &target.labels);
        Self { job: Arc::clone(job), target, forced_error, report }
    }

    /// Whether a line means the same series under both.
    fn has_label_rules_of(&self, other: &Self) -> bool {
        let rules = |job: &JobOptions| {
            (
                job.honor_labels,
                job.metric_relabel_rules.clone(),
                job.label_limit,
                job.label_name_length_limit,
                job.label_value_length_limit,
                job.name_validation,
            )
        };
        let same_job = Arc::ptr_eq(&self.job, &other.job)
            || rules(&self.job.options) == rules(&other.job.options);
        same_job && self.target.histograms == other.target.histograms
    }
}

/// What a loop shows of itself.
#[derive(Default)]
pub(super) struct LoopState {
    pub last: Mutex<LastScrape>,
    pub metadata: SharedMetadata,
}

/// The last scrape of a target.
#[derive(Clone)]
pub(super) struct LastScrape {
    pub error: String,
    pub at_ms: Option<i64>,
    pub duration: Duration,
    pub health: Health,
}

impl Default for LastScrape {
    fn default() -> Self {
        let (error, health) = (String::new(), Health::Unknown);
        Self { error, at_ms: None, duration: Duration::ZERO, health }
    }
}

/// One target's loop.
pub(super) struct Loop {
    pub shared: Arc<Shared>,
    pub orders: watch::Receiver<Order>,
    pub state: Arc<LoopState>,
    /// Dropped when the loop has ended.
    pub alive: mpsc::Sender<()>,
}

impl Loop {
    /// Runs until it is told to stop or its sender of orders is gone.
    pub async fn run(mut self) {
        let mut shutdown = self.shared.shutdown.subscribe();
        let shared = Arc::clone(&self.shared);
        let clock = &*shared.clock;
        let Order::Scrape(mut assignment) = self.orders.borrow_and_update().clone() else { return };
        let mut cache = Cache::new(Arc::clone(&self.state.metadata));
        let (mut last_due_ms, mut last_start) = (None, None);
        loop {
            let due_ms = self.grid(&assignment).next(clock.now_ms(), last_due_ms);
            tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return,
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    match self.orders.borrow_and_update().clone() {
                        Order::Retire => break,
                        Order::Scrape(new) => {
                            if !new.has_label_rules_of(&assignment) {
                                cache.forget_labels();
                            }
                            assignment = new;
                        }
                    }
                    continue;
                }
                () = sleep_until(clock, due_ms) => {}
            }
            last_due_ms = Some(due_ms);
            let start = clock.monotonic();
            if let Some(last) = last_start.replace(start) {
                let interval = duration::format(assignment.target.interval);
                let length = start.saturating_sub(last).as_secs_f64();
                self.shared.metrics.interval_length.distribution(&[&interval]).observe(length);
            }
            cache = self.scrape(&assignment, due_ms, cache).await;
        }
        if last_due_ms.is_some() {
            tokio::select! {
                () = stopped(&mut shutdown) => {}
                () = self.retire(&assignment, last_due_ms, cache) => {}
            }
        }
        drop(self.alive);
    }

    fn grid(&self, assignment: &Assignment) -> Grid {
        let target = &assignment.target;
        Grid::new(target.interval, target.hash, self.shared.seed.load(Ordering::Relaxed))
    }

    async fn scrape(&self, assignment: &Arc<Assignment>, due_ms: i64, cache: Cache) -> Cache {
        let (clock, start) = (&self.shared.clock, self.shared.clock.monotonic());
        let now_ms = clock.now_ms();
        self.shared.metrics.delay.observe((now_ms - due_ms).max(0) as f64 / 1000.0);
        let work = Work {
            shared: Arc::clone(&self.shared),
            assignment: Arc::clone(assignment),
            timestamp_ms: self.grid(assignment).snap(due_ms, now_ms),
            start,
        };
        let fetched = match &assignment.forced_error {
            Some(error) => Err(ScrapeError::Forced(error.clone())),
            None => assignment.job.fetch.fetch(&assignment.target).await,
        };
        // Parsing takes milliseconds for large bodies, and the store may hold a lock.
        let done = tokio::task::spawn_blocking(move || work.append(fetched, cache)).await;
        let (cache, duration, error) = match done {
            Ok(done) => done,
            Err(_) => {
                // The panic is logged where it happened; the target goes on with a new cache.
                let error = Some("panic while the scrape was appended".to_owned());
                (Cache::new(Arc::clone(&self.state.metadata)), Duration::ZERO, error)
            }
        };
        if let Some(error) = &error {
            let (target_url, scrape_pool) =
                (&assignment.target.shown_url, &assignment.job.options.job_name);
            tracing::debug!(%error, %target_url, %scrape_pool, "Scrape failed.");
            if let Some(path) = &assignment.job.options.scrape_failure_log_file {
                super::failure_log::write(path, now_ms, scrape_pool, target_url, error).await;
            }
        }
        *self.state.last.lock() = LastScrape {
            health: if error.is_some() { Health::Down } else { Health::Up },
            error: error.unwrap_or_default(),
            at_ms: Some(now_ms),
            duration,
        };
        cache
    }

    /// Ends the series of a target that is gone. Waits for two more intervals, because the target
    /// may come back under another name and go on with its series: then their newer samples make
    /// the store refuse our markers.
    async fn retire(&self, assignment: &Arc<Assignment>, last_ms: Option<i64>, mut cache: Cache) {
        let (clock, grid) = (&self.shared.clock, self.grid(assignment));
        let stale_ms = grid.next(clock.now_ms(), last_ms);
        sleep_until(&**clock, stale_ms).await;
        sleep_until(&**clock, stale_ms + grid.interval_ms).await;
        tokio::time::sleep(assignment.target.interval / 10).await;
        let (shared, assignment) = (Arc::clone(&self.shared), Arc::clone(assignment));
        let work = move || {
            let mut append = shared.storage.appender(OnReject::Skip);
            cache.begin();
            let (vanished, _) = cache.end_failed();
            append::append_stale(&mut *append, &vanished, stale_ms);
            assignment.report.append_stale(&mut *append, stale_ms);
            if let Err(err) = append.commit() {
                tracing::warn!(error = %err, "Stale commit failed.");
            }
        };
        // A panic has been logged; there is nothing left to do for this target.
        let _ = tokio::task::spawn_blocking(work).await;
    }
}

async fn sleep_until(clock: &dyn Clock, due_ms: i64) {
    let wait_ms = (due_ms - clock.now_ms()).max(0);
    tokio::time::sleep(Duration::from_millis(wait_ms as u64)).await;
}

/// Returns when the server stops.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the manager is gone, which is the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// The blocking half of one scrape.
struct Work {
    shared: Arc<Shared>,
    assignment: Arc<Assignment>,
    timestamp_ms: i64,
    start: Duration,
}

impl Work {
    fn append(
        self,
        fetched: Result<Fetched, ScrapeError>,
        mut cache: Cache,
    ) -> (Cache, Duration, Option<String>) {
        let mut append = self.shared.storage.appender(OnReject::Skip);
        let mut body_bytes = 0;
        let (counts, result) = match fetched {
            Ok(fetched) => self.append_body(&fetched, &mut cache, &mut *append, &mut body_bytes),
            Err(err) => (Counts::default(), Err(err)),
        };
        if let Err(err) = &result {
            if *err == ScrapeError::BodySize {
                body_bytes = -1;
            }
            self.count_error(err);
            // Nothing of a failed scrape is kept, and all series end.
            append = self.shared.storage.appender(OnReject::Skip);
            let (vanished, flushed) = cache.end_failed();
            append::append_stale(&mut *append, &vanished, self.timestamp_ms);
            if flushed {
                self.shared.metrics.cache_flush_forced.inc();
            }
        }
        let duration = self.shared.clock.monotonic().saturating_sub(self.start);
        let outcome = Outcome {
            is_up: result.is_ok(),
            duration,
            counts,
            timeout: self.assignment.target.timeout,
            sample_limit: self.assignment.job.options.sample_limit,
            body_bytes,
        };
        self.assignment.report.append(&mut *append, self.timestamp_ms, &outcome);
        let url = &self.assignment.target.shown_url;
        match append.commit() {
            Ok((appended, _ticket)) => self.count(&appended, counts.duplicates as u64),
            Err(err) => tracing::warn!(error = %err, target_url = %url, "Scrape commit failed."),
        }
        (cache, duration, result.err().map(|err| err.to_string()))
    }

    fn append_body(
        &self,
        fetched: &Fetched,
        cache: &mut Cache,
        append: &mut dyn Append,
        body_bytes: &mut i64,
    ) -> (Counts, Result<(), ScrapeError>) {
        let job = &self.assignment.job.options;
        let unpacked;
        let body: &[u8] = if fetched.is_gzip {
            match append::decompress(&fetched.body, job.body_size_limit) {
                Ok(bytes) => unpacked = bytes,
                Err(err) => return (Counts::default(), Err(err)),
            }
            &unpacked
        } else {
            &fetched.body
        };
        *body_bytes = body.len() as i64;
        // An empty body is no error, whatever it claims to be: all series just end.
        let content_type = if body.is_empty() { "text/plain" } else { &fetched.content_type };
        let fallback = job.fallback_scrape_protocol;
        let parser = match Parser::for_content_type(body, content_type, fallback) {
            Ok(parser) => parser,
            Err(err) => return (Counts::default(), Err(err)),
        };
        let Target { labels: target_labels, histograms, .. } = &*self.assignment.target;
        let (timestamp_ms, histograms) = (self.timestamp_ms, *histograms);
        BodyAppender { job, target_labels, histograms, timestamp_ms, cache, append }.append(parser)
    }

    fn count_error(&self, error: &ScrapeError) {
        let metrics = &self.shared.metrics;
        match error {
            ScrapeError::BodySize => metrics.exceeded_body_size_limit.inc(),
            ScrapeError::SampleLimit => metrics.exceeded_sample_limit.inc(),
            ScrapeError::BucketLimit => metrics.exceeded_bucket_limit.inc(),
            ScrapeError::Labels(err) if err.is_limit() => metrics.exceeded_label_limits.inc(),
            _ => {}
        }
    }

    /// Counts refused samples, and says so once per scrape.
    fn count(&self, appended: &Appended, own_duplicates: u64) {
        let metrics = &self.shared.metrics;
        let (scrape_pool, target) =
            (&self.assignment.job.options.job_name, &self.assignment.target.shown_url);
        let old = appended.out_of_bounds_count + appended.too_old_count;
        let duplicates = appended.duplicate_count + own_duplicates;
        metrics.out_of_order.add(appended.out_of_order_count as f64);
        metrics.out_of_bounds.add(old as f64);
        metrics.duplicate_timestamp.add(duplicates as f64);
        let exemplars = appended.exemplar_series_refused_count;
        metrics.exemplar_out_of_order.add(exemplars as f64);
        for (num_dropped, message) in [
            (appended.out_of_order_count, "Error on ingesting out-of-order samples"),
            (duplicates, "Error on ingesting samples with different value but same timestamp"),
            (exemplars, "Error on ingesting out-of-order exemplars"),
            (old, "Error on ingesting samples that are too old or are too far into the future"),
            (
                appended.too_long_count,
                "Error on ingesting samples whose labels have too many bytes",
            ),
        ] {
            if num_dropped > 0 {
                tracing::warn!(num_dropped, %scrape_pool, %target, "{message}");
            }
        }
    }
}
