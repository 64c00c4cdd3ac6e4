//! Label matchers: `=`, `!=`, `=~`, `!~`.
//!
//! Compiling a regular expression may take thousands of times as long as reading it, so whoever
//! compiles what a request brought does so within a [`CompileAllowance`]; what queries are parsed
//! to, [`written::WrittenMatcher`], is not compiled yet.

pub mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::labels::{is_legacy_label_name, quote};
use super::regexp::{Compiled, Dot, RegexError, Regexp, Shape, expand_go};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored on both sides, the dot matches newlines
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As written in PromQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. A missing label counts as an empty value.
#[derive(Clone)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<AnchoredRegex>,
}

impl Matcher {
    /// A matcher; an error when `value` must be a regular expression and is none, or takes more
    /// than a whole [`CompileAllowance`].
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, RegexError> {
        Self::within(op, name, value, &mut CompileAllowance::default())
    }

    /// The same for one of several that share an allowance.
    pub fn within(
        op: MatchOp,
        name: &str,
        value: &str,
        allowance: &mut CompileAllowance,
    ) -> Result<Self, RegexError> {
        written::WrittenMatcher::new(op, name, value)?.compile(allowance)
    }

    /// `name="value"`
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned(), regex: None }
    }

    /// The label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The comparison.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The right-hand side as it was written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values that a regular expression without any wildcard lists (`a|b|c`); positive `=~`
    /// and negative `!~` alike.
    pub fn regex_set(&self) -> Option<&[String]> {
        self.regex.as_ref()?.literals()
    }

    /// Text with which every match of the regular expression begins; empty when there is none.
    pub fn regex_prefix(&self) -> &str {
        self.regex.as_ref().map_or("", AnchoredRegex::prefix)
    }

    /// Whether a label of this value (empty: missing) fulfils the condition.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => value == self.value,
            (MatchOp::NotEqual, _) => value != self.value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (_, None) => unreachable!("regex matchers are compiled when made"),
        }
    }

    /// Whether series without the label fulfil it.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

/// As in PromQL: `name="value"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_matcher(f, &self.name, self.op, &self.value)
    }
}

fn write_matcher(f: &mut fmt::Formatter<'_>, name: &str, op: MatchOp, value: &str) -> fmt::Result {
    let (op, value) = (op.as_str(), quote(value));
    if is_legacy_label_name(name) {
        write!(f, "{name}{op}{value}")
    } else {
        write!(f, "{}{op}{value}", quote(name))
    }
}

/// Work that compiling may still cause, in units of [`Regexp::weight`].
#[derive(Debug)]
pub struct CompileAllowance {
    weight_left: usize,
}

impl CompileAllowance {
    /// What a request may cause: some tenths of a second and some ten megabytes. Lists of texts
    /// need no automaton and are not bounded by it.
    pub const WEIGHT_MAX: usize = 250_000;
    /// What reading costs, whatever comes of it.
    const WEIGHT_MIN: usize = 10;

    fn take(&mut self, weight: usize, regexp: &Regexp) -> Result<(), RegexError> {
        match self.weight_left.checked_sub(weight) {
            Some(left) => {
                self.weight_left = left;
                Ok(())
            }
            None => Err(regexp.too_large()),
        }
    }
}

