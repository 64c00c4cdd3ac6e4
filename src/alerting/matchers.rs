//! Alertmanager's matcher notation, in its UTF-8 and its classic dialect.
//!
//! Both dialects are tried, as Alertmanager does by default: where only one accepts a text that one
//! counts, and where both accept it but disagree the classic one wins, because configurations in
//! the wild were written for it.

use std::fmt::Write as _;
use std::str::Chars;

use crate::model::labels::{Labels, is_legacy_metric_name, quote};
use crate::model::matcher::{MatchOp, Matcher};

/// Why a text is no list of matchers; the text is Alertmanager's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

fn error<T>(text: impl Into<String>) -> Result<T, MatcherError> {
    Err(MatcherError(text.into()))
}

/// Parses any number of matchers, with or without braces around them.
pub fn parse_list(input: &str) -> Result<Vec<Matcher>, MatcherError> {
    fallback(parse_utf8(input), || parse_classic(input))
}

/// Parses exactly one matcher without braces, as the API's `filter` and amtool give them.
pub fn parse_one(input: &str) -> Result<Matcher, MatcherError> {
    let utf8 = parse_one_utf8(input);
    fallback(utf8, || parse_classic_one(input))
}

fn fallback<T: PartialEq>(
    utf8: Result<T, MatcherError>,
    classic: impl FnOnce() -> Result<T, MatcherError>,
) -> Result<T, MatcherError> {
    match (utf8, classic()) {
        (Ok(utf8), Err(_)) => Ok(utf8),
        (Ok(_) | Err(_), Ok(classic)) => Ok(classic),
        (Err(utf8), Err(_)) => Err(utf8),
    }
}

/// Whether every matcher holds for the labels; a missing label counts as empty.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
}

/// Characters that an unquoted name or value must not have.
fn is_reserved(letter: char) -> bool {
    letter.is_whitespace() || "{}!=~,\\\"'`".contains(letter)
}

/// A matcher as Alertmanager prints it: the name is quoted only when it has reserved characters.
pub fn print(matcher: &Matcher) -> String {
    let (op, value) = (matcher.op().as_str(), quote(matcher.value()));
    if matcher.name().contains(is_reserved) {
        format!("{}{op}{value}", quote(matcher.name()))
    } else {
        format!("{}{op}{value}", matcher.name())
    }
}

/// Matchers in braces, in the given order: `{a="1",b=~"2"}`.
pub fn print_list(matchers: &[Matcher]) -> String {
    let printed: Vec<_> = matchers.iter().map(print).collect();
    format!("{{{}}}", printed.join(","))
}

/// A label set as group keys show it: `{a="x", b="y"}`, names never quoted.
pub fn print_labels(labels: &Labels) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in labels.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(out, "{comma}{name}={}", quote(value));
    }
    out.push('}');
    out
}

/// Sorts as route keys need it: by name, then value, then kind of comparison.
pub fn sort(matchers: &mut [Matcher]) {
    matchers.sort_by(|a, b| {
        let key = |m: &Matcher| (m.name().to_owned(), m.value().to_owned(), rank(m.op()));
        key(a).cmp(&key(b))
    });
}

fn rank(op: MatchOp) -> u8 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    }
}

fn build(op: MatchOp, name: &str, value: &str) -> Result<Matcher, MatcherError> {
    Matcher::new(op, name, value).or_else(|err| error(err.to_string()))
}

// ---- the UTF-8 dialect ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    OpenBrace,
    CloseBrace,
    Comma,
    Operator,
    Quoted,
    Unquoted,
    End,
}

/// A token with the columns (in letters) where it starts and ends.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
    end: usize,
}

