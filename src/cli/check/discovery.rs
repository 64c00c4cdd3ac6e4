//! `narthex check service-discovery`: targets of one job before and after relabelling.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::base::clock::OsClock;
use crate::base::disk::OsDisk;
use crate::base::metrics::Registry;
use crate::config::Config;
use crate::discovery::{self, Manager};
use crate::model::labels::Labels;
use crate::model::target::TargetGroup;
use crate::scrape::{JobOptions, populate_discovered_labels, populate_labels};

/// Discovers once, at most for so long. What discovery says first counts.
pub(super) fn found(file: &Path, job_name: &str, timeout: Duration) -> anyhow::Result<Value> {
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::load(file, &OsDisk, &environment)?;
    let jobs = config.scrape_jobs();
    let Some(job) = jobs.iter().find(|job| job.job_name == job_name) else {
        let names: Vec<&str> = jobs.iter().map(|job| job.job_name.as_str()).collect();
        let names = names.join("\n");
        bail!("Job {job_name} not found in the config file. Valid jobs:\n{names}");
    };
    let options = config.scrape_discovery().get(job_name).cloned().unwrap_or_default();
    let groups = super::block_on(discover(job_name.to_owned(), options, timeout))?;
    Ok(results(job, &groups))
}

async fn discover(
    job_name: String,
    options: Vec<discovery::Options>,
    timeout: Duration,
) -> anyhow::Result<Vec<Arc<TargetGroup>>> {
    let manager = Manager::new("scrape", Arc::new(OsClock::new()), &Registry::new());
    let mut targets = manager.targets();
    manager.apply(BTreeMap::from([(job_name.clone(), options)]));
    let published = targets.wait_for(|sets| sets.contains_key(&job_name));
    let sets = tokio::time::timeout(timeout, published).await;
    let sets = sets.context("nothing was discovered in time")?.context("discovery ended")?;
    Ok(sets.get(&job_name).cloned().unwrap_or_default())
}

/// Equal targets are shown once.
fn results(job: &JobOptions, groups: &[Arc<TargetGroup>]) -> Value {
    let mut all = Vec::new();
    for group in groups {
        for target in &group.targets {
            let builder = populate_discovered_labels(job, target, &group.labels);
            let discovered = builder.build();
            let (labels, error) = match populate_labels(job, builder) {
                Ok(labels) => (labels.unwrap_or_else(Labels::empty), None),
                Err(err) => (Labels::empty(), Some(err.to_string())),
            };
            let object = |labels: &Labels| json!(labels.iter().collect::<BTreeMap<_, _>>());
            let mut found =
                json!({ "discoveredLabels": object(&discovered), "labels": object(&labels) });
            if let Some(error) = error {
                found["error"] = error.into();
            }
            if !all.contains(&found) {
                all.push(found);
            }
        }
    }
    all.into()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "writes a configuration")]
mod tests {
    use super::*;

    #[test]
    fn targets_are_shown_before_and_after_relabelling() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("narthex.yml");
        let config = "scrape_configs:\n- job_name: a\n  static_configs:\n\
            \x20 - {targets: ['h1:1', 'h2:2', 'h3/3', 'h1:1'], labels: {dc: x}}\n\
            \x20 relabel_configs:\n\
            \x20 - {source_labels: [__address__], regex: 'h2.*', action: drop}\n\
            \x20 - {source_labels: [dc], target_label: zone}\n";
        std::fs::write(&file, config).unwrap();
        let all = found(&file, "a", Duration::from_secs(30)).unwrap();
        let [first, dropped, wrong] = all.as_array().unwrap().as_slice() else { panic!("{all}") };
        assert_eq!(first["discoveredLabels"]["__address__"], "h1:1");
        assert_eq!(
            (&first["labels"]["zone"], &first["labels"]["instance"]),
            (&json!("x"), &json!("h1:1"))
        );
        assert_eq!((&dropped["labels"], dropped.get("error")), (&json!({}), None));
        assert_eq!(wrong["error"], "\"h3/3\" is not a valid hostname");
        let unknown = found(&file, "b", Duration::ZERO).unwrap_err().to_string();
        assert_eq!(unknown, "Job b not found in the config file. Valid jobs:\na");
    }
}
