//! `alertmanager.yml`: schema, defaults and checks, to [`alerting::Options`].
//!
//! An unmodified file of Alertmanager loads; the errors are Alertmanager's. Receivers of a kind
//! that we cannot send to are an error only where a route leads to them.

mod intervals;
mod receivers;
mod schema;

use std::collections::BTreeSet;
use std::path::Path;

use tracing::warn;

use super::yaml::{ConfigError, LabelMap, Span, load as load_yaml};
use crate::alerting::inhibit::InhibitRule;
use crate::alerting::matchers::parse_list;
use crate::alerting::route::{GroupBy, RouteOptions};
use crate::alerting::time_interval::NamedIntervals;
use crate::alerting::{self, receiver::ReceiverOptions};
use crate::base::disk::Disk;
use crate::model::labels::{Labels, is_legacy_label_name, quote};
use crate::model::matcher::{MatchOp, Matcher};
use crate::template::notification::Templates;

/// `resolve_timeout` unless it is set.
const RESOLVE_TIMEOUT_MS: i64 = 5 * 60_000;
/// `group_wait` of the root unless it is set.
const GROUP_WAIT_MS: i64 = 30_000;
/// `group_interval` of the root unless it is set.
const GROUP_INTERVAL_MS: i64 = 5 * 60_000;
/// `repeat_interval` of the root unless it is set.
const REPEAT_INTERVAL_MS: i64 = 4 * 3_600_000;
/// Files that one glob of `templates` may find; more is a mistake in the glob.
const TEMPLATE_FILES_MAX: usize = 1_000;

/// What the command line adds to the file.
#[derive(Clone, Debug)]
pub struct Flags {
    /// Where people reach this server, without a slash at the end.
    pub external_url: String,
    /// How long ended silences and the notification log are kept.
    pub retention_ms: i64,
}

/// Reads a file and the templates that it names. Blocks on the disk.
///
/// # Errors
/// The first thing that is wrong, with the file.
pub fn load(disk: &dyn Disk, path: &Path, flags: &Flags) -> Result<alerting::Options, ConfigError> {
    let unreadable = |err: std::io::Error| ConfigError::of_file(path, err.to_string());
    let bytes = disk.read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| ConfigError::of_file(path, "file is not valid UTF-8"))?;
    parse(disk, path, &text, flags)
}

/// Like [`load`], for a text that is already here.
///
/// # Errors
/// The first thing that is wrong, with the file.
pub fn parse(
    disk: &dyn Disk,
    path: &Path,
    text: &str,
    flags: &Flags,
) -> Result<alerting::Options, ConfigError> {
    let file: schema::File = load_yaml(path, text)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut options =
        options(&file, base, flags).map_err(|message| ConfigError::of_file(path, message))?;
    options.templates = templates(disk, base, &file.templates)?;
    warn_of_bad_templates(&options);
    Ok(options)
}

fn options(file: &schema::File, base: &Path, flags: &Flags) -> Result<alerting::Options, String> {
    let no_global = schema::Global::default();
    let global = file.global.as_ref().unwrap_or(&no_global);
    let context = receivers::Context { global, base };
    context.check_global()?;
    let receivers = receivers(file, &context)?;
    let time_intervals = time_intervals(file)?;
    let route = root(file, &receivers, &time_intervals)?;
    let resolve_timeout = global.resolve_timeout.map_or(RESOLVE_TIMEOUT_MS, Span::as_ms);
    let original = serde_saphyr::to_string(file)
        .map_err(|err| format!("error creating config string: {err}"))?;
    Ok(alerting::Options {
        resolve_timeout_ms: resolve_timeout,
        retention_ms: flags.retention_ms,
        external_url: flags.external_url.clone(),
        route,
        receivers,
        inhibit_rules: file.inhibit_rules.iter().map(inhibit_rule).collect::<Result<_, _>>()?,
        time_intervals,
        templates: Templates::builtin(),
        original,
    })
}

fn receivers(
    file: &schema::File,
    context: &receivers::Context<'_>,
) -> Result<Vec<ReceiverOptions>, String> {
    let mut names = BTreeSet::new();
    let mut receivers = Vec::new();
    for written in &file.receivers {
        if written.name.is_empty() {
            return Err("missing name in receiver".to_owned());
        }
        if !names.insert(&written.name) {
            let name = quote(&written.name);
            return Err(format!("notification config name {name} is not unique"));
        }
        receivers.push(context.receiver(written)?);
    }
    Ok(receivers)
}

