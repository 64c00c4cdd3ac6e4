//! Label sets: sorted name-value pairs that identify a series or an alert.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// Label that names the alert of an alerting rule.
pub const ALERT_NAME: &str = "alertname";

/// An immutable label set, sorted by name, without empty values. Clones are cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// For each label the lengths of name and value (see [`push_length`]), the name, the value.
    text: Arc<str>,
}

impl Default for Labels {
    fn default() -> Self {
        Self { text: Arc::from("") }
    }
}

/// Bits of a length in one letter.
const LENGTH_BITS: u32 = 15;
/// Added to letters that are not the last of a length.
const MORE: u32 = 0x1_0000;

/// Writes a length as letters, 15 bits each, the lowest first: mostly one byte.
fn push_length(mut length: usize, text: &mut String) {
    let mask = (1 << LENGTH_BITS) - 1;
    while mask < length {
        let letter = MORE + (length & mask) as u32;
        text.push(char::from_u32(letter).expect("no surrogate"));
        length >>= LENGTH_BITS;
    }
    text.push(char::from_u32(length as u32).expect("no surrogate"));
}

/// Takes a length off the front.
#[inline]
fn take_length(text: &mut &str) -> usize {
    if let Some(&first) = text.as_bytes().first()
        && first < 0x80
    {
        *text = &text[1..];
        return usize::from(first);
    }
    let (mut length, mut shift) = (0, 0);
    let mut letters = text.chars();
    for letter in letters.by_ref().map(u32::from) {
        length |= (letter as usize & ((1 << LENGTH_BITS) - 1)) << shift;
        shift += LENGTH_BITS;
        if letter < MORE {
            break;
        }
    }
    *text = letters.as_str();
    length
}

/// The pairs of a label set.
#[derive(Clone, Debug)]
struct Pairs<'a>(&'a str);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let name = take_length(&mut self.0);
        let value = take_length(&mut self.0);
        let (name, rest) = self.0.split_at(name);
        let (value, rest) = rest.split_at(value);
        self.0 = rest;
        Some((name, value))
    }
}

impl Labels {
    /// The empty set.
    pub fn empty() -> Self {
        Self::default()
    }

    /// From pairs that are sorted by name, with unique names and without empty values.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::with_capacity(256);
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(last.is_none_or(|last| last < name), "labels sorted and unique");
            debug_assert!(!value.is_empty(), "no empty value");
            last = Some(name);
            push_length(name.len(), &mut text);
            push_length(value.len(), &mut text);
            text.push_str(name);
            text.push_str(value);
        }
        Self { text: Arc::from(text.as_str()) }
    }

    /// From pairs in any order; of equal names the last wins, empty values are left out.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Bytes that a set takes in memory, roughly.
    pub fn heap_bytes(&self) -> usize {
        self.text.len() + 2 * size_of::<usize>()
    }

    /// The pairs in order of names.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        Pairs(&self.text)
    }

    /// The value of a label, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The metric name; empty when there is none.
    pub fn name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// A builder that starts with these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        let pairs = self.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        LabelsBuilder { pairs: pairs.collect() }
    }

    /// Those labels for which `keep(name)` holds.
    pub fn retain(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        Self::from_sorted(self.iter().filter(|(name, _)| keep(name)))
    }

    /// Without the metric name.
    pub fn without_name(&self) -> Self {
        self.retain(|name| name != METRIC_NAME)
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Pair by pair; a set that is a beginning of another comes first (`labels.Compare` of Prometheus).
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.text == other.text {
            return Ordering::Equal;
        }
        self.iter().cmp(other.iter())
    }
}

/// As Prometheus prints a series' labels: `{a="1", b="2"}`, values quoted like Go, names that are
/// not classic identifiers quoted too.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            if is_legacy_label_name(name) {
                write!(f, "{comma}{name}={}", quote(value))?;
            } else {
                write!(f, "{comma}{}={}", quote(name), quote(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A label set under construction.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    /// Sorted by name, unique.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.pairs.binary_search_by(|(own, _)| own.as_str().cmp(name))
    }

    /// The value of a label; empty when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.position(name).map_or("", |at| &self.pairs[at].1)
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match (self.position(name), value) {
            (Ok(at), "") => {
                self.pairs.remove(at);
            }
            (Ok(at), _) => value.clone_into(&mut self.pairs[at].1),
            (Err(_), "") => {}
            (Err(at), _) => self.pairs.insert(at, (name.to_owned(), value.to_owned())),
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    /// The pairs in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The finished set.
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`: a label name that needs no quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    !name.contains(':') && is_legacy_metric_name(name)
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`: a metric name that needs no quotes.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    name.as_bytes().first().is_some_and(letter)
        && name.as_bytes().iter().all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// Quotes like Go's `strconv.Quote`: printable Unicode stays, the rest becomes escapes.
pub fn quote(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            _ if (letter as u32) < 0x20 || letter as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", letter as u32);
            }
            _ if is_unprintable(letter) => {
                let code = letter as u32;
                let _ = if code < 0x10000 {
                    write!(out, "\\u{code:04x}")
                } else {
                    write!(out, "\\U{code:08x}")
                };
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// Beyond ASCII: controls, spaces other than the plain one, and invisible format characters.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || (letter != ' ' && letter.is_whitespace())
        || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_empty_values_dropped() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="3"}"#);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.retain(|name| name != "a").to_string(), r#"{b="3"}"#);
    }

    #[test]
    fn order_is_by_pairs_and_then_by_length() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        assert!(set(&[("a", "1")]) < set(&[("a", "1"), ("b", "1")]));
        assert!(set(&[("a", "1"), ("b", "1")]) < set(&[("a", "2")]));
        assert!(set(&[("a", "2")]) < set(&[("b", "1")]));
    }

    #[test]
    fn long_names_and_values_are_kept() {
        for length in [1, 0x7f, 0x80, 0x7fff, 0x8000, 0x12345, 0xd800, 0xffff, 0x1_0000, 1 << 20] {
            let (name, value) = ("n".repeat(length), "ä".repeat(length));
            let labels = Labels::from_pairs([(name.as_str(), "x"), ("zz", &value), ("~", "last")]);
            let pairs: Vec<_> = labels.iter().collect();
            assert!(pairs == [(name.as_str(), "x"), ("zz", &value), ("~", "last")], "{length}");
            assert_eq!(labels.len(), 3);
        }
    }

    #[test]
    fn printing_quotes_what_go_quotes() {
        let labels = Labels::from_pairs([("my.dot", "a\"b\n\u{1}é\u{a0}")]);
        assert_eq!(labels.to_string(), "{\"my.dot\"=\"a\\\"b\\n\\x01é\\u00a0\"}");
    }
}
