//! Matchers to sets of series, the same way for every [`LabelIndex`].
//!
//! A missing label counts as an empty value. A matcher that refuses the empty value is positive:
//! it is the union of the values it takes. One that takes the empty value is negative: everything
//! but the union of the values it refuses. Lookups come before scans of a label's values, positive
//! before negative, and nothing is looked up any more once no series is left.

use roaring::RoaringBitmap;

use super::LabelIndex;
use crate::model::matcher::{MatchOp, Matcher};

/// The series that fulfil all matchers; without matchers, all series.
pub fn select<I: LabelIndex + ?Sized>(
    index: &I,
    matchers: &[Matcher],
) -> Result<RoaringBitmap, I::Error> {
    let mut plans: Vec<Plan<'_>> = matchers.iter().filter_map(Plan::new).collect();
    plans.sort_by_key(Plan::cost);
    let mut found: Option<RoaringBitmap> = None;
    for plan in plans {
        if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
            break;
        }
        let set = plan.values(index)?;
        found = Some(match (found, plan.sign) {
            (None, Sign::Positive) => set,
            (None, Sign::Negative) => index.all()? - set,
            (Some(found), Sign::Positive) => found & set,
            (Some(found), Sign::Negative) => found - set,
        });
    }
    found.map_or_else(|| index.all(), Ok)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    /// Series must be in the set.
    Positive,
    /// Series must not be in the set.
    Negative,
}

/// Which values make up the set of a matcher.
#[derive(Debug)]
enum Values<'a> {
    /// These; empty ones are left out.
    Listed(&'a [String]),
    One(&'a str),
    /// Whatever the value is.
    Any,
    /// Those with this beginning which the matcher judges by the sign.
    Scan {
        prefix: &'a str,
    },
}

#[derive(Debug)]
struct Plan<'a> {
    matcher: &'a Matcher,
    sign: Sign,
    values: Values<'a>,
}

impl<'a> Plan<'a> {
    /// `None`: every series fulfils the matcher.
    fn new(matcher: &'a Matcher) -> Option<Self> {
        let sign = if matcher.matches_empty() { Sign::Negative } else { Sign::Positive };
        let regex = matches!(matcher.op(), MatchOp::Regex | MatchOp::NotRegex);
        // The set holds what the operator names, not its complement: `=` that must be there,
        // `!=` that must not.
        let named = match matcher.op() {
            MatchOp::Equal | MatchOp::Regex => sign == Sign::Positive,
            MatchOp::NotEqual | MatchOp::NotRegex => sign == Sign::Negative,
        };
        let values = match (regex, matcher.regex_set()) {
            // `a=""` and `a!=""` are about any value.
            (false, _) if !named => Values::Any,
            (false, _) => Values::One(matcher.value()),
            (true, Some(set)) if named => Values::Listed(set),
            (true, _) => match (matcher.value(), matcher.op()) {
                (".*", MatchOp::Regex) => return None,
                (".*", _) => Values::Listed(&[]),
                (".+", _) => Values::Any,
                _ if named => Values::Scan { prefix: matcher.regex_prefix() },
                _ => Values::Scan { prefix: "" },
            },
        };
        Some(Self { matcher, sign, values })
    }

    fn cost(&self) -> (bool, Sign, usize) {
        match self.values {
            Values::One(_) => (false, self.sign, 1),
            Values::Any => (false, self.sign, 2),
            Values::Listed(set) => (false, self.sign, 2 + set.len()),
            Values::Scan { prefix } => (true, self.sign, usize::MAX - prefix.len()),
        }
    }

    fn values<I: LabelIndex + ?Sized>(&self, index: &I) -> Result<RoaringBitmap, I::Error> {
        let mut set = RoaringBitmap::new();
        let name = self.matcher.name();
        match self.values {
            Values::One(value) => index.add_value(name, value, &mut set)?,
            Values::Listed(values) => {
                for value in values.iter().filter(|value| !value.is_empty()) {
                    index.add_value(name, value, &mut set)?;
                }
            }
            Values::Any => index.add_name(name, &mut set)?,
            Values::Scan { prefix } => {
                let wanted = self.sign == Sign::Positive;
                let mut accept = |value: &str| self.matcher.matches(value) == wanted;
                index.add_values(name, prefix, &mut accept, &mut set)?;
            }
        }
        Ok(set)
    }
}
