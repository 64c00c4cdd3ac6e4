//! Go's `regexp/syntax` with the flags of Perl, to a tree.
//!
//! Nesting is bounded by [`DEPTH_MAX`], and a repetition by [`REPEAT_MAX`]; both limit the recursion
//! and the size of whatever walks the tree.

use super::class::{self, Class};
use super::{Dot, RegexError};

/// Parentheses inside each other.
const DEPTH_MAX: usize = 250;
/// Go's limit of a counted repetition, nested ones multiplied.
const REPEAT_MAX: u32 = 1000;

/// The dot becomes some byte sequences.
const ANY_WEIGHT: usize = 10;

/// A flag that can be set by `(?…)`.
type Flags = u8;
const FOLD: Flags = 1;
const MULTI_LINE: Flags = 2;
const DOT_ALL: Flags = 4;
const LAZY: Flags = 8;

/// One part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// One letter; in any case when `fold`.
    Letter { letter: char, fold: bool },
    /// The dot.
    Any(Dot),
    /// One letter out of a set.
    Class(Class),
    /// A condition on the place.
    Look(Look),
    /// A group that captures.
    Capture(Box<Node>),
    /// One after the other; the empty list matches nothing but the empty text.
    Concat(Vec<Node>),
    /// The first that fits.
    Alternate(Vec<Node>),
    /// Again and again; without a `max` as often as possible.
    Repeat { node: Box<Node>, min: u32, max: Option<u32>, greedy: bool },
}

/// Conditions on the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    BeginText,
    EndText,
    BeginLine,
    EndLine,
    WordBoundary,
    NoWordBoundary,
}

impl Node {
    /// In the notation of the `regex` crate.
    pub(super) fn to_rust(&self) -> String {
        let mut out = String::new();
        self.print(&mut out);
        out
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Letter { letter, fold: false } => class::push_letter(out, *letter),
            Self::Letter { letter, fold: true } => {
                out.push_str("(?i:");
                class::push_letter(out, *letter);
                out.push(')');
            }
            Self::Any(Dot::All) => out.push_str("(?s:.)"),
            Self::Any(Dot::Line) => out.push_str("(?-s:.)"),
            Self::Class(class) => class.print(out),
            Self::Look(look) => out.push_str(match look {
                Look::BeginText => "\\A",
                Look::EndText => "\\z",
                Look::BeginLine => "(?m:^)",
                Look::EndLine => "(?m:$)",
                Look::WordBoundary => "(?-u:\\b)",
                Look::NoWordBoundary => "(?-u:\\B)",
            }),
            Self::Capture(node) => {
                out.push('(');
                node.print(out);
                out.push(')');
            }
            Self::Concat(nodes) => nodes.iter().for_each(|node| node.print(out)),
            Self::Alternate(nodes) => {
                out.push_str("(?:");
                for (index, node) in nodes.iter().enumerate() {
                    if index > 0 {
                        out.push('|');
                    }
                    node.print(out);
                }
                out.push(')');
            }
            Self::Repeat { node, min, max, greedy } => {
                out.push_str("(?:");
                node.print(out);
                out.push(')');
                match (min, max) {
                    (0, None) => out.push('*'),
                    (1, None) => out.push('+'),
                    (0, Some(1)) => out.push('?'),
                    (min, None) => out.push_str(&format!("{{{min},}}")),
                    (min, Some(max)) => out.push_str(&format!("{{{min},{max}}}")),
                }
                if !greedy {
                    out.push('?');
                }
            }
        }
    }

    /// An estimate of the size when compiled.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Letter { fold: false, .. } | Self::Look(_) => 1,
            Self::Letter { fold: true, .. } => 3,
            Self::Any(_) => ANY_WEIGHT,
            Self::Class(class) => class.weight(),
            Self::Capture(node) => 1 + node.weight(),
            Self::Concat(nodes) | Self::Alternate(nodes) => {
                nodes.iter().fold(1, |sum, node| sum.saturating_add(node.weight()))
            }
            Self::Repeat { node, min, max, .. } => {
                let times = max.unwrap_or(*min).max(1) as usize;
                node.weight().saturating_mul(times)
            }
        }
    }

    /// Whether the empty text matches.
    pub(super) fn matches_empty(&self) -> bool {
        match self {
            Self::Letter { .. } | Self::Any(_) | Self::Class(_) => false,
            Self::Look(look) => *look != Look::WordBoundary,
            Self::Capture(node) => node.matches_empty(),
            Self::Concat(nodes) => nodes.iter().all(Self::matches_empty),
            Self::Alternate(nodes) => nodes.iter().any(Self::matches_empty),
            Self::Repeat { node, min, .. } => *min == 0 || node.matches_empty(),
        }
    }

    /// Whether counted repetitions inside each other stay below a limit.
    fn repeats_at_most(&self, limit: u32) -> bool {
        match self {
            Self::Repeat { node, min, max, .. } if (*min, *max) != (0, None) => {
                let times = match max {
                    Some(0) => return true,
                    Some(max) => *max,
                    None => *min,
                };
                // `+` and `?` are no counted repetitions.
                let counted = !matches!((min, max), (1, None) | (0, Some(1)));
                if !counted {
                    return node.repeats_at_most(limit);
                }
                times <= limit && node.repeats_at_most(limit / times.max(1))
            }
            Self::Capture(node) | Self::Repeat { node, .. } => node.repeats_at_most(limit),
            Self::Concat(nodes) | Self::Alternate(nodes) => {
                nodes.iter().all(|node| node.repeats_at_most(limit))
            }
            Self::Letter { .. } | Self::Any(_) | Self::Class(_) | Self::Look(_) => true,
        }
    }
}