fn time_intervals(file: &schema::File) -> Result<Vec<NamedIntervals>, String> {
    let mute = file.mute_time_intervals.iter().map(|interval| ("mute time interval", interval));
    let others = file.time_intervals.iter().map(|interval| ("time interval", interval));
    let mut all: Vec<NamedIntervals> = Vec::new();
    for (kind, written) in mute.chain(others) {
        if written.name.is_empty() {
            return Err(format!("missing name in {kind}"));
        }
        if all.iter().any(|other| other.name == written.name) {
            return Err(format!("{kind} {} is not unique", quote(&written.name)));
        }
        let intervals = written.time_intervals.iter().map(intervals::interval);
        let intervals = intervals.collect::<Result<_, _>>()?;
        all.push(NamedIntervals { name: written.name.clone(), intervals });
    }
    Ok(all)
}

/// Checks the whole tree from the root and lets children inherit.
fn root(
    file: &schema::File,
    receivers: &[ReceiverOptions],
    intervals: &[NamedIntervals],
) -> Result<RouteOptions, String> {
    let refuse = |text: &str| Err(text.to_owned());
    let Some(root) = &file.route else { return refuse("no route provided in config") };
    if root.receiver.is_empty() {
        return refuse("root route must specify a default receiver");
    }
    if !root.r#match.is_empty() || !root.match_re.is_empty() || !root.matchers.is_empty() {
        return refuse("root route must not have any matchers");
    }
    if !root.mute_time_intervals.is_empty() {
        return refuse("root route must not have any mute time intervals");
    }
    if !root.active_time_intervals.is_empty() {
        return refuse("root route must not have any active time intervals");
    }
    if root.r#continue {
        return refuse("cannot have continue in root route");
    }
    let defaults = RouteOptions {
        receiver: String::new(),
        matchers: Vec::new(),
        continues: false,
        group_by: GroupBy::Labels(BTreeSet::new()),
        group_wait_ms: GROUP_WAIT_MS,
        group_interval_ms: GROUP_INTERVAL_MS,
        repeat_interval_ms: REPEAT_INTERVAL_MS,
        mute_time_intervals: Vec::new(),
        active_time_intervals: Vec::new(),
        labels: Labels::empty(),
        routes: Vec::new(),
    };
    let tree = route(root, &defaults)?;
    check_names(&tree, file, receivers, intervals)?;
    Ok(tree)
}

/// Receivers and intervals that the tree names. The loader bounds its depth.
fn check_names(
    route: &RouteOptions,
    file: &schema::File,
    receivers: &[ReceiverOptions],
    intervals: &[NamedIntervals],
) -> Result<(), String> {
    for child in &route.routes {
        check_names(child, file, receivers, intervals)?;
    }
    if !receivers.iter().any(|receiver| receiver.name == route.receiver) {
        return Err(format!("undefined receiver {} used in route", quote(&route.receiver)));
    }
    let written = file.receivers.iter().find(|receiver| receiver.name == route.receiver);
    if let Some(kind) = written.and_then(schema::Receiver::unsupported) {
        return Err(format!(
            "receiver {}: receiver type {kind} is not supported yet",
            quote(&route.receiver)
        ));
    }
    let named = route.active_time_intervals.iter().chain(&route.mute_time_intervals);
    for name in named {
        if !intervals.iter().any(|interval| interval.name == *name) {
            return Err(format!("undefined time interval {} used in route", quote(name)));
        }
    }
    Ok(())
}

