//! The query log (`global.query_log_file`): one line of JSON for each query that was evaluated,
//! with the fields of Prometheus. Engines share it; queries that cannot be parsed are not in it.

use std::io::Write;
use std::net::IpAddr;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::stats::Stats;
use crate::base::metrics::{Number, Registry};

/// Who asked, for the query log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin<'a> {
    /// Nobody who is worth a line of his own.
    #[default]
    Unknown,
    /// A client of the API.
    Http {
        /// Its address, without port.
        client_ip: Option<IpAddr>,
        /// `GET` or `POST`.
        method: &'a str,
        /// Path of the request.
        path: &'a str,
    },
    /// A rule.
    RuleGroup {
        /// The rule file.
        file: &'a str,
        /// The group.
        name: &'a str,
    },
}

/// Where the lines go; nowhere at first.
pub struct QueryLog {
    state: Mutex<State>,
    enabled: Number,
    failures: Number,
}

#[derive(Default)]
struct State {
    file: Option<Box<dyn Write + Send>>,
    /// Whether somebody was told that this file cannot be written.
    has_failed: bool,
}

/// An evaluation, for the log.
pub(super) struct Entry<'a> {
    pub(super) text: &'a str,
    pub(super) origin: Origin<'a>,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) step_ms: i64,
    pub(super) stats: &'a Stats,
    pub(super) error: Option<String>,
}

impl QueryLog {
    /// A log that is off.
    pub fn new(registry: &Registry) -> Self {
        Self {
            state: Mutex::default(),
            enabled: registry
                .gauge("prometheus_engine_query_log_enabled", "State of the query log."),
            failures: registry.counter(
                "prometheus_engine_query_log_failures_total",
                "The number of query log failures.",
            ),
        }
    }

    /// Writes to this file from now on, or nowhere.
    pub fn set(&self, file: Option<Box<dyn Write + Send>>) {
        self.enabled.set(if file.is_some() { 1.0 } else { 0.0 });
        *self.state.lock() = State { file, has_failed: false };
    }

    /// Whether anything is written.
    pub(super) fn is_on(&self) -> bool {
        self.enabled.get() != 0.0
    }

    /// Appends a line, when the log is on. Blocks on the file.
    pub(super) fn write(&self, entry: &Entry<'_>, now_ms: i64) {
        let mut state = self.state.lock();
        let Some(file) = &mut state.file else { return };
        let mut line = entry.to_json(now_ms).to_string();
        line.push('\n');
        if let Err(error) = file.write_all(line.as_bytes()) {
            self.failures.inc();
            if !std::mem::replace(&mut state.has_failed, true) {
                tracing::error!(%error, "Writing the query log failed.");
            }
        }
    }
}

/// A moment with three decimals of a second.
fn date(timestamp_ms: i64) -> String {
    let clamped = timestamp_ms
        .clamp(jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
    let time = jiff::Timestamp::from_millisecond(clamped).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Entry<'_> {
    fn to_json(&self, now_ms: i64) -> Value {
        let mut line = Map::new();
        let mut set = |name: &str, value: Value| line.insert(name.to_owned(), value);
        set("time", date(now_ms).into());
        set("level", "INFO".into());
        set("msg", "promql query logged".into());
        set(
            "params",
            json!({
                "query": self.text,
                "start": date(self.start_ms),
                "end": date(self.end_ms),
                "step": self.step_ms / 1000,
            }),
        );
        if let Some(error) = &self.error {
            set("error", error.as_str().into());
        }
        set("stats", self.stats.to_json());
        match self.origin {
            Origin::Unknown => {}
            Origin::Http { client_ip, method, path } => {
                let client_ip = client_ip.map_or_else(String::new, |ip| ip.to_string());
                set(
                    "httpRequest",
                    json!({ "clientIP": client_ip, "method": method, "path": path }),
                );
            }
            Origin::RuleGroup { file, name } => {
                set("ruleGroup", json!({ "file": file, "name": name }));
            }
        }
        Value::Object(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is full after some bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_have_the_fields_of_prometheus() {
        let client_ip = Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        let origin = Origin::Http { client_ip, method: "GET", path: "/api/v1/query_range" };
        let stats = Stats { total_samples: 7, ..Stats::default() };
        let mut entry = Entry {
            text: "up",
            origin,
            start_ms: 1_500,
            end_ms: 61_500,
            step_ms: 5_000,
            stats: &stats,
            error: None,
        };
        let line = entry.to_json(0);
        assert_eq!(
            line["params"],
            json!({ "query": "up", "step": 5,
                "start": "1970-01-01T00:00:01.500Z", "end": "1970-01-01T00:01:01.500Z" })
        );
        assert_eq!(line["httpRequest"]["clientIP"], "::1");
        assert_eq!(line["stats"]["samples"]["totalQueryableSamples"], 7);
        assert!(line.get("error").is_none() && line.get("ruleGroup").is_none());
        entry.origin = Origin::RuleGroup { file: "r.yml", name: "g" };
        entry.error = Some("query timed out in expression evaluation".to_owned());
        let line = entry.to_json(0);
        assert_eq!(line["ruleGroup"], json!({ "file": "r.yml", "name": "g" }));
        assert_eq!(line["error"], "query timed out in expression evaluation");
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_counted() {
        let log = QueryLog::new(&Registry::new());
        let stats = Stats::default();
        let entry = Entry {
            text: "up",
            origin: Origin::Unknown,
            start_ms: 0,
            end_ms: 0,
            step_ms: 0,
            stats: &stats,
            error: None,
        };
        log.write(&entry, 0);
        log.set(Some(Box::new(Full(2 * entry.to_json(0).to_string().len()))));
        assert_eq!(log.enabled.get(), 1.0);
        (0..3).for_each(|_| log.write(&entry, 0));
        assert_eq!(log.failures.get(), 2.0, "one line found room");
        log.set(None);
        log.write(&entry, 0);
        assert_eq!((log.enabled.get(), log.failures.get()), (0.0, 2.0));
    }
}
