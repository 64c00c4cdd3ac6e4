//! Rule files: schema and the checks of Prometheus, whose texts name group and rule.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::yaml::{ConfigError, LabelMap, Place, Span, Spanned, load};
use crate::model::labels::{METRIC_NAME, quote};
use crate::model::relabel::NameValidation;
use crate::promql::parser::{ParserOptions, parse};
use crate::rules::{GroupOptions, RuleKind, RuleOptions};
use crate::template::prometheus::check_alert_text;

/// A rule file as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct RuleFile {
    pub groups: Vec<Spanned<RuleGroup>>,
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct RuleGroup {
    pub name: String,
    pub interval: Option<Span>,
    pub query_offset: Option<Span>,
    pub limit: u32,
    pub labels: LabelMap,
    pub rules: Vec<Spanned<RuleConfig>>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields bear the names of the configuration")]
pub struct RuleConfig {
    pub record: Option<Spanned<String>>,
    pub alert: Option<Spanned<String>>,
    pub expr: Option<Spanned<String>>,
    #[serde(rename = "for")]
    pub hold: Option<Spanned<Span>>,
    pub keep_firing_for: Option<Spanned<Span>>,
    pub labels: LabelMap,
    pub annotations: LabelMap,
}

/// What rule files get from outside.
#[derive(Clone, Debug)]
pub struct RuleDefaults {
    /// `global.evaluation_interval`
    pub interval: Span,
    /// `global.rule_query_offset`
    pub query_offset: Span,
    /// Which names are valid.
    pub names: NameValidation,
    /// Which syntax expressions may use.
    pub parser: ParserOptions,
}

/// The groups of one file.
///
/// # Errors
/// All that is wrong with it; a file that is no YAML has one error.
pub fn parse_rules(
    path: &Path,
    text: &str,
    defaults: &RuleDefaults,
) -> Result<Vec<GroupOptions>, Vec<ConfigError>> {
    let file: RuleFile = load(path, text).map_err(|err| vec![err])?;
    let mut checker = Checker { path, defaults, errors: Vec::new() };
    let (mut groups, mut names) = (Vec::new(), BTreeSet::new());
    for group in &file.groups {
        if group.value.name.is_empty() {
            checker.fail(group, "Groupname must not be empty".to_owned());
        } else if !names.insert(&group.value.name) {
            let name = quote(&group.value.name);
            checker.fail(group, format!("groupname: {name} is repeated in the same file"));
        }
        groups.push(checker.group(group));
    }
    if checker.errors.is_empty() { Ok(groups) } else { Err(checker.errors) }
}

struct Checker<'a> {
    path: &'a Path,
    defaults: &'a RuleDefaults,
    errors: Vec<ConfigError>,
}

/// A rule and where it stands, for error texts.
#[derive(Clone, Copy)]
struct Site<'a> {
    group: &'a str,
    /// From 1.
    number: usize,
    name: &'a str,
}