impl Default for CompileAllowance {
    fn default() -> Self {
        Self { weight_left: Self::WEIGHT_MAX }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A regular expression in Go's notation that must match the whole text; the dot matches newlines.
#[derive(Clone, Debug)]
pub struct AnchoredRegex {
    source: Arc<str>,
    compiled: Arc<CompiledRegex>,
}

#[derive(Debug)]
struct CompiledRegex {
    shape: Shape,
    /// There when the shape alone does not decide.
    automaton: Option<Compiled>,
    /// The one group is the whole text.
    is_whole_capture: bool,
}

impl AnchoredRegex {
    /// Compiles `^(?s:source)$`, and errors show it so, as where Prometheus compiles by hand
    /// (relabelling, `label_replace`).
    pub fn new(source: &str) -> Result<Self, RegexError> {
        Self::within(source, &mut CompileAllowance::default())
    }

    /// The same for one of several that share an allowance.
    pub fn within(source: &str, allowance: &mut CompileAllowance) -> Result<Self, RegexError> {
        let regexp = Regexp::parse(&format!("^(?s:{source})$"), Dot::Line)?;
        Self::compile(source, &regexp, regexp.capture_count() > 0, allowance)
    }

    /// The same for a matcher: errors show what was written. Often asked for ones are kept.
    fn for_matcher(
        source: &str,
        regexp: &Regexp,
        allowance: &mut CompileAllowance,
    ) -> Result<Self, RegexError> {
        if let Some(kept) = CACHE.lock().get(source) {
            return Ok(kept);
        }
        let regex = Self::compile(source, regexp, false, allowance)?;
        if regexp.weight() <= CACHED_WEIGHT_MAX {
            CACHE.lock().put(regex.clone());
        }
        Ok(regex)
    }

    fn compile(
        source: &str,
        regexp: &Regexp,
        with_groups: bool,
        allowance: &mut CompileAllowance,
    ) -> Result<Self, RegexError> {
        allowance.take(CompileAllowance::WEIGHT_MIN, regexp)?;
        let shape = regexp.shape();
        let is_whole_capture = regexp.is_whole_capture();
        let decided = matches!(shape, Shape::Literals(_) | Shape::Pieces(_));
        let needs_automaton = !decided || (with_groups && !is_whole_capture);
        if needs_automaton {
            allowance.take(regexp.weight(), regexp)?;
        }
        let automaton = needs_automaton.then(|| regexp.compile_anchored()).transpose()?;
        let compiled = Arc::new(CompiledRegex { shape, automaton, is_whole_capture });
        Ok(Self { source: Arc::from(source), compiled })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Every text that matches, sorted, when these are few.
    pub fn literals(&self) -> Option<&[String]> {
        match &self.compiled.shape {
            Shape::Literals(literals) => Some(literals),
            _ => None,
        }
    }

    /// Text with which every match begins. Empty when in doubt.
    pub fn prefix(&self) -> &str {
        match &self.compiled.shape {
            Shape::Literals(_) | Shape::AsciiFolded(_) => "",
            Shape::Pieces(pieces) => pieces.prefix(),
            Shape::General { prefix, .. } => prefix,
        }
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        let automaton = || self.compiled.automaton.as_ref().is_some_and(|a| a.is_match(text));
        match &self.compiled.shape {
            Shape::Literals(literals) => {
                literals.binary_search_by(|literal| literal.as_str().cmp(text)).is_ok()
            }
            Shape::AsciiFolded(literals) if text.is_ascii() => {
                literals.iter().any(|literal| literal.eq_ignore_ascii_case(text))
            }
            Shape::AsciiFolded(_) => automaton(),
            Shape::Pieces(pieces) => pieces.is_match(text),
            Shape::General { prefix, suffix } => {
                text.starts_with(prefix.as_str()) && text.ends_with(suffix.as_str()) && automaton()
            }
        }
    }

    /// Replaces by Go's rules of `Regexp.Expand` (`$1`, `${name}`, `$$`; `$1x` is the group named
    /// `1x`); `None` when the text does not match.
    pub fn expand(&self, text: &str, replacement: &str) -> Option<String> {
        if !self.is_match(text) {
            return None;
        }
        match &self.compiled.automaton {
            Some(automaton) => automaton.expand(text, replacement),
            None => {
                let last = if self.compiled.is_whole_capture { "1" } else { "0" };
                let group = |name: &str| if name == "0" || name == last { text } else { "" };
                Some(expand_go(replacement, group))
            }
        }
    }
}

impl PartialEq for AnchoredRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for AnchoredRegex {}

/// Kept expressions of one generation; two are held.
const CACHED_COUNT_MAX: usize = 128;
/// Larger ones (see [`Regexp::weight`]) are compiled anew, so that 256 of them stay small.
const CACHED_WEIGHT_MAX: usize = 10_000;

/// Compiled expressions of matchers: a dashboard asks the same again and again.
static CACHE: Mutex<Cache> = Mutex::new(Cache { young: BTreeMap::new(), old: BTreeMap::new() });

/// When the young are many, they become the old, and the old that nobody asked for meanwhile go.
struct Cache {
    young: BTreeMap<Arc<str>, AnchoredRegex>,
    old: BTreeMap<Arc<str>, AnchoredRegex>,
}

impl Cache {
    fn get(&mut self, source: &str) -> Option<AnchoredRegex> {
        if let Some(regex) = self.young.get(source) {
            return Some(regex.clone());
        }
        let regex = self.old.remove(source)?;
        self.put(regex.clone());
        Some(regex)
    }

    fn put(&mut self, regex: AnchoredRegex) {
        if self.young.len() >= CACHED_COUNT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(&regex.source), regex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_anchored_and_treat_missing_as_empty() {
        let check =
            |op, pattern: &str, value: &str| Matcher::new(op, "a", pattern).unwrap().matches(value);
        assert!(check(MatchOp::Regex, "b.*", "bcd"));
        assert!(!check(MatchOp::Regex, "b", "bcd"));
        assert!(check(MatchOp::Regex, "a.b", "a\nb"));
        assert!(check(MatchOp::Regex, "x|y|", ""));
        assert!(check(MatchOp::NotRegex, "x|y", "z"));
        assert!(check(MatchOp::NotEqual, "x", ""));
        assert!(Matcher::new(MatchOp::Regex, "a", "(").is_err());
        assert!(Matcher::new(MatchOp::Regex, "a", "a)(b").is_err());
    }

    #[test]
    fn replacements_follow_go() {
        let regex = AnchoredRegex::new("(a+)-(?P<n>b+)").unwrap();
        let expand = |template| regex.expand("aa-bb", template).unwrap();
        assert_eq!(expand("$1/$n"), "aa/bb");
        assert_eq!(expand("$1x/${1}x/$$/$"), "/aax/$/$");
        assert_eq!(regex.expand("c", "$1"), None);
        assert_eq!(AnchoredRegex::new("abc").unwrap().expand("abc", "<$0$1>").unwrap(), "<abc>");
    }
}
