//! The targets of one job and their loops.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::options::JobOptions;
use super::run::{Assignment, Job, Loop, LoopState, Order, Shared};
use super::status::{DroppedTarget, PoolStatus, TargetMetadata, TargetStatus};
use super::target::{self, Target, TargetKey};
use crate::model::labels::Labels;
use crate::model::target::TargetGroup;

/// A job's loops. Dropping it stops them without a trace in the store.
pub(super) struct Pool {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    alive: mpsc::Sender<()>,
    job: Arc<Job>,
    groups: Vec<Arc<TargetGroup>>,
    loops: BTreeMap<TargetKey, Running>,
    dropped: Vec<DroppedTarget>,
    dropped_count: usize,
}

struct Running {
    orders: watch::Sender<Order>,
    assignment: Arc<Assignment>,
    state: Arc<LoopState>,
}

impl Pool {
    pub fn new(
        shared: Arc<Shared>,
        runtime: tokio::runtime::Handle,
        alive: mpsc::Sender<()>,
        job: Job,
    ) -> Self {
        Self {
            shared,
            runtime,
            alive,
            job: Arc::new(job),
            groups: Vec::new(),
            loops: BTreeMap::new(),
            dropped: Vec::new(),
            dropped_count: 0,
        }
    }

    pub fn options(&self) -> &JobOptions {
        &self.job.options
    }

    /// Takes over new options; targets that stay keep their series and caches.
    pub fn reload(&mut self, job: Job) {
        self.job = Arc::new(job);
        self.shared.metrics.pool_reloads.inc();
        self.sync();
    }

    /// Takes over newly discovered groups.
    pub fn update(&mut self, groups: &[Arc<TargetGroup>]) {
        let is_same = self.groups.len() == groups.len()
            && self.groups.iter().zip(groups).all(|(old, new)| old == new);
        if is_same {
            return;
        }
        self.groups = groups.to_vec();
        self.sync();
    }

    /// Ends all loops and, later, their series.
    pub fn retire(self) {
        for running in self.loops.into_values() {
            running.retire(&self.runtime);
        }
    }

    /// Brings the loops in line with options and groups.
    fn sync(&mut self) {
        let (clock, metrics) = (Arc::clone(&self.shared.clock), self.shared.metrics.clone());
        let start = clock.monotonic();
        let mut wanted = self.build_targets();
        let forced_error = self.target_limit_error(wanted.len());
        for (key, running) in std::mem::take(&mut self.loops) {
            let Some(target) = wanted.remove(&key) else {
                running.retire(&self.runtime);
                continue;
            };
            self.loops.insert(key, running.reassign(&self.job, target, forced_error.as_deref()));
        }
        for (key, target) in wanted {
            let running = self.start(target, forced_error.clone());
            self.loops.insert(key, running);
        }
        let job = [self.job.options.job_name.as_str()];
        metrics.pool_targets.with(&job).set(self.loops.len() as f64);
        metrics.pool_target_limit.with(&job).set(self.job.options.target_limit as f64);
        metrics.pool_syncs.with(&job).inc();
        let length = clock.monotonic().saturating_sub(start).as_secs_f64();
        metrics.sync_length.distribution(&job).observe(length);
    }

