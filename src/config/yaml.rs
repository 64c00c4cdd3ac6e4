//! Strict YAML: every file is read through [`load`], and the scalar types of the schemas live here.
//!
//! Unknown, mistyped and duplicate keys are errors that name file, line and column. An error never
//! repeats a line or a value of the file, because that may be a password. Aliases and nesting run
//! on a budget, so that a hostile file cannot eat the memory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::duration;
use crate::model::labels::quote;

pub use serde_saphyr::Spanned;

/// Bytes of one file; the largest rule files in the wild have a few megabytes.
pub const FILE_BYTES_MAX: usize = 32 << 20;

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// From 1; 0: not at one place.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// Why, without secrets.
    pub message: String,
}

impl std::error::Error for ConfigError {}

/// `FILE:LINE:COL: message`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file.display(), self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)
    }
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// From 1; 0: unknown.
    pub line: u64,
    /// From 1.
    pub column: u64,
}

impl<T> From<&Spanned<T>> for Place {
    fn from(spanned: &Spanned<T>) -> Self {
        Self { line: spanned.referenced.line(), column: spanned.referenced.column() }
    }
}

impl ConfigError {
    /// Something wrong with a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into() }
    }

    /// Something wrong at a place.
    pub fn at(file: &Path, place: impl Into<Place>, message: impl Into<String>) -> Self {
        let Place { line, column } = place.into();
        Self { file: file.to_owned(), line, column, message: message.into() }
    }
}

/// Reads one YAML document strictly. An empty text counts as an empty mapping.
///
/// # Errors
/// The first thing that does not fit the schema, with its place.
pub fn load<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("file is larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(ConfigError::of_file(path, message));
    }
    let is_blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    let text = if text.lines().all(is_blank) { "{}" } else { text };
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: 2,
            max_depth: 64,
            max_nodes: 2_000_000,
            max_events: 6_000_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 200_000,
            max_replay_stack_depth: 16,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|err| describe(path, &err))
}

/// Our words for the parser's errors; values of the file are left out.
fn describe(path: &Path, err: &serde_saphyr::Error) -> ConfigError {
    use serde_saphyr::Error as Yaml;
    let err = err.without_snippet();
    let place = err.location().map_or_else(Place::default, |location| Place {
        line: location.line(),
        column: location.column(),
    });
    let message = match err {
        Yaml::SerdeUnknownField { field, .. } if is_unsupported(field) => {
            format!("{field} is not supported yet")
        }
        Yaml::SerdeUnknownField { field, expected, .. } => {
            let mut expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
            expected.sort();
            format!("unknown field {}, expected one of: {}", quote(field), expected.join(", "))
        }
        Yaml::SerdeMissingField { field, .. } => format!("missing field {}", quote(field)),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => {
            format!("key {} is set twice in this mapping", quote(key))
        }
        Yaml::SerdeInvalidType { unexpected, expected, .. }
        | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("found {}, expected {expected}", kind_of(unexpected))
        }
        Yaml::SerdeUnknownVariant { expected, .. } => {
            format!("unknown value, expected one of: {}", expected.join(", "))
        }
        Yaml::InvalidScalar { ty, .. } => match ty.as_bytes() {
            [b'u', b'0'..=b'9', ..] | b"usize" => {
                "expected a whole number, not negative".to_owned()
            }
            [b'i', b'0'..=b'9', ..] => "expected a whole number".to_owned(),
            [b'f', b'0'..=b'9', ..] => "expected a number".to_owned(),
            _ => format!("not a valid {ty}"),
        },
        Yaml::NonFiniteFloat { .. } => "not a finite number".to_owned(),
        Yaml::QuotingRequired { .. } => "this text needs quotes".to_owned(),
        Yaml::Unexpected { expected, .. } => match *expected {
            "mapping start" => "expected a mapping".to_owned(),
            "sequence start" => "expected a list".to_owned(),
            "string scalar" | "scalar" => "expected a single value".to_owned(),
            other => format!("expected {other}"),
        },
        Yaml::AliasError { error, .. } => describe(path, error).message,
        other => {
            let formatter = serde_saphyr::UserMessageFormatter;
            let text = serde_saphyr::MessageFormatter::format_message(&formatter, other);
            text.into_owned()
        }
    };
    ConfigError::at(path, place, message)
}

/// Sections that Prometheus has and we do not: not typing errors.
fn is_unsupported(field: &str) -> bool {
    const DISCOVERIES: &[&str] = &[
        "aws",
        "azure",
        "consul",
        "digitalocean",
        "dns",
        "docker",
        "dockerswarm",
        "ec2",
        "ecs",
        "elasticache",
        "eureka",
        "gce",
        "hetzner",
        "http",
        "ionos",
        "kubernetes",
        "kuma",
        "lightsail",
        "linode",
        "marathon",
        "msk",
        "nerve",
        "nomad",
        "oci",
        "openstack",
        "outscale",
        "ovhcloud",
        "puppetdb",
        "rds",
        "scaleway",
        "serverset",
        "stackit",
        "triton",
        "uyuni",
        "vultr",
    ];
    let discovery = field.strip_suffix("_sd_configs");
    discovery.is_some_and(|name| DISCOVERIES.contains(&name))
        || matches!(field, "remote_write" | "remote_read" | "sigv4" | "azuread" | "google_iam")
}

