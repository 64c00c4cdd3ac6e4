//! Limits of active series: beyond them new series are refused, and only those.

use hashbrown::HashMap;

use crate::model::matcher::Matcher;
use crate::storage::fingerprint::parse_canonical;
use crate::storage::options::Limits;
use crate::storage::registry::Registry;

/// The label that tells the job.
const JOB: &str = "job";

/// What one batch may add.
pub struct Budget<'a> {
    limits: &'a Limits,
    /// Series that there would be, in total and by job.
    total: u64,
    by_job: HashMap<String, u64, foldhash::fast::RandomState>,
}

impl<'a> Budget<'a> {
    /// With the series that there are.
    pub fn new(limits: &'a Limits, registry: &Registry) -> Self {
        Self { limits, total: registry.len() as u64, by_job: HashMap::default() }
    }

    /// Whether one more series may be added; it counts from then on.
    pub fn take(&mut self, registry: &Registry, canonical: &[u8]) -> bool {
        if self.limits.active_series.is_some_and(|most| most <= self.total) {
            return false;
        }
        if self.limits.active_series_per_job.is_some() || !self.limits.jobs.is_empty() {
            let labels = parse_canonical(canonical).unwrap_or_default();
            if let Some(job) = labels.get(JOB)
                && let Some(most) = self.limits.of_job(job)
            {
                let known = || registry.index().select(&[Matcher::equal(JOB, job)]).len();
                let count = self.by_job.entry(job.to_owned()).or_insert_with(known);
                if most <= *count {
                    return false;
                }
                *count += 1;
            }
        }
        self.total += 1;
        true
    }
}