    fn build_targets(&mut self) -> BTreeMap<TargetKey, Arc<Target>> {
        let options = &self.job.options;
        let dropped_max = match options.keep_dropped_targets {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let (mut wanted, mut dropped, mut dropped_count) = (BTreeMap::new(), Vec::new(), 0);
        let failures = self.shared.metrics.sync_failed.with(&[&options.job_name]);
        for group in &self.groups {
            let found = |target: Result<Target, Labels>| match target {
                Ok(target) => {
                    wanted.entry(target.key.clone()).or_insert_with(|| Arc::new(target));
                }
                Err(discovered_labels) => {
                    dropped_count += 1;
                    if dropped.len() < dropped_max {
                        dropped.push(DroppedTarget { discovered_labels });
                    }
                }
            };
            target::targets_of(options, group, found, |index, err| {
                failures.inc();
                let (scrape_pool, group) = (&options.job_name, &group.source);
                tracing::error!(error = %err, %scrape_pool, %group, index, "Creating target failed.");
            });
        }
        self.dropped = dropped;
        self.dropped_count = dropped_count;
        wanted
    }

    fn target_limit_error(&self, count: usize) -> Option<String> {
        let limit = self.job.options.target_limit;
        if limit == 0 || count as u64 <= limit {
            return None;
        }
        self.shared.metrics.exceeded_target_limit.inc();
        Some(format!("target_limit exceeded (number of targets: {count}, limit: {limit})"))
    }

    fn start(&self, target: Arc<Target>, forced_error: Option<String>) -> Running {
        let assignment = Arc::new(Assignment::new(&self.job, target, forced_error));
        let (orders, receiver) = watch::channel(Order::Scrape(Arc::clone(&assignment)));
        let state = Arc::new(LoopState::default());
        let task = Loop {
            shared: Arc::clone(&self.shared),
            orders: receiver,
            state: Arc::clone(&state),
            alive: self.alive.clone(),
        };
        self.runtime.spawn(task.run());
        Running { orders, assignment, state }
    }

    pub fn status(&self) -> PoolStatus {
        let active = self.loops.values().map(|running| {
            let (target, last) = (&running.assignment.target, running.state.last.lock().clone());
            TargetStatus {
                pool: self.job.options.job_name.clone(),
                discovered_labels: target.discovered_labels.clone(),
                labels: target.labels.clone(),
                url: target.shown_url.clone(),
                last_error: last.error,
                last_scrape_ms: last.at_ms,
                last_scrape_duration: last.duration,
                health: last.health,
                interval: target.interval,
                timeout: target.timeout,
            }
        });
        let mut active: Vec<_> = active.collect();
        active.sort_by(|one, other| one.labels.cmp(&other.labels));
        PoolStatus {
            name: self.job.options.job_name.clone(),
            active,
            dropped: self.dropped.clone(),
            dropped_count: self.dropped_count,
        }
    }

    pub fn metadata(&self, out: &mut Vec<TargetMetadata>) {
        for running in self.loops.values() {
            let families = running.state.metadata.lock();
            out.extend(families.iter().map(|(metric, metadata)| TargetMetadata {
                target_labels: running.assignment.target.labels.clone(),
                metric: metric.to_string(),
                metadata: metadata.clone(),
            }));
        }
    }

    /// Sets the gauges that only reading can tell.
    pub fn measure(&self) {
        let (mut entries, mut bytes) = (0, 0);
        for running in self.loops.values() {
            let families = running.state.metadata.lock();
            entries += families.len();
            for (metric, metadata) in families.iter() {
                bytes += metric.len() + metadata.help.len() + metadata.unit.len();
            }
        }
        let job = [self.job.options.job_name.as_str()];
        self.shared.metrics.metadata_entries.with(&job).set(entries as f64);
        self.shared.metrics.metadata_bytes.with(&job).set(bytes as f64);
    }
}

impl Running {
    /// Hands the loop new orders when anything has changed.
    fn reassign(mut self, job: &Arc<Job>, target: Arc<Target>, forced: Option<&str>) -> Self {
        let old = &self.assignment;
        let is_same = Arc::ptr_eq(&old.job, job)
            && old.target == target
            && old.forced_error.as_deref() == forced;
        if !is_same {
            let new = Assignment::new(job, target, forced.map(str::to_owned));
            self.assignment = Arc::new(new);
            self.orders.send_replace(Order::Scrape(Arc::clone(&self.assignment)));
        }
        self
    }

    fn retire(self, runtime: &tokio::runtime::Handle) {
        self.orders.send_replace(Order::Retire);
        // The order must outlive this call: a loop whose sender is gone stops at once.
        runtime.spawn(async move { self.orders.closed().await });
    }
}
