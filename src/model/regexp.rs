//! Regular expressions as Go writes them, run by the `regex` crate.
//!
//! `parser` reads Go's dialect (RE2 with Perl's escapes) and refuses what Go refuses, in Go's
//! words; [`Regexp`] prints the tree in the notation of the crate; `shape` finds out which
//! expressions are decided by comparing texts. Groups are printed without names, because Go allows
//! a name twice.

mod class;
mod parser;
mod shape;

pub use shape::Shape;

use parser::Node;

/// Why an expression does not compile, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {reason}: `{part}`")]
pub struct RegexError {
    reason: &'static str,
    part: String,
}

impl RegexError {
    fn new(reason: &'static str, part: &str) -> Self {
        Self { reason, part: part.to_owned() }
    }
}

/// Memory of a compiled expression: lets long alternations of hosts through, stops bombs.
const COMPILED_BYTES_MAX: usize = 64 << 20;

/// What the dot matches when the expression does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dot {
    /// Any letter, newlines too.
    All,
    /// Any letter but newlines.
    Line,
}

/// An expression that has been read but not compiled.
#[derive(Clone, Debug)]
pub struct Regexp {
    source: String,
    root: Node,
    names: Vec<String>,
}

impl Regexp {
    /// Reads an expression.
    ///
    /// # Errors
    /// Go's text when Go does not take it.
    pub fn parse(source: &str, dot: Dot) -> Result<Self, RegexError> {
        let (root, names) = parser::parse(source, dot)?;
        Ok(Self { source: source.to_owned(), root, names })
    }

    /// What can be said of a text that matches as a whole.
    pub fn shape(&self) -> Shape {
        shape::of(&self.root)
    }

    /// How many groups capture.
    pub fn capture_count(&self) -> usize {
        self.names.len()
    }

    /// Whether the expression is `(.*)`: the group is the text.
    pub fn is_whole_capture(&self) -> bool {
        shape::is_whole_capture(&self.root)
    }

    /// An estimate of the size when compiled: letters and classes, times the repetitions.
    pub fn weight(&self) -> usize {
        self.root.weight()
    }

    /// Whether the empty text matches.
    pub fn matches_empty(&self) -> bool {
        self.root.matches_empty()
    }

    /// That the expression takes too much, in Go's words.
    pub fn too_large(&self) -> RegexError {
        RegexError::new("expression too large", &self.source)
    }

    /// Compiles, to match anywhere.
    ///
    /// # Errors
    /// The expression is too large.
    pub fn compile(&self) -> Result<Compiled, RegexError> {
        self.compile_text(self.root.to_rust())
    }

    /// Compiles, to match a whole text.
    ///
    /// # Errors
    /// The expression is too large.
    pub fn compile_anchored(&self) -> Result<Compiled, RegexError> {
        self.compile_text(format!("\\A(?:{})\\z", self.root.to_rust()))
    }

    fn compile_text(&self, text: String) -> Result<Compiled, RegexError> {
        let built = regex::RegexBuilder::new(&text).size_limit(COMPILED_BYTES_MAX).build();
        let regex = built.map_err(|err| {
            let reason = match err {
                regex::Error::CompiledTooBig(_) => "expression too large",
                // Whatever else is wrong was found by our own parser.
                _ => "expression nests too deeply",
            };
            RegexError::new(reason, &self.source)
        })?;
        Ok(Compiled { regex, names: self.names.clone() })
    }
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Compiled {
    regex: regex::Regex,
    /// Names of the groups from the first on; empty where a group has none.
    names: Vec<String>,
}

impl Compiled {
    /// Whether it matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Expands the template with the groups of the first match; `None` without a match.
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        let captures = self.regex.captures(text)?;
        Some(expand_go(template, |name| self.group(&captures, text, name)))
    }

    /// Replaces every match by the expanded template.
    pub fn replace_all(&self, text: &str, template: &str) -> String {
        let expand = |captures: &regex::Captures<'_>| {
            expand_go(template, |name| self.group(captures, text, name))
        };
        self.regex.replace_all(text, expand).into_owned()
    }

    /// The group of this number, or else the first that took part of those with this name.
    fn group<'a>(&self, captures: &regex::Captures<'_>, text: &'a str, name: &str) -> &'a str {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits && (name.len() == 1 || !name.starts_with('0')) {
            name.parse::<usize>().ok()
        } else {
            None
        };
        let found = match number {
            Some(number) => captures.get(number),
            None => {
                let groups = self.names.iter().enumerate();
                groups.filter(|(_, own)| *own == name).find_map(|(at, _)| captures.get(at + 1))
            }
        };
        // The text lives as long as the subject, not the captures.
        found.map_or("", |group| &text[group.range()])
    }
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
mod tests;
