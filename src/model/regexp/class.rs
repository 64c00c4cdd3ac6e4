//! Sets of letters (`[…]`, `\d`, `[:alpha:]`, `\p{Greek}`) and escapes of single letters.

use std::fmt::Write as _;

use super::RegexError;

/// A set of letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Class {
    negated: bool,
    /// In any case.
    fold: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// From and to, both included.
    Range(char, char),
    /// A named set of ASCII letters, or its complement.
    Ascii { ranges: &'static [(char, char)], negated: bool },
    /// A category or script as the `regex` crate names it.
    Unicode { name: String, negated: bool },
}

/// Letters that a class is taken apart into at most.
const LETTERS_MAX: u32 = 100;

impl Class {
    /// The letters, when they are few and named one by one or as ranges.
    pub(super) fn letters(&self) -> Option<Vec<char>> {
        if self.negated || self.fold {
            return None;
        }
        let mut letters = Vec::new();
        for part in &self.parts {
            let Part::Range(from, to) = *part else { return None };
            if u32::from(to) - u32::from(from) + letters.len() as u32 >= LETTERS_MAX {
                return None;
            }
            letters.extend(from..=to);
        }
        Some(letters)
    }

    /// An estimate of the size when compiled.
    pub(super) fn weight(&self) -> usize {
        let wide = |part: &&Part| matches!(part, Part::Unicode { .. });
        // Categories of Unicode become hundreds of byte sequences; so may a complement or a range
        // outside of ASCII, in any case.
        let folded =
            |part: &&Part| matches!(part, Part::Range(_, to) if self.fold && !to.is_ascii());
        let wide_count = self.parts.iter().filter(|part| wide(part) || folded(part)).count();
        10 * self.parts.len() + 500 * wide_count + 10
    }

    /// In the notation of the `regex` crate.
    pub(super) fn print(&self, out: &mut String) {
        out.push_str(if self.fold { "(?i:[" } else { "[" });
        if self.negated {
            out.push('^');
        }
        for part in &self.parts {
            match part {
                Part::Range(from, to) => push_range(out, *from, *to),
                Part::Ascii { ranges, negated } => {
                    out.push_str(if *negated { "[^" } else { "[" });
                    ranges.iter().for_each(|(from, to)| push_range(out, *from, *to));
                    out.push(']');
                }
                Part::Unicode { name, negated } => {
                    let _ = write!(out, "\\{}{{{name}}}", if *negated { 'P' } else { 'p' });
                }
            }
        }
        out.push_str(if self.fold { "])" } else { "]" });
    }
}

fn push_range(out: &mut String, from: char, to: char) {
    push_letter(out, from);
    out.push('-');
    push_letter(out, to);
}

/// A letter that is nothing but itself.
pub(super) fn push_letter(out: &mut String, letter: char) {
    if letter.is_ascii_alphanumeric() {
        out.push(letter);
    } else {
        let _ = write!(out, "\\x{{{:x}}}", u32::from(letter));
    }
}

/// `[…]`, from the bracket on.
pub(super) fn parse(text: &str, fold: bool) -> Result<(Class, &str), RegexError> {
    let mut rest = &text[1..];
    let mut class = Class { negated: false, fold, parts: Vec::new() };
    if let Some(after) = rest.strip_prefix('^') {
        (rest, class.negated) = (after, true);
    }
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        if let Some((part, after)) = posix_class(rest)? {
            class.parts.push(part);
            rest = after;
            continue;
        }
        if let Some((part, after)) = escape_part(rest)? {
            class.parts.push(part);
            rest = after;
            continue;
        }
        let range = rest;
        let (from, after) = letter_of_class(rest, text)?;
        let mut to = from;
        rest = after;
        if let Some(after) = rest.strip_prefix('-').filter(|after| {
            // A minus before the end is itself.
            !after.is_empty() && !after.starts_with(']')
        }) {
            (to, rest) = letter_of_class(after, text)?;
            if to < from {
                let part = &range[..range.len() - rest.len()];
                return Err(RegexError::new("invalid character class range", part));
            }
        }
        class.parts.push(Part::Range(from, to));
    }
    Ok((class, &rest[1..]))
}

fn letter_of_class<'a>(text: &'a str, whole: &str) -> Result<(char, &'a str), RegexError> {
    match text.chars().next() {
        None => Err(RegexError::new("missing closing ]", whole)),
        Some('\\') => parse_escape(text),
        Some(letter) => Ok((letter, &text[letter.len_utf8()..])),
    }
}

/// `\d`, `\pL` and the like outside of brackets.
pub(super) fn parse_escape_class(
    text: &str,
    fold: bool,
) -> Result<Option<(Class, &str)>, RegexError> {
    let parsed = escape_part(text)?;
    Ok(parsed.map(|(part, rest)| (Class { negated: false, fold, parts: vec![part] }, rest)))
}

const DIGIT: &[(char, char)] = &[('0', '9')];
const SPACE: &[(char, char)] = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The classes between `[:` and `:]`.
const POSIX: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