struct Lexer<'a> {
    rest: &'a str,
    column: usize,
    /// A token that was looked at but not taken.
    peeked: Option<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn new(input: &'a str) -> Self {
        Self { rest: input, column: 0, peeked: None }
    }

    fn take(&mut self, kind: Kind, bytes: usize) -> Token<'a> {
        let (text, rest) = self.rest.split_at(bytes);
        let start = self.column;
        self.column += text.chars().count();
        self.rest = rest;
        Token { kind, text, start, end: self.column }
    }

    fn scan(&mut self) -> Result<Token<'a>, MatcherError> {
        let trimmed = self.rest.trim_start();
        self.column += self.rest[..self.rest.len() - trimmed.len()].chars().count();
        self.rest = trimmed;
        let Some(first) = self.rest.chars().next() else {
            return Ok(Token { kind: Kind::End, text: "", start: self.column, end: self.column });
        };
        match first {
            '{' => Ok(self.take(Kind::OpenBrace, 1)),
            '}' => Ok(self.take(Kind::CloseBrace, 1)),
            ',' => Ok(self.take(Kind::Comma, 1)),
            '=' => {
                let bytes = if self.rest.starts_with("=~") { 2 } else { 1 };
                Ok(self.take(Kind::Operator, bytes))
            }
            '!' => self.scan_negation(),
            '"' => self.scan_quoted(),
            letter if !is_reserved(letter) => {
                let bytes = self.rest.find(is_reserved).unwrap_or(self.rest.len());
                Ok(self.take(Kind::Unquoted, bytes))
            }
            letter => {
                let token = self.take(Kind::Unquoted, letter.len_utf8());
                error(format!("{}:{}: {}: invalid input", token.start, token.end, token.text))
            }
        }
    }

    fn scan_negation(&mut self) -> Result<Token<'a>, MatcherError> {
        let start = self.column;
        match self.rest.chars().nth(1) {
            Some('=' | '~') => Ok(self.take(Kind::Operator, 2)),
            Some(_) => error(format!("{start}:{}: !: expected one of '=~'", start + 1)),
            None => error(format!(
                "{start}:{}: unexpected end of input, expected one of '=~'",
                start + 1
            )),
        }
    }

    fn scan_quoted(&mut self) -> Result<Token<'a>, MatcherError> {
        let mut escaped = false;
        for (at, letter) in self.rest.char_indices().skip(1) {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Ok(self.take(Kind::Quoted, at + 1)),
                _ => {}
            }
        }
        let token = self.take(Kind::Quoted, self.rest.len());
        error(format!("{}:{}: {}: missing end \"", token.start, token.end, token.text))
    }

    fn peek(&mut self) -> Result<Token<'a>, MatcherError> {
        match self.peeked {
            Some(token) => Ok(token),
            None => {
                let token = self.scan()?;
                self.peeked = Some(token);
                Ok(token)
            }
        }
    }

    /// The next token if it is one of these kinds; the error ends with what was wanted.
    fn expect(&mut self, kinds: &[Kind], wanted: &str) -> Result<Token<'a>, MatcherError> {
        let token = self.peek().or_else(|err| error(format!("{err}: {wanted}")))?;
        if kinds.contains(&token.kind) {
            self.peeked = None;
            return Ok(token);
        }
        match token.kind {
            Kind::End => error(format!("0:{}: end of input: {wanted}", token.end)),
            _ => {
                error(format!("{}:{}: unexpected {}: {wanted}", token.start, token.end, token.text))
            }
        }
    }
}

fn parse_utf8(input: &str) -> Result<Vec<Matcher>, MatcherError> {
    let mut lexer = Lexer::new(input);
    let mut matchers = Vec::new();
    let braced = lexer.peek()?.kind == Kind::OpenBrace;
    if braced {
        lexer.peeked = None;
    }
    loop {
        let next = lexer.peek()?;
        let done = matches!(next.kind, Kind::CloseBrace | Kind::End);
        if done {
            break;
        }
        matchers.push(parse_matcher(&mut lexer)?);
        let next =
            lexer.peek().or_else(|err| error(format!("{err}: expected a comma or close brace")))?;
        match next.kind {
            Kind::End | Kind::CloseBrace => break,
            _ => {
                lexer.expect(&[Kind::Comma], "expected a comma or close brace")?;
                let after = lexer.peek()?;
                if !matches!(
                    after.kind,
                    Kind::End | Kind::CloseBrace | Kind::Quoted | Kind::Unquoted
                ) {
                    lexer.expect(&[], "expected a matcher or close brace after comma")?;
                }
            }
        }
    }
    if braced {
        lexer.expect(&[Kind::CloseBrace], "expected close brace")?;
    } else if lexer.peek()?.kind == Kind::CloseBrace {
        return error(format!("0:{}: }}: expected opening brace", lexer.peek()?.end));
    }
    let end = lexer.peek().or_else(|err| error(format!("{err}: expected end of input")))?;
    if end.kind != Kind::End {
        return error(format!("{}:{}: {}: expected end of input", end.start, end.end, end.text));
    }
    Ok(matchers)
}