/// An open parenthesis, or the whole expression.
struct Frame {
    /// In force again behind the parenthesis.
    flags: Flags,
    captures: bool,
    alternatives: Vec<Node>,
    items: Vec<Node>,
}

impl Frame {
    fn new(flags: Flags, captures: bool) -> Self {
        Self { flags, captures, alternatives: Vec::new(), items: Vec::new() }
    }

    fn end_alternative(&mut self) {
        let mut items = std::mem::take(&mut self.items);
        let node = if items.len() == 1 { items.remove(0) } else { Node::Concat(items) };
        self.alternatives.push(node);
    }

    fn into_node(mut self) -> Node {
        self.end_alternative();
        let node = if self.alternatives.len() == 1 {
            self.alternatives.remove(0)
        } else {
            Node::Alternate(self.alternatives)
        };
        if self.captures { Node::Capture(Box::new(node)) } else { node }
    }
}

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    flags: Flags,
    /// The innermost open parenthesis; the others are in `outer`.
    frame: Frame,
    outer: Vec<Frame>,
    names: Vec<String>,
}

/// The tree, and the names of the groups (empty: none).
pub(super) fn parse(source: &str, dot: Dot) -> Result<(Node, Vec<String>), RegexError> {
    let flags = if dot == Dot::All { DOT_ALL } else { 0 };
    let mut parser = Parser {
        whole: source,
        rest: source,
        flags,
        frame: Frame::new(flags, false),
        outer: Vec::new(),
        names: Vec::new(),
    };
    // Where the repetition began that was read just before, for errors on `a**`.
    let mut repetition: Option<&str> = None;
    while let Some(letter) = parser.rest.chars().next() {
        repetition = match letter {
            '*' => Some(parser.repeat(1, (0, None), repetition)?),
            '+' => Some(parser.repeat(1, (1, None), repetition)?),
            '?' => Some(parser.repeat(1, (0, Some(1)), repetition)?),
            '{' => parser.counted(repetition)?,
            _ => {
                parser.item(letter)?;
                None
            }
        };
    }
    if !parser.outer.is_empty() {
        return Err(RegexError::new("missing closing )", source));
    }
    Ok((parser.frame.into_node(), parser.names))
}

