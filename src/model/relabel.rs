//! Relabelling: rules that rewrite, keep or drop label sets, exactly as Prometheus applies them.
//!
//! Used for targets, scraped samples, alerts and remote write alike.

use md5::{Digest, Md5};

use super::labels::{LabelsBuilder, is_legacy_label_name};
use super::matcher::AnchoredRegex;

/// Which label names may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameValidation {
    /// Any text that is not empty.
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`
    Legacy,
}

impl NameValidation {
    /// Whether a label may have this name.
    pub fn is_valid_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether a metric may have this name.
    pub fn is_valid_metric_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => super::labels::is_legacy_metric_name(name),
        }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets the target label to the expanded replacement when the regex matches.
    Replace,
    /// Drops the set when the regex does not match.
    Keep,
    /// Drops the set when the regex matches.
    Drop,
    /// Drops the set when the joined sources differ from the target label.
    KeepEqual,
    /// Drops the set when the joined sources equal the target label.
    DropEqual,
    /// Sets the target label to a hash of the joined sources modulo `modulus`.
    HashMod,
    /// Copies labels whose names match to names made by the replacement.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target label to the joined sources in lower case.
    Lowercase,
    /// Sets the target label to the joined sources in upper case.
    Uppercase,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// The action of this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str().eq_ignore_ascii_case(name))
    }
}

/// One rule. Whoever makes it has checked what Prometheus checks when it loads a configuration
/// (a target label where one is needed, a modulus for `hashmod`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// Stands between the joined values.
    pub separator: String,
    /// The label that is set or compared; may contain `$1` and the like for `replace`.
    pub target_label: String,
    /// Matched against the joined values, or against label names.
    pub regex: AnchoredRegex,
    /// For `hashmod`; not zero there.
    pub modulus: u64,
    /// Expanded by Go's rules.
    pub replacement: String,
    /// What to do.
    pub action: Action,
    /// Which target labels are valid.
    pub name_validation: NameValidation,
}

/// Applies all rules in order. `false`: dropped (rules after the one that dropped did not run).
pub fn process(rules: &[Rule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    /// Applies this rule. `false`: the set is dropped.
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        match self.action {
            Action::LabelMap | Action::LabelDrop | Action::LabelKeep => {
                self.apply_to_names(labels);
                return true;
            }
            _ => {}
        }
        let joined = self.join_sources(labels);
        match self.action {
            Action::Keep => return self.regex.is_match(&joined),
            Action::Drop => return !self.regex.is_match(&joined),
            Action::KeepEqual => return labels.get(&self.target_label) == joined,
            Action::DropEqual => return labels.get(&self.target_label) != joined,
            Action::Replace => self.replace(&joined, labels),
            Action::HashMod => {
                let hash = hash(joined.as_bytes()) % self.modulus.max(1);
                labels.set(&self.target_label, &hash.to_string());
            }
            Action::Lowercase => labels.set(&self.target_label, &joined.to_lowercase()),
            Action::Uppercase => labels.set(&self.target_label, &joined.to_uppercase()),
            Action::LabelMap | Action::LabelDrop | Action::LabelKeep => {}
        }
        true
    }

    fn join_sources(&self, labels: &LabelsBuilder) -> String {
        let mut joined = String::new();
        for (index, name) in self.source_labels.iter().enumerate() {
            if index > 0 {
                joined.push_str(&self.separator);
            }
            joined.push_str(labels.get(name));
        }
        joined
    }

    fn replace(&self, joined: &str, labels: &mut LabelsBuilder) {
        let Some(target) = self.regex.expand(joined, &self.target_label) else { return };
        if !self.name_validation.is_valid_label_name(&target) {
            return;
        }
        let value = self.regex.expand(joined, &self.replacement).unwrap_or_default();
        labels.set(&target, &value);
    }

    fn apply_to_names(&self, labels: &mut LabelsBuilder) {
        let before: Vec<(String, String)> =
            labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, value) in before {
            match self.action {
                Action::LabelMap => {
                    if let Some(mapped) = self.regex.expand(&name, &self.replacement) {
                        labels.set(&mapped, &value);
                    }
                }
                Action::LabelDrop if self.regex.is_match(&name) => labels.remove(&name),
                Action::LabelKeep if !self.regex.is_match(&name) => labels.remove(&name),
                _ => {}
            }
        }
    }
}

/// The last eight bytes of the MD5 sum, big endian: users shard their targets by it.
fn hash(bytes: &[u8]) -> u64 {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let (_, last) = digest.split_last_chunk::<8>().expect("16 bytes hold 8");
    u64::from_be_bytes(*last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;

    fn rule(action: Action) -> Rule {
        Rule {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: AnchoredRegex::new("(.*)").unwrap(),
            modulus: 0,
            replacement: "$1".to_owned(),
            action,
            name_validation: NameValidation::Utf8,
        }
    }

    /// `sources | target | regex | replacement`; `-` keeps the default.
    fn spec(action: Action, text: &str) -> Rule {
        let mut rule = rule(action);
        let parts: Vec<&str> = text.split(" | ").collect();
        if parts[0] != "-" {
            rule.source_labels = parts[0].split(',').map(str::to_owned).collect();
        }
        rule.target_label = if parts[1] == "-" { String::new() } else { parts[1].to_owned() };
        if parts[2] != "-" {
            rule.regex = AnchoredRegex::new(parts[2]).unwrap();
        }
        if parts[3] != "-" {
            rule.replacement = parts[3].trim_matches('\'').to_owned();
        }
        rule
    }

    fn check(labels: &[(&str, &str)], rules: &[Rule]) -> String {
        let mut builder = Labels::from_pairs(labels.iter().copied()).to_builder();
        if process(rules, &mut builder) { builder.build().to_string() } else { "dropped".into() }
    }

    #[test]
    fn every_action_does_what_prometheus_does() {
        let base = [("a", "foo"), ("b", "bar"), ("c", "baz")];
        for (action, text, expected) in [
            (
                Action::Replace,
                "a | d | f(.*) | ch${1}-ch${1}",
                r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#,
            ),
            (
                Action::Replace,
                "a,b | a | (f).*;(.*)r | b${1}${2}m",
                r#"{a="bfbam", b="bar", c="baz"}"#,
            ),
            (Action::Replace, "a | d | x | y", r#"{a="foo", b="bar", c="baz"}"#),
            (Action::Replace, "- | b | (f)? | ''", r#"{a="foo", c="baz"}"#),
            (Action::Replace, "a | ${1} | f(.*) | v", r#"{a="foo", b="bar", c="baz", oo="v"}"#),
            (Action::Replace, "a | ${2} | f(.*) | v", r#"{a="foo", b="bar", c="baz"}"#),
            (Action::Replace, "a | d | (f)(.*) | $1_x", r#"{a="foo", b="bar", c="baz"}"#),
            (Action::Keep, "a,b | - | foo;bar | -", r#"{a="foo", b="bar", c="baz"}"#),
            (Action::Keep, "a | - | fo | -", "dropped"),
            (Action::Drop, "a | - | f.. | -", "dropped"),
            (Action::Drop, "x | - | .+ | -", r#"{a="foo", b="bar", c="baz"}"#),
            (Action::KeepEqual, "a | b | - | -", "dropped"),
            (Action::DropEqual, "a | a | - | -", "dropped"),
            (Action::DropEqual, "a | b | - | -", r#"{a="foo", b="bar", c="baz"}"#),
            (
                Action::LabelMap,
                "- | - | (a|b) | x_$1",
                r#"{a="foo", b="bar", c="baz", x_a="foo", x_b="bar"}"#,
            ),
            (Action::LabelDrop, "- | - | a|c | -", r#"{b="bar"}"#),
            (Action::LabelKeep, "- | - | a|c | -", r#"{a="foo", c="baz"}"#),
            (Action::Uppercase, "a,b | d | - | -", r#"{a="foo", b="bar", c="baz", d="FOO;BAR"}"#),
        ] {
            assert_eq!(check(&base, &[spec(action, text)]), expected, "{action:?} {text}");
        }
        let lower = spec(Action::Lowercase, "a | a | - | -");
        assert_eq!(check(&[("a", "FoO")], &[lower]), r#"{a="foo"}"#);
    }

    #[test]
    fn hashmod_shards_like_prometheus() {
        let mut by_hash = spec(Action::HashMod, "c | d | - | -");
        by_hash.modulus = 1000;
        // The value of Prometheus' own test.
        let labels = [("a", "foo"), ("b", "bar"), ("c", "baz")];
        assert_eq!(check(&labels, &[by_hash]), r#"{a="foo", b="bar", c="baz", d="976"}"#);
    }

    #[test]
    fn legacy_names_restrict_targets_and_a_drop_ends_the_list() {
        let mut dotted = spec(Action::Replace, "a | my.dot | (.*) | -");
        assert_eq!(check(&[("a", "1")], &[dotted.clone()]), r#"{a="1", "my.dot"="1"}"#);
        dotted.name_validation = NameValidation::Legacy;
        assert_eq!(check(&[("a", "1")], &[dotted.clone()]), r#"{a="1"}"#);
        assert_eq!(check(&[("a", "1")], &[spec(Action::Drop, "a | - | 1 | -"), dotted]), "dropped");
        assert_eq!(Action::parse("LabelMap"), Some(Action::LabelMap));
    }
}
