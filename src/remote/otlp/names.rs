//! Names of OpenTelemetry as names of Prometheus: units and `_total` as suffixes, invalid letters
//! as underscores, each where the strategy says so.

/// How names are translated (`translation_strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Classic names with suffixes.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Classic names.
    UnderscoreEscapingWithoutSuffixes,
    /// Names as they are, with suffixes.
    NoUtf8EscapingWithSuffixes,
    /// Names as they are.
    NoTranslation,
}

impl Strategy {
    /// Units and types become suffixes.
    fn adds_suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes)
    }

    /// Letters that were invalid before Prometheus 3 become underscores.
    pub fn escapes(self) -> bool {
        use Strategy as S;
        matches!(self, S::UnderscoreEscapingWithSuffixes | S::UnderscoreEscapingWithoutSuffixes)
    }
}

/// What of a metric shapes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A gauge.
    Gauge,
    /// A sum that never goes down.
    Counter,
    /// Anything else.
    Other,
}

/// Units and their words.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// Units behind a slash, in the singular.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(table: &[(&str, &'a str)], unit: &'a str) -> &'a str {
    table.iter().find(|(own, _)| *own == unit).map_or(unit, |(_, word)| word)
}

/// The words of a unit like `By/s`: what is measured, and `per_` what. Notes in braces count not.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let is_told = |text: &str| !text.is_empty() && !text.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = if is_told(main) { word(UNITS, main).to_owned() } else { String::new() };
    let per = if is_told(per) { word(PER_UNITS, per) } else { "" };
    let per = if per.is_empty() { String::new() } else { format!("per_{per}") };
    (main, per)
}

fn is_metric_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == ':'
}

/// A unit as part of a classic name: no underscore in front, none doubled.
fn clean_unit(unit: &str) -> String {
    let mut out = String::new();
    for letter in unit.chars() {
        let letter = if is_metric_letter(letter) { letter } else { '_' };
        if letter != '_' || !out.ends_with('_') {
            out.push(letter);
        }
    }
    out.strip_prefix('_').map_or(out.clone(), str::to_owned)
}

/// The unit of metadata.
pub fn unit(unit: &str) -> String {
    let (main, per) = unit_words(unit);
    let parts = [clean_unit(&main), clean_unit(&per)];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let joined = parts.join("_");
    let inner = joined.strip_prefix('_').unwrap_or(&joined);
    inner.strip_suffix('_').unwrap_or(inner).to_owned()
}

/// The name of a metric.
///
/// # Errors
/// Nothing is left of it.
pub fn metric(name: &str, unit: &str, shape: Shape, strategy: Strategy) -> Result<String, String> {
    if !strategy.escapes() {
        return Ok(if strategy.adds_suffixes() {
            with_suffixes(name, unit, shape)
        } else {
            name.to_owned()
        });
    }
    let classic = if strategy.adds_suffixes() {
        classic_with_suffixes(name, unit, shape)
    } else {
        let is_kept = |letter: char| is_metric_letter(letter) || letter == '_';
        let parts = name.split(|letter| !is_kept(letter)).filter(|part| !part.is_empty());
        not_leading_digit(parts.collect::<Vec<_>>().join("_"))
    };
    if classic.is_empty() {
        return Err(format!("normalization for metric {name:?} resulted in empty name"));
    }
    if classic != name && classic.chars().all(|letter| letter == '_') {
        return Err(format!(
            "normalization for metric {name:?} resulted in invalid name {classic:?}"
        ));
    }
    Ok(classic)
}