fn parse_matcher(lexer: &mut Lexer<'_>) -> Result<Matcher, MatcherError> {
    let words = [Kind::Quoted, Kind::Unquoted];
    let name = word(lexer.expect(&words, "expected label name")?)?;
    let wanted = "expected an operator such as '=', '!=', '=~' or '!~'";
    let op = match lexer.expect(&[Kind::Operator], wanted)?.text {
        "=" => MatchOp::Equal,
        "!=" => MatchOp::NotEqual,
        "=~" => MatchOp::Regex,
        _ => MatchOp::NotRegex,
    };
    let value = word(lexer.expect(&words, "expected label value")?)?;
    build(op, &name, &value).or_else(|err| error(format!("failed to create matcher: {err}")))
}

fn word(token: Token<'_>) -> Result<String, MatcherError> {
    if token.kind != Kind::Quoted {
        return Ok(token.text.to_owned());
    }
    unquote(token.text).map_or_else(
        || error(format!("{}:{}: {}: invalid input", token.start, token.end, token.text)),
        Ok,
    )
}

fn parse_one_utf8(input: &str) -> Result<Matcher, MatcherError> {
    if input.starts_with('{') || input.ends_with('}') {
        return error("matcher cannot start or end with braces");
    }
    let mut list = parse_utf8(input)?;
    match (list.pop(), list.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => error("no matchers"),
        (Some(_), others) => error(format!("expected 1 matcher, found {}", others + 1)),
    }
}

/// Undoes Go's double-quoted string syntax; `None` when it is malformed.
fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => unescape(&mut letters, &mut bytes)?,
            '\n' | '"' => return None,
            _ => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    String::from_utf8(bytes).ok()
}

fn unescape(letters: &mut Chars<'_>, out: &mut Vec<u8>) -> Option<()> {
    let byte = match letters.next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(number(letters, 0, 2, 16)?).ok()?,
        'u' => return push_char(number(letters, 0, 4, 16)?, out),
        'U' => return push_char(number(letters, 0, 8, 16)?, out),
        first @ '0'..='7' => u8::try_from(number(letters, first.to_digit(8)?, 2, 8)?).ok()?,
        _ => return None,
    };
    out.push(byte);
    Some(())
}

/// Reads exactly `count` digits after what `start` already holds.
fn number(letters: &mut Chars<'_>, start: u32, count: usize, radix: u32) -> Option<u32> {
    let mut number = start;
    for _ in 0..count {
        number = number.checked_mul(radix)?.checked_add(letters.next()?.to_digit(radix)?)?;
    }
    Some(number)
}

fn push_char(code: u32, out: &mut Vec<u8>) -> Option<()> {
    out.extend(char::from_u32(code)?.encode_utf8(&mut [0; 4]).bytes());
    Some(())
}

// ---- the classic dialect ----

fn parse_classic(input: &str) -> Result<Vec<Matcher>, MatcherError> {
    let text = input.trim();
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let mut matchers = Vec::new();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                matchers.push(parse_classic_one(&text[start..at])?);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return error(format!("matcher value contains unescaped double quote: {text}"));
    }
    let last = &text[start..];
    if !last.trim().is_empty() {
        matchers.push(parse_classic_one(last)?);
    }
    Ok(matchers)
}

