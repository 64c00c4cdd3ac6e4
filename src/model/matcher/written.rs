//! Matchers as they stand in a query: checked, but not compiled. Reading, printing and formatting
//! queries needs no more; who evaluates one compiles them.

use std::fmt;
use std::sync::Arc;

use super::{AnchoredRegex, CompileAllowance, MatchOp, Matcher, write_matcher};
use crate::model::regexp::{Dot, RegexError, Regexp};

/// A condition on one label, as it was written.
#[derive(Clone)]
pub struct WrittenMatcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<Arc<Regexp>>,
}

impl WrittenMatcher {
    /// A matcher; an error when `value` must be a regular expression and is none.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, RegexError> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(Regexp::parse(value, Dot::All)?)),
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

    /// The right-hand side.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether series without the label fulfil it.
    pub fn matches_empty(&self) -> bool {
        let fits = match &self.regex {
            Some(regex) => regex.matches_empty(),
            None => self.value.is_empty(),
        };
        fits == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }

    /// What can be asked about values.
    ///
    /// # Errors
    /// The regular expression is larger than what is left of the allowance.
    pub fn compile(&self, allowance: &mut CompileAllowance) -> Result<Matcher, RegexError> {
        let parsed = self.regex.as_deref();
        let regex = parsed.map(|own| AnchoredRegex::for_matcher(&self.value, own, allowance));
        let regex = regex.transpose()?;
        Ok(Matcher { name: self.name.clone(), op: self.op, value: self.value.clone(), regex })
    }
}

impl PartialEq for WrittenMatcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for WrittenMatcher {}

/// As in PromQL: `name="value"`.
impl fmt::Display for WrittenMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_matcher(f, &self.name, self.op, &self.value)
    }
}

impl fmt::Debug for WrittenMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Compiles the matchers of a selector.
///
/// # Errors
/// Their regular expressions are larger than what is left of the allowance.
pub fn compile_all(
    matchers: &[WrittenMatcher],
    allowance: &mut CompileAllowance,
) -> Result<Vec<Matcher>, RegexError> {
    matchers.iter().map(|matcher| matcher.compile(allowance)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(value: &str) -> WrittenMatcher {
        WrittenMatcher::new(MatchOp::Regex, "a", value).unwrap()
    }

    #[test]
    fn the_allowance_bounds_what_is_compiled() {
        let mut allowance = CompileAllowance::default();
        let heavy = |number: usize| regex(&format!("\\pL{{200}}w{number}"));
        assert!(heavy(0).compile(&mut allowance).is_ok());
        let other = (1..10).find_map(|number| heavy(number).compile(&mut allowance).err());
        assert!(other.unwrap().to_string().contains("expression too large"));
        assert!(regex("\\pL{1000}").compile(&mut CompileAllowance::default()).is_err());
    }

    #[test]
    fn long_lists_of_texts_are_no_automata() {
        let hosts: Vec<String> = (0..50_000).map(|number| format!("host-{number}:9100")).collect();
        let compiled = regex(&hosts.join("|")).compile(&mut CompileAllowance::default()).unwrap();
        assert_eq!(compiled.regex_set().map(<[String]>::len), Some(50_000));
        assert!(compiled.matches("host-777:9100") && !compiled.matches("host-777"));
        let long = "a".repeat(1 << 20);
        let compiled = regex(&long).compile(&mut CompileAllowance::default()).unwrap();
        assert!(compiled.matches(&long));
    }

    #[test]
    fn what_fits_a_missing_label_is_known_without_compiling() {
        let cases = [
            ("", true),
            ("a", false),
            (".*", true),
            (".+", false),
            ("a?(b|)", true),
            ("(a|b)c*", false),
            ("^$", true),
            ("\\b", false),
            ("\\B", true),
            ("(?m:^$)", true),
            ("(\\pL{900})*", true),
            ("a{0}", true),
            ("[ab]", false),
        ];
        for (pattern, fits) in cases {
            assert_eq!(regex(pattern).matches_empty(), fits, "{pattern}");
            let not = WrittenMatcher::new(MatchOp::NotRegex, "a", pattern).unwrap();
            assert_eq!(not.matches_empty(), !fits, "{pattern}");
        }
        assert!(WrittenMatcher::equal("a", "").matches_empty());
        assert!(WrittenMatcher::new(MatchOp::NotEqual, "a", "b").unwrap().matches_empty());
    }
}
