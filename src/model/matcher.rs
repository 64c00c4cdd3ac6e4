//! Label matchers: `=`, `!=`, `=~`, `!~`.

use std::fmt;
use std::sync::Arc;

use super::labels::{is_legacy_label_name, quote};

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
    /// A matcher; an error when `value` must be a regular expression and is none.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, RegexError> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(AnchoredRegex::new(value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), regex })
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
        let (op, value) = (self.op.as_str(), quote(&self.value));
        if is_legacy_label_name(&self.name) {
            write!(f, "{}{op}{value}", self.name)
        } else {
            write!(f, "{}{op}{value}", quote(&self.name))
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an expression does not compile.
#[derive(Clone, Debug, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(String);

/// Literal alternatives that are matched by comparison rather than by automaton.
const LITERALS_MAX: usize = 1024;
/// Memory of a compiled expression: lets long alternations of hosts through, stops bombs.
const COMPILED_BYTES_MAX: usize = 64 << 20;

/// A regular expression that must match the whole text; the dot matches newlines.
#[derive(Clone, Debug)]
pub struct AnchoredRegex {
    source: Arc<str>,
    regex: Option<regex::Regex>,
    literals: Option<Arc<[String]>>,
}

impl AnchoredRegex {
    /// Compiles `^(?s:source)$`.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        let literals = literal_set(source).map(Arc::from);
        let regex = match literals {
            Some(_) => None,
            None => {
                // On its own first, so that an unbalanced bracket cannot borrow ours.
                let compile = |text: &str| {
                    let mut builder = regex::RegexBuilder::new(text);
                    builder.size_limit(COMPILED_BYTES_MAX).build()
                };
                let own = compile(source).and_then(|_| compile(&format!("^(?s:{source})$")));
                Some(own.map_err(|err| RegexError(last_line(&err.to_string())))?)
            }
        };
        Ok(Self { source: Arc::from(source), regex, literals })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The alternatives, when the expression is nothing but literal text and `|`.
    pub fn literals(&self) -> Option<&[String]> {
        self.literals.as_deref()
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        match (&self.literals, &self.regex) {
            (Some(literals), _) => literals.iter().any(|literal| literal == text),
            (None, Some(regex)) => regex.is_match(text),
            (None, None) => unreachable!("one of the two was made"),
        }
    }

    /// Replaces by Go's rules of `Regexp.Expand` (`$1`, `${name}`, `$$`; `$1x` is the group named
    /// `1x`); `None` when the text does not match.
    pub fn expand(&self, text: &str, replacement: &str) -> Option<String> {
        let Some(regex) = &self.regex else {
            // No groups: only `$0` and names that do not exist can occur.
            let whole = self.is_match(text).then_some(text)?;
            return Some(expand_go(replacement, |name| if name == "0" { whole } else { "" }));
        };
        let captures = regex.captures(text)?;
        Some(expand_go(replacement, |name| {
            let group = match name.parse::<usize>() {
                Ok(index) => captures.get(index),
                Err(_) => captures.name(name),
            };
            group.map_or("", |group| group.as_str())
        }))
    }
}

impl PartialEq for AnchoredRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for AnchoredRegex {}

fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or(text);
    line.trim().trim_start_matches("error: ").to_owned()
}

/// `a|b|c` without any operator but `|`, split.
fn literal_set(source: &str) -> Option<Vec<String>> {
    let special = |byte: u8| b"\\.+*?()[]{}^$".contains(&byte);
    if source.bytes().any(special) {
        return None;
    }
    let literals: Vec<_> = source.split('|').map(str::to_owned).collect();
    (literals.len() <= LITERALS_MAX).then_some(literals)
}

/// Go's template expansion: `$name`, `${name}`, `$$`; a malformed reference stays as it is.
pub fn expand_go<'a>(template: &str, group: impl Fn(&str) -> &'a str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let text = braced.unwrap_or(rest);
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let end = text.find(|letter| !word(letter)).unwrap_or(text.len());
        let closed = braced.is_none() || text[end..].starts_with('}');
        if end == 0 || !closed {
            out.push('$');
            continue;
        }
        out.push_str(group(&text[..end]));
        rest = &text[end + usize::from(braced.is_some())..];
    }
    out.push_str(rest);
    out
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
