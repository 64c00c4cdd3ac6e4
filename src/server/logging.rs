//! Structured logs on standard error, as logfmt or JSON with Prometheus' keys
//! (`time level source msg`, then the fields).

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::base::clock::Clock;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// Which lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// State changes and worse.
    Info,
    /// Oddities and worse.
    Warn,
    /// What a human must act on.
    Error,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Sends all logs of this process to standard error. Only the first call in a process counts.
pub fn init(clock: Arc<dyn Clock>, level: LogLevel, format: LogFormat) {
    let level = Level::from_str(level.name()).expect("our level names are tracing's");
    // Libraries speak at warn: their info is our debug.
    let filter = Targets::new().with_target("narthex", level).with_default(level.min(Level::WARN));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Lines { clock, format });
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    // A second server in one process (tests) shares the first one's log.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines {
    clock: Arc<dyn Clock>,
    format: LogFormat,
}

/// Fields of one event in order, the message apart.
#[derive(Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}"));
    }
}

impl Fields {
    fn push(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.pairs.push((field.name(), value));
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let time = crate::api::rfc3339(self.clock.now_ms());
        let source = format!(
            "{}:{}",
            metadata.file().unwrap_or("?").rsplit('/').next().unwrap_or("?"),
            metadata.line().unwrap_or(0)
        );
        let head = [
            ("time", time),
            ("level", metadata.level().as_str().to_owned()),
            ("source", source),
            ("msg", fields.message),
        ];
        let pairs = head.into_iter().chain(fields.pairs);
        writer.write_str(&render(pairs, self.format))?;
        writer.write_char('\n')
    }
}

fn render(pairs: impl Iterator<Item = (&'static str, String)>, format: LogFormat) -> String {
    let mut out = String::new();
    for (index, (key, value)) in pairs.enumerate() {
        let quoted = || serde_json::to_string(&value).unwrap_or_default();
        let _ = match format {
            LogFormat::Json => {
                let before = if index == 0 { '{' } else { ',' };
                write!(out, "{before}\"{key}\":{}", quoted())
            }
            LogFormat::Logfmt => {
                let before = if index == 0 { "" } else { " " };
                let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=' && c != '\\';
                if !value.is_empty() && value.chars().all(plain) {
                    write!(out, "{before}{key}={value}")
                } else {
                    write!(out, "{before}{key}={}", quoted())
                }
            }
        };
    }
    if format == LogFormat::Json {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logfmt_or_json() {
        let pairs =
            || [("level", "INFO".to_owned()), ("msg", "Said \"hi\".".to_owned())].into_iter();
        assert_eq!(render(pairs(), LogFormat::Logfmt), r#"level=INFO msg="Said \"hi\".""#);
        assert_eq!(render(pairs(), LogFormat::Json), r#"{"level":"INFO","msg":"Said \"hi\"."}"#);
    }
}
