//! `relabel_configs` and their kin: the schema and Prometheus' checks.

use serde::{Deserialize, Serialize};

use super::yaml::is_default;
use crate::model::labels::quote;
use crate::model::matcher::AnchoredRegex;
use crate::model::relabel::{Action, NameValidation, Rule};

/// One relabelling rule as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct RelabelConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub source_labels: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub separator: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub regex: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub modulus: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub target_label: String,
    #[serde(skip_serializing_if = "is_default")]
    pub replacement: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub action: Option<String>,
}

const SEPARATOR: &str = ";";
const REGEX: &str = "(.*)";
const REPLACEMENT: &str = "$1";

impl RelabelConfig {
    /// The rule, defaults filled in.
    ///
    /// # Errors
    /// Prometheus' texts.
    pub fn to_rule(&self, name_validation: NameValidation) -> Result<Rule, String> {
        let action = match self.action.as_deref() {
            None => Action::Replace,
            Some("") => return Err("relabel action cannot be empty".to_owned()),
            Some(name) => Action::parse(name)
                .ok_or_else(|| format!("unknown relabel action {}", quote(name)))?,
        };
        self.check(action, name_validation)?;
        let source = self.regex.as_deref().unwrap_or(REGEX);
        let regex = AnchoredRegex::new(source).map_err(|err| err.to_string())?;
        Ok(Rule {
            source_labels: self.source_labels.clone(),
            separator: self.separator.clone().unwrap_or_else(|| SEPARATOR.to_owned()),
            target_label: self.target_label.clone(),
            regex,
            modulus: self.modulus,
            replacement: self.replacement.clone().unwrap_or_else(|| REPLACEMENT.to_owned()),
            action,
            name_validation,
        })
    }

    fn check(&self, action: Action, names: NameValidation) -> Result<(), String> {
        let word = action.as_str();
        let is_set = |value: &Option<String>, default: &str| {
            value.as_deref().is_some_and(|value| value != default)
        };
        let has_separator = is_set(&self.separator, SEPARATOR);
        let has_replacement = is_set(&self.replacement, REPLACEMENT);
        if action == Action::HashMod && self.modulus == 0 {
            return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        let (needs_target, takes_replacement) = match action {
            Action::Replace | Action::HashMod => (true, true),
            Action::KeepEqual | Action::DropEqual | Action::Lowercase | Action::Uppercase => {
                (true, false)
            }
            _ => (false, true),
        };
        if needs_target && self.target_label.is_empty() {
            return Err(format!(
                "relabel configuration for {word} action requires 'target_label' value"
            ));
        }
        let has_variable = self.target_label.contains('$') && action == Action::Replace;
        if needs_target && !has_variable && !names.is_valid_label_name(&self.target_label) {
            let label = quote(&self.target_label);
            return Err(format!("{label} is invalid 'target_label' for {word} action"));
        }
        match action {
            Action::KeepEqual | Action::DropEqual
                if is_set(&self.regex, REGEX)
                    || self.modulus != 0
                    || has_separator
                    || has_replacement =>
            {
                return Err(format!(
                    "{word} action requires only 'source_labels' and `target_label`, and no other \
                     fields"
                ));
            }
            Action::LabelDrop | Action::LabelKeep
                if !self.source_labels.is_empty()
                    || !self.target_label.is_empty()
                    || self.modulus != 0
                    || has_separator
                    || has_replacement =>
            {
                let text = "action requires only 'regex', and no other fields";
                return Err(format!("{word} {text}"));
            }
            _ => {}
        }
        if !takes_replacement && has_replacement {
            return Err(format!("'replacement' can not be set for {word} action"));
        }
        Ok(())
    }
}

/// All rules of a list.
///
/// # Errors
/// What is wrong with the first that is.
pub fn to_rules(configs: &[RelabelConfig], names: NameValidation) -> Result<Vec<Rule>, String> {
    configs.iter().map(|config| config.to_rule(names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::load;
    use std::path::Path;

    fn rule(text: &str) -> Result<Rule, String> {
        let config: RelabelConfig = load(Path::new("n.yml"), text).unwrap();
        config.to_rule(NameValidation::Utf8)
    }

    #[test]
    fn rules_are_checked_like_in_prometheus() {
        let error = |text| rule(text).unwrap_err();
        insta::assert_snapshot!(error("{action: foo}"), @r#"unknown relabel action "foo""#);
        insta::assert_snapshot!(error("{action: ''}"), @"relabel action cannot be empty");
        insta::assert_snapshot!(error("{source_labels: [a]}"), @"relabel configuration for replace action requires 'target_label' value");
        insta::assert_snapshot!(error("{action: hashmod, target_label: a}"), @"relabel configuration for hashmod requires non-zero modulus");
        insta::assert_snapshot!(error("{action: labeldrop, source_labels: [a]}"), @"labeldrop action requires only 'regex', and no other fields");
        insta::assert_snapshot!(error("{action: lowercase, target_label: a, replacement: b}"), @"'replacement' can not be set for lowercase action");
        insta::assert_snapshot!(error("{action: keepequal, target_label: a, regex: b}"), @"keepequal action requires only 'source_labels' and `target_label`, and no other fields");
        insta::assert_snapshot!(error("{regex: '(', target_label: a}"), @"error parsing regexp: missing closing ): `^(?s:()$`");
    }

    #[test]
    fn defaults_are_those_of_prometheus() {
        let rule = rule("{source_labels: [a], target_label: b, action: Replace}").unwrap();
        assert_eq!((rule.separator.as_str(), rule.replacement.as_str()), (";", "$1"));
        assert_eq!((rule.regex.source(), rule.action), ("(.*)", Action::Replace));
    }
}