fn not_leading_digit(name: String) -> String {
    if name.starts_with(|letter: char| letter.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn classic_with_suffixes(name: &str, unit: &str, shape: Shape) -> String {
    let parts = name.split(|letter| !is_metric_letter(letter)).filter(|part| !part.is_empty());
    let mut parts: Vec<String> = parts.map(str::to_owned).collect();
    let (main, per) = unit_words(unit);
    let (mut main, mut per) = (clean_unit(&main), clean_unit(&per));
    if parts.contains(&main) {
        main.clear();
    }
    if per == "per_" {
        per.clear();
    }
    if per.ends_with('_') {
        per.pop();
    }
    if parts.contains(&per) {
        per.clear();
    }
    if !per.is_empty() && main.ends_with('_') {
        main.pop();
    }
    parts.extend([main, per].into_iter().filter(|part| !part.is_empty()));
    let mut move_to_end = |suffix: &str| {
        parts.retain(|part| part != suffix);
        parts.push(suffix.to_owned());
    };
    if shape == Shape::Counter {
        move_to_end("total");
    }
    if unit == "1" && shape == Shape::Gauge {
        move_to_end("ratio");
    }
    not_leading_digit(parts.join("_"))
}

/// Suffixes behind a name that is left as it is; what it ends with already is not repeated.
fn with_suffixes(name: &str, unit: &str, shape: Shape) -> String {
    let (main, per) = unit_words(unit);
    let ratio = unit == "1" && shape == Shape::Gauge;
    let mut out = name.to_owned();
    let outer = [
        if ratio { "ratio" } else { "" },
        if shape == Shape::Counter { "total" } else { "" },
        per.as_str(),
    ];
    for suffix in outer.iter().filter(|suffix| !suffix.is_empty()) {
        // With the letter that parts it from the name.
        if out.len() > suffix.len() + 1
            && let Some(rest) = out.strip_suffix(suffix)
            && let Some((last, _)) = rest.char_indices().next_back()
        {
            out.truncate(last);
        }
    }
    if !main.is_empty() && !out.ends_with(&main) {
        out.push_str(&format!("_{main}"));
    }
    for suffix in outer.iter().rev().filter(|suffix| !suffix.is_empty()) {
        out.push_str(&format!("_{suffix}"));
    }
    out
}

/// How attributes become labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelNamer {
    /// Invalid letters become underscores.
    pub escapes: bool,
    /// A single underscore in front becomes `key_`.
    pub prefixes_underscore: bool,
    /// Several underscores stay several.
    pub keeps_underscores: bool,
}

impl LabelNamer {
    /// The name of a label.
    ///
    /// # Errors
    /// Nothing is left of it.
    pub fn label(&self, name: &str) -> Result<String, String> {
        if name.is_empty() {
            return Err("label name is empty".to_owned());
        }
        let only_underscores = |name: &str| name.bytes().all(|byte| byte == b'_');
        if !self.escapes {
            return if only_underscores(name) {
                Err(format!("label name {name:?} contains only underscores"))
            } else {
                Ok(name.to_owned())
            };
        }
        let mut label = self.escaped(name);
        if label.starts_with(|letter: char| letter.is_ascii_digit()) {
            label.insert_str(0, "key_");
        } else if self.prefixes_underscore && label.starts_with('_') && !label.starts_with("__") {
            label.insert_str(0, "key");
        }
        if only_underscores(&label) {
            return Err(format!(
                "normalization for label name {name:?} resulted in invalid name {label:?}"
            ));
        }
        Ok(label)
    }

    fn escaped(&self, name: &str) -> String {
        let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        if self.keeps_underscores {
            return name.chars().map(letter).collect();
        }
        let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
        let mut out = String::new();
        for letter in inner.unwrap_or(name).chars().map(letter) {
            if letter != '_' || !out.ends_with('_') {
                out.push(letter);
            }
        }
        if inner.is_some() { format!("__{out}__") } else { out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_by_strategy() {
        use Shape::{Counter, Gauge, Other};
        use Strategy::{
            NoTranslation, NoUtf8EscapingWithSuffixes as Plain,
            UnderscoreEscapingWithSuffixes as Classic, UnderscoreEscapingWithoutSuffixes as Bare,
        };
        for (name, unit, shape, strategy, expected) in [
            ("http.server.duration", "s", Other, Classic, "http_server_duration_seconds"),
            ("requests", "{request}", Counter, Classic, "requests_total"),
            ("requests.total.count", "1", Counter, Classic, "requests_count_total"),
            ("memory.usage", "By", Gauge, Classic, "memory_usage_bytes"),
            ("memory.bytes.used", "By", Gauge, Classic, "memory_bytes_used"),
            ("disk.io", "By/s", Gauge, Classic, "disk_io_bytes_per_second"),
            ("used", "1", Gauge, Classic, "used_ratio"),
            ("5xx", "", Other, Classic, "_5xx"),
            ("odd", "m/{turn}", Gauge, Classic, "odd_meters"),
            ("a__b", "%", Gauge, Classic, "a_b_percent"),
            ("http.server.duration", "s", Other, Bare, "http_server_duration"),
            ("a__b!c", "s", Other, Bare, "a__b_c"),
            ("http.server.duration", "s", Other, Plain, "http.server.duration_seconds"),
            ("http.total", "By/s", Counter, Plain, "http_bytes_per_second_total"),
            ("http.total", "1", Counter, NoTranslation, "http.total"),
        ] {
            assert_eq!(metric(name, unit, shape, strategy).as_deref(), Ok(expected));
        }
        assert!(metric("!!", "", Other, Classic).unwrap_err().ends_with("in empty name"));
        assert_eq!(unit("By/s"), "bytes_per_second");
        assert_eq!(unit("1"), "");
    }

    #[test]
    fn attributes_are_named_as_labels() {
        let namer =
            LabelNamer { escapes: true, prefixes_underscore: true, keeps_underscores: true };
        let label = |name| namer.label(name);
        assert_eq!(label("http.status_code").as_deref(), Ok("http_status_code"));
        assert_eq!(label("1st").as_deref(), Ok("key_1st"));
        assert_eq!(label("_own").as_deref(), Ok("key_own"));
        assert_eq!(label("__kept__").as_deref(), Ok("__kept__"));
        assert_eq!(label("a..b").as_deref(), Ok("a__b"));
        assert!(label("").is_err() && label("é").is_ok_and(|name| name == "key_"));
        let folding = LabelNamer { keeps_underscores: false, ..namer };
        assert_eq!(folding.label("a..b").as_deref(), Ok("a_b"));
        assert_eq!(folding.label("__a..b__").as_deref(), Ok("__a_b__"));
        let plain = LabelNamer { escapes: false, ..namer };
        assert_eq!(plain.label("a..b").as_deref(), Ok("a..b"));
        assert!(plain.label("__").is_err());
    }
}
