//! All pools: reload, new targets, shutdown, status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::fetch::HttpFetch;
use super::metrics::Metrics;
use super::options::JobOptions;
use super::pool::Pool;
use super::run::{Job, Shared, stopped};
use super::status::{PoolStatus, TargetMetadata};
use super::timing;
use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::http_client::OptionsError;
use crate::model::labels::Labels;
use crate::model::target::TargetSets;
use crate::storage::append::Appender;

/// What a manager is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerOptions {
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// Full name of this machine; spreads the phases of HA pairs.
    pub hostname: String,
}

/// A job that cannot be run with its new options; its old pool, if any, is gone.
#[derive(Debug, thiserror::Error)]
#[error("error creating new scrape pool {job_name}: {source}")]
pub struct ApplyError {
    /// The job.
    pub job_name: String,
    /// Why.
    pub source: OptionsError,
}

/// Scrapes the targets of all jobs. Dropping it stops all loops.
pub struct Manager {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    options: ManagerOptions,
    pools: Arc<Mutex<Pools>>,
    /// Tells when the last loop has ended.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

#[derive(Default)]
struct Pools {
    by_job: BTreeMap<String, Pool>,
    /// The newest targets, for jobs that come with the next reload.
    sets: TargetSets,
    /// `None` after shutdown.
    alive: Option<mpsc::Sender<()>>,
}

impl Manager {
    /// A manager without jobs. Must be called within a tokio runtime, whose tasks do the work.
    pub fn new(
        storage: Arc<dyn Appender>,
        clock: Arc<dyn Clock>,
        registry: &Registry,
        options: ManagerOptions,
    ) -> Self {
        let seed = timing::server_seed(&options.hostname, &Labels::empty());
        let (alive, ended) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            storage,
            clock,
            metrics: Metrics::new(registry),
            seed: AtomicU64::new(seed),
            shutdown: watch::Sender::new(false),
        });
        let pools = Arc::new(Mutex::new(Pools { alive: Some(alive), ..Pools::default() }));
        let measured = Arc::downgrade(&pools);
        registry.collect_from(move |_| {
            if let Some(pools) = measured.upgrade() {
                pools.lock().by_job.values().for_each(Pool::measure);
            }
        });
        let runtime = tokio::runtime::Handle::current();
        Self { shared, runtime, options, pools, ended: tokio::sync::Mutex::new(ended) }
    }

    /// Replaces all jobs. A job with unchanged options goes on undisturbed; one with changed
    /// options keeps its targets' series; the targets of a job that is gone end.
    ///
    /// # Errors
    /// Names the jobs whose options do not work; all others are in force.
    pub fn apply(
        &self,
        jobs: Vec<JobOptions>,
        external_labels: &Labels,
    ) -> Result<(), Vec<ApplyError>> {
        let start = self.shared.clock.monotonic();
        let seed = timing::server_seed(&self.options.hostname, external_labels);
        self.shared.seed.store(seed, Ordering::Relaxed);
        let mut pools = self.pools.lock();
        let mut old = std::mem::take(&mut pools.by_job);
        let mut errors = Vec::new();
        for options in jobs {
            let job_name = options.job_name.clone();
            let known = old.remove(&job_name);
            match self.pool(known, options, &pools) {
                Ok(Some(pool)) => {
                    pools.by_job.insert(job_name, pool);
                }
                Ok(None) => {}
                Err(source) => errors.push(ApplyError { job_name, source }),
            }
        }
        for (job_name, pool) in old {
            pool.retire();
            self.shared.metrics.forget_pool(&job_name);
        }
        drop(pools);
        let length = self.shared.clock.monotonic().saturating_sub(start).as_secs_f64();
        self.shared.metrics.reload_length.observe(length);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The pool of a job, made or adapted; `None` after shutdown.
    fn pool(
        &self,
        known: Option<Pool>,
        options: JobOptions,
        pools: &Pools,
    ) -> Result<Option<Pool>, OptionsError> {
        if let Some(pool) = known.as_ref()
            && *pool.options() == options
        {
            return Ok(known);
        }
        let metrics = &self.shared.metrics;
        let fetch = match HttpFetch::new(&options, &self.options.user_agent) {
            Ok(fetch) => Arc::new(fetch),
            Err(err) => {
                metrics.pools_failed.inc();
                return Err(err);
            }
        };
        let groups = pools.sets.get(&options.job_name).cloned().unwrap_or_default();
        let job = Job { options, fetch };
        if let Some(mut pool) = known {
            pool.reload(job);
            return Ok(Some(pool));
        }
        metrics.pools.inc();
        let Some(alive) = pools.alive.clone() else { return Ok(None) };
        let mut pool = Pool::new(Arc::clone(&self.shared), self.runtime.clone(), alive, job);
        pool.update(&groups);
        Ok(Some(pool))
    }

    /// Takes over what discovery has found, by job.
    pub fn update_targets(&self, sets: &TargetSets) {
        let mut pools = self.pools.lock();
        pools.sets.clone_from(sets);
        for (job_name, pool) in &mut pools.by_job {
            // A job that discovery does not know yet keeps what it has.
            if let Some(groups) = sets.get(job_name) {
                pool.update(groups);
            }
        }
    }

    /// Follows discovery until it ends or this manager is shut down.
    pub async fn run(&self, mut targets: watch::Receiver<Arc<TargetSets>>) {
        let mut shutdown = self.shared.shutdown.subscribe();
        // What was published before this call counts too.
        targets.mark_changed();
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                changed = targets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let sets = targets.borrow_and_update().clone();
                    self.update_targets(&sets);
                }
            }
        }
    }

    /// Stops all loops and waits until scrapes under way are done. Writes no stale markers: the
    /// targets live on.
    pub async fn shutdown(&self) {
        self.shared.shutdown.send_replace(true);
        {
            let mut pools = self.pools.lock();
            pools.alive = None;
            pools.by_job.clear();
        }
        // Nothing is ever sent: this returns when the last loop has dropped its sender.
        let _ = self.ended.lock().await.recv().await;
    }

    /// All pools with their targets, sorted by name.
    pub fn status(&self) -> Vec<PoolStatus> {
        self.pools.lock().by_job.values().map(Pool::status).collect()
    }

    /// The options of a job, by its name.
    pub fn pool_options(&self, name: &str) -> Option<JobOptions> {
        self.pools.lock().by_job.get(name).map(|pool| pool.options().clone())
    }

    /// What all targets say about their metrics.
    pub fn metadata(&self) -> Vec<TargetMetadata> {
        let mut out = Vec::new();
        self.pools.lock().by_job.values().for_each(|pool| pool.metadata(&mut out));
        out
    }
}