fn posix_class(text: &str) -> Result<Option<(Part, &str)>, RegexError> {
    let Some(inner) = text.strip_prefix("[:") else { return Ok(None) };
    let Some((name, rest)) = inner.split_once(":]") else { return Ok(None) };
    let (plain, negated) = name.strip_prefix('^').map_or((name, false), |plain| (plain, true));
    let Some((_, ranges)) = POSIX.iter().find(|(own, _)| *own == plain) else {
        let part = &text[..text.len() - rest.len()];
        return Err(RegexError::new("invalid character class range", part));
    };
    Ok(Some((Part::Ascii { ranges, negated }, rest)))
}

/// A class that is written with a backslash, if there is one.
fn escape_part(text: &str) -> Result<Option<(Part, &str)>, RegexError> {
    let Some(letter) = text.strip_prefix('\\').and_then(|rest| rest.chars().next()) else {
        return Ok(None);
    };
    let ranges = match letter.to_ascii_lowercase() {
        'd' => DIGIT,
        's' => SPACE,
        'w' => WORD,
        'p' => return unicode_class(text, letter == 'P').map(Some),
        _ => return Ok(None),
    };
    Ok(Some((Part::Ascii { ranges, negated: letter.is_ascii_uppercase() }, &text[2..])))
}

/// `\pL`, `\p{Greek}`, `\p{^Greek}`, `\P…`.
fn unicode_class(text: &str, mut negated: bool) -> Result<(Part, &str), RegexError> {
    let unknown = |part| RegexError::new("invalid character class range", part);
    let (mut name, rest) = if text[2..].starts_with('{') {
        let end = text.find('}').ok_or_else(|| unknown(text))?;
        (&text[3..end], &text[end + 1..])
    } else {
        let letter_len = text[2..].chars().next().map_or(0, char::len_utf8);
        text[2..].split_at(letter_len)
    };
    let written = &text[..text.len() - rest.len()];
    if let Some(positive) = name.strip_prefix('^') {
        (name, negated) = (positive, !negated);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(unknown(written));
    }
    // The crate knows many more properties than Go, which has categories and scripts.
    let known = ["gc", "sc"].into_iter().map(|table| format!("{table}={name}"));
    let name = known.into_iter().find(|name| regex::Regex::new(&format!("\\p{{{name}}}")).is_ok());
    let name = name.ok_or_else(|| unknown(written))?;
    Ok((Part::Unicode { name, negated }, rest))
}

/// An escape of one letter, from the backslash on.
pub(super) fn parse_escape(text: &str) -> Result<(char, &str), RegexError> {
    let mut letters = text[1..].chars();
    let Some(letter) = letters.next() else {
        return Err(RegexError::new("trailing backslash at end of expression", ""));
    };
    let parsed = match letter {
        '0' => Some(octal(text)),
        // One digit alone would refer back to a group, which there is not.
        '1'..='7' if letters.as_str().starts_with(|next| matches!(next, '0'..='7')) => {
            Some(octal(text))
        }
        'x' => return hexadecimal(text),
        'a' => Some('\x07'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        _ if letter.is_ascii() && !letter.is_ascii_alphanumeric() => Some(letter),
        _ => None,
    };
    let Some(parsed) = parsed else {
        let part = &text[..text.len() - letters.as_str().len()];
        return Err(RegexError::new("invalid escape sequence", part));
    };
    let len = if letter.is_ascii_digit() { 1 + octal_len(text) } else { 2 };
    Ok((parsed, &text[len..]))
}

fn octal_len(text: &str) -> usize {
    text.bytes().skip(1).take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count()
}

/// Up to three digits.
fn octal(text: &str) -> char {
    let digits = text.bytes().skip(1).take(octal_len(text));
    let value = digits.fold(0_u32, |value, byte| value * 8 + u32::from(byte - b'0'));
    // Three octal digits are at most 511.
    char::from_u32(value).unwrap_or('\0')
}

/// `\x7F` or `\x{10FFFF}`.
fn hexadecimal(text: &str) -> Result<(char, &str), RegexError> {
    let braced = text[2..].starts_with('{');
    let mut value = 0_u32;
    let mut count = 0;
    for (at, letter) in text.char_indices().skip(if braced { 3 } else { 2 }) {
        let invalid = || {
            let part = &text[..at + letter.len_utf8()];
            RegexError::new("invalid escape sequence", part)
        };
        if braced && letter == '}' {
            // Halves of UTF-16 pairs are no letters of any text.
            let letter = char::from_u32(value).filter(|_| count > 0).ok_or_else(invalid)?;
            return Ok((letter, &text[at + 1..]));
        }
        let digit = letter.to_digit(16).ok_or_else(invalid)?;
        value = value * 16 + digit;
        count += 1;
        if value > u32::from(char::MAX) {
            return Err(invalid());
        }
        if !braced && count == 2 {
            return Ok((char::from(value as u8), &text[at + 1..]));
        }
    }
    Err(RegexError::new("invalid escape sequence", text))
}
