//! Inhibition: alerts that mute others while they fire.
//!
//! For each rule the possible sources are indexed by their values of the `equal` labels, as sets:
//! when one source ends, another one with the same values still inhibits.

use std::collections::{BTreeSet, HashMap};

use crate::alerting::matchers::all_match;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;

/// A rule.
#[derive(Clone, Debug)]
pub struct InhibitRule {
    /// Optional name.
    pub name: String,
    /// What an inhibiting alert fulfils; none: any alert.
    pub source_matchers: Vec<Matcher>,
    /// What an inhibited alert fulfils; none: any alert.
    pub target_matchers: Vec<Matcher>,
    /// Labels whose values must be the same in both; missing counts as empty.
    pub equal: Vec<String>,
}

impl InhibitRule {
    fn equal_values(&self, labels: &Labels) -> Vec<String> {
        self.equal.iter().map(|name| labels.get(name).unwrap_or("").to_owned()).collect()
    }
}

#[derive(Debug)]
struct IndexedRule {
    rule: InhibitRule,
    /// Fingerprints of possible sources by their `equal` values.
    sources: HashMap<Vec<String>, BTreeSet<u64>>,
}

/// All rules with their possible sources.
#[derive(Debug)]
pub struct Inhibitor {
    rules: Vec<IndexedRule>,
}

impl Inhibitor {
    /// Without sources.
    pub fn new(rules: Vec<InhibitRule>) -> Self {
        let indexed =
            rules.into_iter().map(|rule| IndexedRule { rule, sources: HashMap::new() }).collect();
        Self { rules: indexed }
    }

    /// Takes an alert in as a possible source.
    pub fn insert(&mut self, fingerprint: u64, labels: &Labels) {
        for indexed in &mut self.rules {
            if all_match(&indexed.rule.source_matchers, labels) {
                let values = indexed.rule.equal_values(labels);
                indexed.sources.entry(values).or_default().insert(fingerprint);
            }
        }
    }

    /// Forgets an alert.
    pub fn remove(&mut self, fingerprint: u64, labels: &Labels) {
        for indexed in &mut self.rules {
            let values = indexed.rule.equal_values(labels);
            if let Some(set) = indexed.sources.get_mut(&values) {
                set.remove(&fingerprint);
                if set.is_empty() {
                    indexed.sources.remove(&values);
                }
            }
        }
    }

    /// Fingerprints of the alerts that inhibit these labels: for each rule the first that fires.
    /// `firing` gives the labels of an alert if it fires now.
    pub fn inhibiting<'a>(
        &self,
        labels: &Labels,
        firing: impl Fn(u64) -> Option<&'a Labels>,
    ) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        for IndexedRule { rule, sources } in &self.rules {
            if !all_match(&rule.target_matchers, labels) {
                continue;
            }
            let Some(candidates) = sources.get(&rule.equal_values(labels)) else { continue };
            // An alert on both sides is not inhibited by others on both sides, nor by itself.
            let two_sided = all_match(&rule.source_matchers, labels);
            let inhibits = |fingerprint: &&u64| {
                firing(**fingerprint)
                    .is_some_and(|source| !(two_sided && all_match(&rule.target_matchers, source)))
            };
            found.extend(candidates.iter().find(inhibits));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerting::matchers::parse_list;

    #[test]
    fn sources_mute_targets_with_equal_labels() {
        let rule = |source: &str, target: &str, equal: &[&str]| InhibitRule {
            name: String::new(),
            source_matchers: parse_list(source).unwrap(),
            target_matchers: parse_list(target).unwrap(),
            equal: equal.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut inhibitor = Inhibitor::new(vec![
            rule("severity=critical", "severity=warning", &["cluster", "gone"]),
            rule("kind=~\"a|b\"", "kind=~\"b|c\"", &[]),
        ]);
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        let alerts = [
            set(&[("severity", "critical"), ("cluster", "x"), ("n", "1")]),
            set(&[("severity", "critical"), ("cluster", "x"), ("n", "2")]),
            set(&[("kind", "b")]),
        ];
        for (fingerprint, labels) in alerts.iter().enumerate() {
            inhibitor.insert(fingerprint as u64, labels);
        }
        let ask = |labels: &Labels, firing: &[u64]| {
            let found = inhibitor.inhibiting(labels, |fingerprint| {
                firing.contains(&fingerprint).then(|| &alerts[fingerprint as usize])
            });
            found.into_iter().collect::<Vec<_>>()
        };
        let target = set(&[("severity", "warning"), ("cluster", "x")]);
        assert_eq!(ask(&target, &[0, 1, 2]), [0]);
        assert_eq!(ask(&target, &[1, 2]), [1], "another source with the same values still counts");
        assert_eq!(ask(&target, &[2]), [0; 0]);
        assert_eq!(ask(&set(&[("severity", "warning"), ("cluster", "y")]), &[0, 1]), [0; 0]);
        assert_eq!(
            ask(&set(&[("kind", "b")]), &[2]),
            [0; 0],
            "two-sided alerts do not mute each other"
        );
        assert_eq!(ask(&set(&[("kind", "c")]), &[2]), [2]);
    }
}
