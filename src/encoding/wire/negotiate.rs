//! Content negotiation for what we expose: which format, and how names beyond the classic
//! alphabet are written.

use crate::model::labels::is_legacy_metric_name;

/// A text format that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4
    Text0_0_4,
    /// Prometheus text 1.0.0
    Text1_0_0,
    /// OpenMetrics 0.0.1
    OpenMetrics0_0_1,
    /// OpenMetrics 1.0.0
    OpenMetrics1_0_0,
}

/// How a name outside `[a-zA-Z_:][a-zA-Z0-9_:]*` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escaping {
    /// As it is, in quotes.
    AllowUtf8,
    /// Other characters become `_`.
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`, others `__`.
    Dots,
    /// `U__` and `_<hex>_` for other characters: nothing is lost.
    Values,
}

impl Escaping {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "allow-utf-8" => Self::AllowUtf8,
            "underscores" => Self::Underscores,
            "dots" => Self::Dots,
            "values" => Self::Values,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }

    /// The name as it is written.
    pub fn apply(self, name: &str) -> String {
        let is_legacy = is_legacy_metric_name(name);
        let legal = |index: usize, letter: char| {
            letter.is_ascii_alphabetic()
                || matches!(letter, '_' | ':')
                || (index > 0 && letter.is_ascii_digit())
        };
        let letters = name.chars().enumerate();
        match self {
            Self::AllowUtf8 => name.to_owned(),
            Self::Underscores | Self::Values if is_legacy => name.to_owned(),
            Self::Underscores => {
                letters.map(|(at, letter)| if legal(at, letter) { letter } else { '_' }).collect()
            }
            Self::Dots => letters
                .map(|(at, letter)| match letter {
                    '_' => "__".to_owned(),
                    '.' => "_dot_".to_owned(),
                    _ if legal(at, letter) => letter.to_string(),
                    _ => "__".to_owned(),
                })
                .collect(),
            Self::Values => {
                let escaped = letters.map(|(at, letter)| match letter {
                    '_' => "__".to_owned(),
                    _ if legal(at, letter) => letter.to_string(),
                    _ => format!("_{:x}_", letter as u32),
                });
                format!("U__{}", escaped.collect::<String>())
            }
        }
    }
}

/// A format with its way of escaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// Format.
    pub format: Format,
    /// Escaping.
    pub escaping: Escaping,
}

impl Exposition {
    /// Plain text as every client reads it.
    pub const TEXT: Self = Self { format: Format::Text0_0_4, escaping: Escaping::Underscores };

    /// Whether it is OpenMetrics.
    pub fn is_openmetrics(self) -> bool {
        matches!(self.format, Format::OpenMetrics0_0_1 | Format::OpenMetrics1_0_0)
    }

    /// The `Content-Type` of a body in this format.
    pub fn content_type(self) -> String {
        let media = match self.format {
            Format::Text0_0_4 => "text/plain; version=0.0.4",
            Format::Text1_0_0 => "text/plain; version=1.0.0",
            Format::OpenMetrics0_0_1 => "application/openmetrics-text; version=0.0.1",
            Format::OpenMetrics1_0_0 => "application/openmetrics-text; version=1.0.0",
        };
        format!("{media}; charset=utf-8; escaping={}", self.escaping.as_str())
    }
}

/// Ranges of an `Accept` header that are looked at.
const RANGES_MAX: usize = 32;

/// The best format that an `Accept` header asks for; plain text when it names none of ours.
pub fn negotiate(accept: &str) -> Exposition {
    let mut best: Option<(f64, Exposition)> = None;
    for range in accept.split(',').take(RANGES_MAX) {
        let Some((quality, exposition)) = range_of(range) else { continue };
        if quality > 0.0 && best.is_none_or(|(highest, _)| quality > highest) {
            best = Some((quality, exposition));
        }
    }
    best.map_or(Exposition::TEXT, |(_, exposition)| exposition)
}

fn range_of(range: &str) -> Option<(f64, Exposition)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut version, mut escaping) = (1.0, "", Escaping::Underscores);
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.parse().ok()?,
            "version" => version = value,
            "escaping" => escaping = Escaping::parse(value).unwrap_or(escaping),
            _ => {}
        }
    }
    let format = match (media.as_str(), version) {
        ("text/plain", "1.0.0") => Format::Text1_0_0,
        ("text/plain", "" | "0.0.4") | ("*/*" | "text/*", _) => Format::Text0_0_4,
        ("application/openmetrics-text", "1.0.0") => Format::OpenMetrics1_0_0,
        ("application/openmetrics-text", "" | "0.0.1") => Format::OpenMetrics0_0_1,
        _ => return None,
    };
    Some((quality, Exposition { format, escaping }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_known_range_wins() {
        for (accept, expected) in [
            ("", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"),
            (
                "text/html, application/json",
                "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2",
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            ),
            (
                "text/plain;version=1.0.0;escaping=values;q=0.9,*/*;q=0.1",
                "text/plain; version=1.0.0; charset=utf-8; escaping=values",
            ),
            (
                "application/openmetrics-text;version=9,*/*;q=0.1",
                "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            ),
        ] {
            assert_eq!(negotiate(accept).content_type(), expected, "{accept}");
        }
    }

    #[test]
    fn names_are_escaped_by_scheme() {
        assert_eq!(Escaping::Underscores.apply("a.b/c"), "a_b_c");
        assert_eq!(Escaping::Dots.apply("a.b_c"), "a_dot_b__c");
        assert_eq!(Escaping::Values.apply("a.b_c"), "U__a_2e_b__c");
        assert_eq!(Escaping::Values.apply("a_b"), "a_b");
        assert_eq!(Escaping::AllowUtf8.apply("a.b"), "a.b");
    }
}