fn route(written: &schema::Route, parent: &RouteOptions) -> Result<RouteOptions, String> {
    let ms = |own: Option<Span>, inherited| own.map_or(inherited, Span::as_ms);
    if written.group_interval.is_some_and(|span| span.is_zero()) {
        return Err("group_interval cannot be zero".to_owned());
    }
    if written.repeat_interval.is_some_and(|span| span.is_zero()) {
        return Err("repeat_interval cannot be zero".to_owned());
    }
    let mut labels = parent.labels.to_builder();
    for (name, value) in written.labels.iter() {
        labels.set(name, value);
    }
    let receiver = if written.receiver.is_empty() { &parent.receiver } else { &written.receiver };
    let mut route = RouteOptions {
        receiver: receiver.clone(),
        matchers: matchers(&written.r#match, &written.match_re, &written.matchers)?,
        continues: written.r#continue,
        group_by: group_by(written.group_by.as_deref(), &parent.group_by)?,
        group_wait_ms: ms(written.group_wait, parent.group_wait_ms),
        group_interval_ms: ms(written.group_interval, parent.group_interval_ms),
        repeat_interval_ms: ms(written.repeat_interval, parent.repeat_interval_ms),
        mute_time_intervals: written.mute_time_intervals.clone(),
        active_time_intervals: written.active_time_intervals.clone(),
        labels: labels.build(),
        routes: Vec::new(),
    };
    route.routes =
        written.routes.iter().map(|child| self::route(child, &route)).collect::<Result<_, _>>()?;
    Ok(route)
}

fn group_by(written: Option<&[String]>, inherited: &GroupBy) -> Result<GroupBy, String> {
    let Some(names) = written else { return Ok(inherited.clone()) };
    let wildcard = names.iter().any(|name| name == "...");
    let mut set = BTreeSet::new();
    for name in names.iter().filter(|name| *name != "...") {
        if name.is_empty() {
            return Err(format!("invalid label name {} in group_by list", quote(name)));
        }
        if wildcard {
            let text = "cannot have wildcard group_by (`...`) and other labels at the same time";
            return Err(text.to_owned());
        }
        if !set.insert(name.clone()) {
            return Err(format!("duplicated label {} in group_by", quote(name)));
        }
    }
    Ok(if wildcard { GroupBy::All } else { GroupBy::Labels(set) })
}

/// The three notations of conditions; all hold together.
fn matchers(
    equal: &LabelMap,
    regex: &LabelMap,
    written: &[String],
) -> Result<Vec<Matcher>, String> {
    let mut matchers = Vec::new();
    for (name, _) in equal.iter().chain(regex.iter()) {
        if !is_legacy_label_name(name) {
            return Err(format!("invalid label name {}", quote(name)));
        }
    }
    matchers.extend(equal.iter().map(|(name, value)| Matcher::equal(name, value)));
    for (name, value) in regex.iter() {
        // Alertmanager's group keys show these anchored; so the keys stay what they were.
        let anchored = format!("^(?:{value})$");
        let matcher = Matcher::new(MatchOp::Regex, name, &anchored);
        matchers.push(matcher.map_err(|err| err.to_string())?);
    }
    for text in written {
        matchers.extend(parse_list(text).map_err(|err| err.to_string())?);
    }
    Ok(matchers)
}

fn inhibit_rule(written: &schema::InhibitRule) -> Result<InhibitRule, String> {
    if written.equal.iter().any(String::is_empty) {
        return Err(format!("invalid label name {} in equal list", quote("")));
    }
    Ok(InhibitRule {
        name: written.name.clone(),
        source_matchers: matchers(
            &written.source_match,
            &written.source_match_re,
            &written.source_matchers,
        )?,
        target_matchers: matchers(
            &written.target_match,
            &written.target_match_re,
            &written.target_matchers,
        )?,
        equal: written.equal.clone(),
    })
}

fn templates(disk: &dyn Disk, base: &Path, globs: &[String]) -> Result<Templates, ConfigError> {
    let mut templates = Templates::builtin();
    for pattern in globs {
        let full = base.join(pattern);
        let invalid = |text: String| ConfigError::of_file(&full, text);
        let found = glob::glob(&full.to_string_lossy()).map_err(|err| invalid(err.to_string()))?;
        for (index, path) in found.enumerate() {
            let path = path.map_err(|err| invalid(err.to_string()))?;
            if index >= TEMPLATE_FILES_MAX {
                return Err(invalid(format!("more than {TEMPLATE_FILES_MAX} template files")));
            }
            let bad = |text: String| ConfigError::of_file(&path, text);
            let bytes = disk.read(&path).map_err(|err| bad(err.to_string()))?;
            let text = String::from_utf8_lossy(&bytes);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            templates.add_file(&name, &text).map_err(|err| bad(err.to_string()))?;
        }
    }
    Ok(templates)
}

/// Alertmanager finds out only when it sends; we say it at once, but load the file as it does.
fn warn_of_bad_templates(options: &alerting::Options) {
    for receiver in &options.receivers {
        for integration in &receiver.integrations {
            for text in integration.settings.texts() {
                if let Err(err) = options.templates.check(text) {
                    warn!(receiver = receiver.name, error = %err, "A template does not parse.");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