impl Checker<'_> {
    fn fail(&mut self, place: impl Into<Place>, message: String) {
        self.errors.push(ConfigError::at(self.path, place, message));
    }

    fn fail_rule(&mut self, site: Site<'_>, place: impl Into<Place>, message: &str) {
        let (group, name) = (quote(site.group), quote(site.name));
        self.fail(place, format!("group {group}, rule {}, {name}: {message}", site.number));
    }

    fn group(&mut self, spanned: &Spanned<RuleGroup>) -> GroupOptions {
        let group = &spanned.value;
        for (name, _) in group.labels.iter() {
            if !self.is_label(name) {
                self.fail(spanned, format!("invalid label name: {name}"));
            }
        }
        let interval = group.interval.filter(|span| !span.is_zero());
        let mut rules = Vec::with_capacity(group.rules.len());
        for (index, rule) in group.rules.iter().enumerate() {
            rules.extend(self.rule(group, index + 1, rule));
        }
        GroupOptions {
            name: group.name.clone(),
            file: self.path.display().to_string(),
            interval_ms: interval.unwrap_or(self.defaults.interval).as_ms(),
            query_offset_ms: group.query_offset.unwrap_or(self.defaults.query_offset).as_ms(),
            limit: group.limit as usize,
            rules,
        }
    }

    fn is_label(&self, name: &str) -> bool {
        self.defaults.names.is_valid_label_name(name) && name != METRIC_NAME
    }

    fn rule(
        &mut self,
        group: &RuleGroup,
        number: usize,
        spanned: &Spanned<RuleConfig>,
    ) -> Option<RuleOptions> {
        let rule = &spanned.value;
        let set =
            |name: &Option<Spanned<String>>| name.clone().filter(|name| !name.value.is_empty());
        let (record, alert) = (set(&rule.record), set(&rule.alert));
        let name = match (&record, &alert) {
            (Some(name), None) | (None, Some(name)) => name,
            (both, _) => {
                let name = both.as_ref().map_or("", |name| &name.value);
                let site = Site { group: &group.name, number, name };
                let message = if both.is_some() {
                    "only one of 'record' and 'alert' must be set"
                } else {
                    "one of 'record' or 'alert' must be set"
                };
                self.fail_rule(site, spanned, message);
                return None;
            }
        };
        let site = Site { group: &group.name, number, name: &name.value };
        let expr = self.expr(site, spanned);
        self.check_texts(site, spanned, record.is_some());
        if let Some(name) = &record {
            self.check_recording(site, name, rule);
        }
        let mut labels = group.labels.0.clone();
        labels.extend(rule.labels.0.clone());
        let hold = rule.hold.as_ref().map_or(0, |span| span.value.as_ms());
        let keep = rule.keep_firing_for.as_ref().map_or(0, |span| span.value.as_ms());
        let kind = match record {
            Some(_) => RuleKind::Recording,
            None => RuleKind::Alerting {
                hold_ms: hold,
                keep_firing_ms: keep,
                annotations: rule.annotations.0.clone().into_iter().collect(),
            },
        };
        let labels = labels.into_iter().collect();
        Some(RuleOptions { name: name.value.clone(), expr: expr?, labels, kind })
    }

    /// The expression in its canonical form.
    fn expr(&mut self, site: Site<'_>, rule: &Spanned<RuleConfig>) -> Option<String> {
        let written = rule.value.expr.as_ref().filter(|expr| !expr.value.is_empty());
        let Some(written) = written else {
            self.fail_rule(site, rule, "field 'expr' must be set in rule");
            return None;
        };
        match parse(&written.value, &self.defaults.parser) {
            Ok(expr) => Some(expr.to_string()),
            Err(err) => {
                let message = format!("could not parse expression: {err}");
                self.fail_rule(site, written, &message);
                None
            }
        }
    }

    /// Labels and annotations: names, and the syntax of templates.
    fn check_texts(&mut self, site: Site<'_>, spanned: &Spanned<RuleConfig>, is_recording: bool) {
        let rule = &spanned.value;
        for (name, text) in rule.labels.iter() {
            if !self.is_label(name) {
                self.fail_rule(site, spanned, &format!("invalid label name: {name}"));
            }
            if !is_recording {
                self.check_template(site, spanned, ("label", name), text);
            }
        }
        for (name, text) in rule.annotations.iter() {
            if !self.defaults.names.is_valid_label_name(name) {
                self.fail_rule(site, spanned, &format!("invalid annotation name: {name}"));
            }
            if !is_recording {
                self.check_template(site, spanned, ("annotation", name), text);
            }
        }
    }

    fn check_template(
        &mut self,
        site: Site<'_>,
        rule: &Spanned<RuleConfig>,
        (kind, name): (&str, &str),
        text: &str,
    ) {
        if let Err(err) = check_alert_text(&format!("__alert_{}", site.name), text) {
            self.fail_rule(site, rule, &format!("{kind} {}: {err}", quote(name)));
        }
    }

    fn check_recording(&mut self, site: Site<'_>, name: &Spanned<String>, rule: &RuleConfig) {
        if !rule.annotations.is_empty() {
            self.fail_rule(site, name, "invalid field 'annotations' in recording rule");
        }
        if let Some(hold) = rule.hold.as_ref().filter(|span| !span.value.is_zero()) {
            self.fail_rule(site, hold, "invalid field 'for' in recording rule");
        }
        if let Some(keep) = rule.keep_firing_for.as_ref().filter(|span| !span.value.is_zero()) {
            self.fail_rule(site, keep, "invalid field 'keep_firing_for' in recording rule");
        }
        let text = &name.value;
        if text.contains(['{', '}']) {
            let message = "braces present in the recording rule name; should it be in expr?: ";
            self.fail_rule(site, name, &format!("{message}{text}"));
        } else if !self.defaults.names.is_valid_metric_name(text) {
            self.fail_rule(site, name, &format!("invalid recording rule name: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<GroupOptions>, String> {
        let defaults = RuleDefaults {
            interval: Span::from_secs(60),
            query_offset: Span::default(),
            names: NameValidation::Utf8,
            parser: ParserOptions::ALL,
        };
        parse_rules(Path::new("r.yml"), text, &defaults)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// Errors of a file with one group of these rules.
    fn errors(rules: &str) -> String {
        parse(&format!("groups:\n- name: g\n  rules:\n{rules}")).unwrap_err()
    }

    #[test]
    fn groups_take_defaults_and_merge_labels() {
        let text = "groups:\n- name: g\n  labels: {team: a, tier: b}\n  rules:\n  \
                    - record: x:y\n    expr: sum(a)  by  (b)\n    labels: {tier: c}\n  \
                    - alert: A\n    expr: up==0\n    for: 5m\n    annotations: {b: '1', a: '2'}\n\
                    - name: h\n  interval: 15s\n  query_offset: 1m\n  limit: 3\n";
        let groups = parse(text).unwrap();
        insta::assert_debug_snapshot!(groups, @r#"
[
    GroupOptions {
        name: "g",
        file: "r.yml",
        interval_ms: 60000,
        query_offset_ms: 0,
        limit: 0,
        rules: [
            RuleOptions {
                name: "x:y",
                expr: "sum by (b) (a)",
                labels: [
                    (
                        "team",
                        "a",
                    ),
                    (
                        "tier",
                        "c",
                    ),
                ],
                kind: Recording,
            },
            RuleOptions {
                name: "A",
                expr: "up == 0",
                labels: [
                    (
                        "team",
                        "a",
                    ),
                    (
                        "tier",
                        "b",
                    ),
                ],
                kind: Alerting {
                    hold_ms: 300000,
                    keep_firing_ms: 0,
                    annotations: [
                        (
                            "a",
                            "2",
                        ),
                        (
                            "b",
                            "1",
                        ),
                    ],
                },
            },
        ],
    },
    GroupOptions {
        name: "h",
        file: "r.yml",
        interval_ms: 15000,
        query_offset_ms: 60000,
        limit: 3,
        rules: [],
    },
]
"#);
    }

    #[test]
    fn errors_name_place_group_and_rule() {
        insta::assert_snapshot!(errors("  - expr: a"), @r#"r.yml:4:5: group "g", rule 1, "": one of 'record' or 'alert' must be set"#);
        insta::assert_snapshot!(errors("  - {alert: a, record: b, expr: c}"), @r#"r.yml:4:5: group "g", rule 1, "b": only one of 'record' and 'alert' must be set"#);
        insta::assert_snapshot!(errors("  - record: a\n    expr: sum(("), @r#"r.yml:5:11: group "g", rule 1, "a": could not parse expression: 1:6: parse error: unclosed left parenthesis"#);
        insta::assert_snapshot!(errors("  - alert: a"), @r#"r.yml:4:5: group "g", rule 1, "a": field 'expr' must be set in rule"#);
        insta::assert_snapshot!(errors("  - {record: 'a{}', expr: b, for: 5m, annotations: {a: b}}"), @r#"
r.yml:4:14: group "g", rule 1, "a{}": invalid field 'annotations' in recording rule
r.yml:4:35: group "g", rule 1, "a{}": invalid field 'for' in recording rule
r.yml:4:14: group "g", rule 1, "a{}": braces present in the recording rule name; should it be in expr?: a{}
"#);
        insta::assert_snapshot!(errors("  - {record: a, expr: b, labels: {__name__: c}}"), @r#"r.yml:4:5: group "g", rule 1, "a": invalid label name: __name__"#);
        insta::assert_snapshot!(errors("  - {alert: a, expr: b, annotations: {s: '{{ if }}'}}"), @r#"r.yml:4:5: group "g", rule 1, "a": annotation "s": template: __alert_a:1: missing value for if"#);
        insta::assert_snapshot!(errors("  - {alert: a, expr: b, fore: 5m}"), @r#"r.yml:4:25: unknown field "fore", expected one of: alert, annotations, expr, for, keep_firing_for, labels, record"#);
        insta::assert_snapshot!(parse("groups:\n- name: a\n- name: a\n- rules: []").unwrap_err(), @r#"
r.yml:3:3: groupname: "a" is repeated in the same file
r.yml:4:3: Groupname must not be empty
"#);
    }
}