impl<'a> Parser<'a> {
    fn has(&self, flag: Flags) -> bool {
        self.flags & flag != 0
    }

    fn push(&mut self, node: Node) {
        self.frame.items.push(node);
    }

    fn literal(&mut self, letter: char) {
        // Digits and the like are the same in any case.
        let fold = self.has(FOLD) && (letter.is_ascii_alphabetic() || !letter.is_ascii());
        self.push(Node::Letter { letter, fold });
    }

    /// Anything but a repetition.
    fn item(&mut self, letter: char) -> Result<(), RegexError> {
        match letter {
            '(' if self.rest.starts_with("(?") => return self.extension(),
            '(' => {
                self.names.push(String::new());
                self.rest = &self.rest[1..];
                return self.open(true, self.flags);
            }
            ')' => return self.close(),
            '[' => {
                let (class, rest) = class::parse(self.rest, self.has(FOLD))?;
                self.rest = rest;
                self.push(Node::Class(class));
                return Ok(());
            }
            '\\' => return self.escape(),
            _ => {}
        }
        self.rest = &self.rest[letter.len_utf8()..];
        match letter {
            '|' => self.frame.end_alternative(),
            '^' if self.has(MULTI_LINE) => self.push(Node::Look(Look::BeginLine)),
            '^' => self.push(Node::Look(Look::BeginText)),
            '$' if self.has(MULTI_LINE) => self.push(Node::Look(Look::EndLine)),
            '$' => self.push(Node::Look(Look::EndText)),
            '.' if self.has(DOT_ALL) => self.push(Node::Any(Dot::All)),
            '.' => self.push(Node::Any(Dot::Line)),
            _ => self.literal(letter),
        }
        Ok(())
    }