/// `string "hunter2"` is a string; the value stays private.
fn kind_of(unexpected: &str) -> &str {
    let end = unexpected.find(['"', '`']).unwrap_or(unexpected.len());
    match unexpected[..end].trim() {
        "" => "another type",
        kind => kind,
    }
}

/// A text that must not be shown. Serializes and prints as `<secret>`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "<secret>" })
    }
}

/// Takes any scalar as text, as Go's YAML does for a string field.
struct ScalarText;

impl Visitor<'_> for ScalarText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// A duration in Prometheus' notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Milliseconds.
    pub fn as_ms(self) -> i64 {
        self.0.as_millis() as i64
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_str(ScalarText)?;
        duration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes: `512MB`, units are powers of 1024 as in Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Units of sizes, largest first.
const BYTE_UNITS: [(&str, &str, u32); 7] = [
    ("EB", "EiB", 60),
    ("PB", "PiB", 50),
    ("TB", "TiB", 40),
    ("GB", "GiB", 30),
    ("MB", "MiB", 20),
    ("KB", "KiB", 10),
    ("B", "B", 0),
];

impl Bytes {
    /// Reads `0`, `512MB`, `1.5GiB`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "0" || text.is_empty() {
            return Ok(Self(0));
        }
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let same = |name: &str| unit.eq_ignore_ascii_case(name);
        let shift = BYTE_UNITS.iter().find(|(short, long, _)| same(short) || same(long));
        let (Some((_, _, shift)), Ok(number)) = (shift, number.trim().parse::<f64>()) else {
            return Err(format!("units: unknown unit in {}, expected 512MB", quote(text)));
        };
        let bytes = number * (1_u64 << shift) as f64;
        if !bytes.is_finite() || bytes < 0.0 || bytes >= u64::MAX as f64 {
            return Err(format!("size {} out of range", quote(text)));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |shift: &u32| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        match BYTE_UNITS.iter().find(|(_, _, shift)| exact(shift)) {
            Some((_, long, shift)) => write!(f, "{}{long}", self.0 >> shift),
            None => f.write_str("0B"),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_str(ScalarText)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Label names to values; a value without text counts as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LabelMap(pub BTreeMap<String, String>);

impl LabelMap {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<'de> Deserialize<'de> for LabelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, Option<String>>::deserialize(deserializer)?;
        let pairs = map.into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
        Ok(Self(pairs.collect()))
    }
}

/// Whether a value is what it is when nobody sets it; such fields are left out of the output.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        interval: Option<Span>,
        size: Bytes,
        labels: LabelMap,
        password: Secret,
        nested: Option<Nested>,
        flag: bool,
        count: u32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read to fail")]
    struct Nested {
        name: Spanned<String>,
    }

    fn error(text: &str) -> String {
        load::<Sample>(Path::new("n.yml"), text).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_place_and_keep_secrets() {
        insta::assert_snapshot!(error("interval: 15x"), @r#"n.yml:1:11: unknown unit "x" in duration "15x""#);
        insta::assert_snapshot!(error("\nintervall: 1s"), @r#"n.yml:2:1: unknown field "intervall", expected one of: count, flag, interval, labels, nested, password, size"#);
        insta::assert_snapshot!(error("flag: true\nflag: false"), @r#"n.yml:2:1: key "flag" is set twice in this mapping"#);
        insta::assert_snapshot!(error("nested: hunter2"), @"n.yml:1:9: expected a mapping");
        insta::assert_snapshot!(error("password: [hunter2]"), @"n.yml:1:11: expected a single value");
        insta::assert_snapshot!(error("count: hunter2"), @"n.yml:1:8: expected a whole number, not negative");
        insta::assert_snapshot!(error("nested: {}"), @r#"n.yml:1:9: missing field "name""#);
        insta::assert_snapshot!(error("size: 5XB"), @r#"n.yml:1:7: units: unknown unit in "5XB", expected 512MB"#);
        insta::assert_snapshot!(error("flag: \"x"), @"n.yml:1:7: unclosed quote");
        insta::assert_snapshot!(error("flag: true\n---\nflag: true"), @"n.yml:3:1: only single YAML document expected but multiple found");
        insta::assert_snapshot!(error("[1, 2]"), @"n.yml:1:1: expected a mapping");
    }

    #[test]
    fn scalars_read_as_in_go() {
        let text = "interval: 0\nsize: 512MB\nlabels: {v: 1.10, n: null, y: yes}\npassword: 0123\nflag: yes";
        let sample: Sample = load(Path::new("n.yml"), text).unwrap();
        assert_eq!(sample.interval, Some(Span::default()));
        assert_eq!(sample.size, Bytes(512 << 20));
        assert_eq!(sample.size.to_string(), "512MiB");
        let labels: Vec<_> = sample.labels.iter().collect();
        assert_eq!(labels, [("n", ""), ("v", "1.10"), ("y", "yes")]);
        assert_eq!(sample.password.expose(), "0123");
        assert!(sample.flag);
        assert!(!format!("{sample:?}").contains("0123"));
        for blank in ["", "# nothing\n", "---\n", "{}"] {
            load::<Sample>(Path::new("n.yml"), blank).unwrap();
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..9 {
            let before = level - 1;
            let many = vec![format!("*a{before}"); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{many}]\n"));
        }
        let text = format!("labels:\n{bomb}");
        assert!(load::<Sample>(Path::new("n.yml"), &text).is_err());
        assert!(load::<Sample>(Path::new("n.yml"), &"[".repeat(100_000)).is_err());
    }
}