fn parse_classic_one(input: &str) -> Result<Matcher, MatcherError> {
    let bad = || MatcherError(format!("bad matcher format: {input}"));
    let text = input.trim();
    let at = text.find(['=', '!']).ok_or_else(bad)?;
    let (name, tail) = (text[..at].trim_end(), &text[at..]);
    let operators = [
        ("=~", MatchOp::Regex),
        ("!~", MatchOp::NotRegex),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let (symbol, op) =
        operators.into_iter().find(|(symbol, _)| tail.starts_with(symbol)).ok_or_else(bad)?;
    if !is_legacy_metric_name(name) {
        return Err(bad());
    }
    let value = unquote_classic(tail[symbol.len()..].trim(), input)?;
    build(op, name, &value)
}

/// Optional double quotes; `\n`, `\"` and `\\` are escapes, other backslashes stand for themselves.
fn unquote_classic(raw: &str, input: &str) -> Result<String, MatcherError> {
    let opened = raw.strip_prefix('"');
    let body = opened.unwrap_or(raw);
    let (mut value, mut escaped, mut closed) = (String::new(), false, false);
    for letter in body.chars() {
        if closed {
            return error(format!("matcher value contains unescaped double quote: {input}"));
        }
        match letter {
            'n' if escaped => value.push('\n'),
            '"' | '\\' if escaped => value.push(letter),
            _ if escaped => value.extend(['\\', letter]),
            '\\' => {
                escaped = true;
                continue;
            }
            '"' if opened.is_some() => closed = true,
            '"' => return error(format!("matcher value contains unescaped double quote: {input}")),
            _ => value.push(letter),
        }
        escaped = false;
    }
    if escaped {
        value.push('\\');
    }
    if opened.is_some() && !closed {
        return error(format!("matcher value contains unescaped double quote: {input}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(input: &str) -> String {
        match parse_list(input) {
            Ok(matchers) => print_list(&matchers),
            Err(err) => format!("error: {err}"),
        }
    }

    #[test]
    fn both_dialects_are_read() {
        for (input, printed) in [
            ("foo=bar", r#"{foo="bar"}"#),
            (r#"{foo="bar"}"#, r#"{foo="bar"}"#),
            (r#"{foo="bar",}"#, r#"{foo="bar"}"#),
            (r#" { foo = "bar" , baz!~"a|b" } "#, r#"{foo="bar",baz!~"a|b"}"#),
            (r#"foo=~"a|b""#, r#"{foo=~"a|b"}"#),
            ("foo=~a|b", r#"{foo=~"a|b"}"#),
            ("foo!=", r#"{foo!=""}"#),
            ("foo=", r#"{foo=""}"#),
            ("{}", "{}"),
            ("", "{}"),
            (r#""my label"="x""#, r#"{"my label"="x"}"#),
            (r#"my.dot="x""#, r#"{my.dot="x"}"#),
            (r#"foo="\u00e9\t""#, r#"{foo="\\u00e9\\t"}"#),
            (r#"é="\u00e9""#, r#"{é="é"}"#),
            (r#"foo="a\\b\n""#, r#"{foo="a\\b\n"}"#),
            (r"foo=~\d+", r#"{foo=~"\\d+"}"#),
            (r#"foo="a,b",bar=c"#, r#"{foo="a,b",bar="c"}"#),
        ] {
            assert_eq!(list(input), printed, "{input}");
        }
    }

    #[test]
    fn errors_are_alertmanagers() {
        for (input, text) in [
            ("{foo=bar", "0:8: end of input: expected close brace"),
            ("foo=bar}", "0:8: }: expected opening brace"),
            ("foo", "0:3: end of input: expected an operator such as '=', '!=', '=~' or '!~'"),
            ("=bar", "0:1: unexpected =: expected label name"),
            (
                "foo bar",
                "4:7: unexpected bar: expected an operator such as '=', '!=', '=~' or '!~'",
            ),
            (r#"foo="bar"#, "4:8: \"bar: missing end \": expected label value"),
        ] {
            let classic_too = parse_classic(input).is_ok();
            let found = parse_utf8(input).unwrap_err().to_string();
            assert_eq!(found, text, "{input} (classic: {classic_too})");
        }
    }

    #[test]
    fn one_matcher_has_no_braces() {
        assert_eq!(print(&parse_one("a=b").unwrap()), r#"a="b""#);
        assert!(parse_one("{a=b}").is_err());
        assert!(parse_one("a=b,c=d").is_ok(), "classic takes the rest as the value");
        assert!(parse_one("a").is_err());
        assert!(parse_one("").is_err());
    }

    #[test]
    fn sorting_is_by_name_value_and_kind() {
        let mut matchers = parse_list(r#"{b="1",a=~"x",a="x",a="w"}"#).unwrap();
        sort(&mut matchers);
        assert_eq!(print_list(&matchers), r#"{a="w",a="x",a=~"x",b="1"}"#);
    }
}
