//! `otlp`: how metrics of OpenTelemetry are named.

use serde::{Deserialize, Serialize};

use super::yaml::is_default;
use crate::model::labels::quote;
use crate::model::relabel::NameValidation;
use crate::remote::otlp::names::{LabelNamer, Strategy};
use crate::remote::otlp::{self, Promoted};

/// `otlp`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct Otlp {
    #[serde(skip_serializing_if = "is_default")]
    pub promote_all_resource_attributes: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub promote_resource_attributes: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub ignore_resource_attributes: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub translation_strategy: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub keep_identifying_resource_attributes: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub convert_histograms_to_nhcb: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub promote_scope_metadata: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub label_name_underscore_sanitization: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub label_name_preserve_multiple_underscores: Option<bool>,
}

fn check_attributes(names: &[String], what: &str) -> Result<(), String> {
    for (index, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(format!("empty {what} OTel resource attribute"));
        }
        if names[..index].contains(name) {
            return Err(format!("duplicated {what} OTel resource attribute {}", quote(name)));
        }
    }
    Ok(())
}

impl Otlp {
    fn strategy(&self) -> Result<Strategy, String> {
        Ok(match self.translation_strategy.as_deref() {
            None | Some("" | "UnderscoreEscapingWithSuffixes") => {
                Strategy::UnderscoreEscapingWithSuffixes
            }
            Some("UnderscoreEscapingWithoutSuffixes") => {
                Strategy::UnderscoreEscapingWithoutSuffixes
            }
            Some("NoUTF8EscapingWithSuffixes") => Strategy::NoUtf8EscapingWithSuffixes,
            Some("NoTranslation") => Strategy::NoTranslation,
            Some(other) => {
                return Err(format!("unsupported OTLP translation strategy {}", quote(other)));
            }
        })
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(&self, names: NameValidation) -> Result<(), String> {
        let strategy = self.strategy()?;
        if names == NameValidation::Legacy && !strategy.escapes() {
            let name = self.translation_strategy.as_deref().unwrap_or_default();
            let name = quote(name);
            return Err(format!(
                "OTLP translation strategy {name} is not allowed when UTF8 is disabled"
            ));
        }
        if self.promote_all_resource_attributes {
            if !self.promote_resource_attributes.is_empty() {
                return Err("'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously".to_owned());
            }
            return check_attributes(&self.ignore_resource_attributes, "ignored")
                .map_err(|err| format!("invalid 'ignore_resource_attributes': {err}"));
        }
        if !self.ignore_resource_attributes.is_empty() {
            return Err("'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true".to_owned());
        }
        check_attributes(&self.promote_resource_attributes, "promoted")
            .map_err(|err| format!("invalid 'promote_resource_attributes': {err}"))
    }

    /// As the receiver takes it. The two arguments are flags.
    pub(super) fn to_options(
        &self,
        lookback_delta_ms: i64,
        type_and_unit_labels: bool,
    ) -> otlp::Options {
        let strategy = self.strategy().unwrap_or_default();
        otlp::Options {
            strategy,
            labels: LabelNamer {
                escapes: strategy.escapes(),
                prefixes_underscore: self.label_name_underscore_sanitization.unwrap_or(true),
                keeps_underscores: self.label_name_preserve_multiple_underscores.unwrap_or(true),
            },
            promoted: if self.promote_all_resource_attributes {
                Promoted::AllBut(self.ignore_resource_attributes.clone())
            } else {
                Promoted::Only(self.promote_resource_attributes.clone())
            },
            keep_identifying: self.keep_identifying_resource_attributes,
            histograms_to_custom_buckets: self.convert_histograms_to_nhcb,
            promote_scope: self.promote_scope_metadata,
            type_and_unit_labels,
            lookback_delta_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, names: NameValidation) -> String {
        let own: Otlp = serde_saphyr::from_str(yaml).unwrap();
        own.check(names).err().unwrap_or_default()
    }

    #[test]
    fn contradictions_are_refused() {
        let utf8 = |yaml| check(yaml, NameValidation::Utf8);
        assert_eq!(utf8("translation_strategy: NoTranslation"), "");
        assert_eq!(
            utf8("{promote_all_resource_attributes: true, ignore_resource_attributes: [a]}"),
            ""
        );
        assert!(
            utf8("{promote_all_resource_attributes: true, promote_resource_attributes: [a]}")
                .contains("simultaneously")
        );
        assert!(utf8("ignore_resource_attributes: [a]").contains("unless"));
        assert_eq!(
            utf8("promote_resource_attributes: [a, a]"),
            "invalid 'promote_resource_attributes': duplicated promoted OTel resource attribute \"a\""
        );
        assert!(utf8("promote_resource_attributes: ['']").contains("empty promoted"));
        assert_eq!(
            utf8("translation_strategy: Odd"),
            "unsupported OTLP translation strategy \"Odd\""
        );
        assert!(
            check("translation_strategy: NoTranslation", NameValidation::Legacy)
                .contains("when UTF8 is disabled")
        );
    }
}