    fn open(&mut self, captures: bool, flags: Flags) -> Result<(), RegexError> {
        if self.outer.len() == DEPTH_MAX {
            return Err(RegexError::new("expression nests too deeply", self.whole));
        }
        let frame = Frame::new(self.flags, captures);
        self.outer.push(std::mem::replace(&mut self.frame, frame));
        self.flags = flags;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RegexError> {
        let Some(outer) = self.outer.pop() else {
            return Err(RegexError::new("unexpected )", self.whole));
        };
        let inner = std::mem::replace(&mut self.frame, outer);
        self.flags = inner.flags;
        self.push(inner.into_node());
        self.rest = &self.rest[1..];
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)`, `(?flags:`.
    fn extension(&mut self) -> Result<(), RegexError> {
        let text = self.rest;
        let name_at = match text.as_bytes() {
            [_, _, b'P', b'<', _, ..] => Some(4),
            [_, _, b'<', _, ..] => Some(3),
            _ => None,
        };
        if let Some(name_at) = name_at {
            let invalid = |part| RegexError::new("invalid named capture", part);
            let end = text.find('>').ok_or_else(|| invalid(text))?;
            let name = text.get(name_at..end).unwrap_or("");
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(word) {
                return Err(invalid(&text[..=end]));
            }
            self.names.push(name.to_owned());
            self.rest = &text[end + 1..];
            return self.open(true, self.flags);
        }
        let (mut set, mut cleared, mut negative, mut any) = (0, 0, false, false);
        for (at, letter) in text.char_indices().skip(2) {
            let flag = match letter {
                'i' => FOLD,
                'm' => MULTI_LINE,
                's' => DOT_ALL,
                'U' => LAZY,
                '-' if !negative => {
                    (negative, any) = (true, false);
                    continue;
                }
                ':' | ')' if !negative || any => {
                    let flags = (self.flags | set) & !cleared;
                    self.rest = &text[at + 1..];
                    if letter == ':' {
                        return self.open(false, flags);
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => {
                    let part = &text[..at + letter.len_utf8()];
                    return Err(RegexError::new("invalid or unsupported Perl syntax", part));
                }
            };
            any = true;
            if negative {
                (set, cleared) = (set & !flag, cleared | flag);
            } else {
                set |= flag;
            }
        }
        Err(RegexError::new("invalid or unsupported Perl syntax", text))
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        let text = self.rest;
        let look = match text.as_bytes().get(1) {
            Some(b'A') => Look::BeginText,
            Some(b'z') => Look::EndText,
            Some(b'b') => Look::WordBoundary,
            Some(b'B') => Look::NoWordBoundary,
            Some(b'C') => return Err(RegexError::new("invalid escape sequence", "\\C")),
            Some(b'Q') => {
                let quoted = &text[2..];
                let (literal, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                literal.chars().for_each(|letter| self.literal(letter));
                self.rest = rest;
                return Ok(());
            }
            _ => {
                if let Some((class, rest)) = class::parse_escape_class(text, self.has(FOLD))? {
                    self.rest = rest;
                    self.push(Node::Class(class));
                } else {
                    let (letter, rest) = class::parse_escape(text)?;
                    self.rest = rest;
                    self.literal(letter);
                }
                return Ok(());
            }
        };
        self.rest = &text[2..];
        self.push(Node::Look(look));
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; any other brace is a letter.
    fn counted(&mut self, before: Option<&'a str>) -> Result<Option<&'a str>, RegexError> {
        let text = self.rest;
        let Some((min, max, len)) = counts(text) else {
            self.rest = &text[1..];
            self.literal('{');
            return Ok(None);
        };
        let too_many = min.is_none_or(|min| min > REPEAT_MAX)
            || max.is_some_and(|max| max.is_none_or(|max| max > REPEAT_MAX || Some(max) < min));
        if too_many {
            return Err(RegexError::new("invalid repeat count", &text[..len]));
        }
        self.repeat(len, (min.unwrap_or(0), max.flatten()), before).map(Some)
    }

    /// Repeats the last item; gives the text from the operator on. `before` is that of an operator
    /// directly in front of this one.
    fn repeat(
        &mut self,
        len: usize,
        (min, max): (u32, Option<u32>),
        before: Option<&'a str>,
    ) -> Result<&'a str, RegexError> {
        let text = self.rest;
        let mut after = &text[len..];
        let mut greedy = !self.has(LAZY);
        if let Some(rest) = after.strip_prefix('?') {
            (after, greedy) = (rest, !greedy);
        }
        let operator = &text[..text.len() - after.len()];
        if let Some(before) = before {
            let both = &before[..before.len() - after.len()];
            return Err(RegexError::new("invalid nested repetition operator", both));
        }
        let Some(node) = self.frame.items.pop() else {
            return Err(RegexError::new("missing argument to repetition operator", operator));
        };
        let node = Node::Repeat { node: Box::new(node), min, max, greedy };
        if (min >= 2 || max.is_some_and(|max| max >= 2)) && !node.repeats_at_most(REPEAT_MAX) {
            return Err(RegexError::new("invalid repeat count", operator));
        }
        self.push(node);
        self.rest = after;
        Ok(text)
    }
}

/// Numbers between braces (`None`: too large to count), whether there is a second one, and the
/// length of it all.
#[expect(clippy::option_option, reason = "no maximum, one that is too large, and a number differ")]
fn counts(text: &str) -> Option<(Option<u32>, Option<Option<u32>>, usize)> {
    let (min, rest) = number(text.strip_prefix('{')?)?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (max, rest) = number(rest)?;
            (Some(max), rest)
        }
    };
    let rest = rest.strip_prefix('}')?;
    Some((min, max, text.len() - rest.len()))
}

/// A decimal number without leading zeros.
fn number(text: &str) -> Option<(Option<u32>, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let digits = &text[..end];
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().ok(), &text[end..]))
}
