//! Splits a template into texts and the tokens of its actions, with Go's trim markers, comments
//! and error texts. Positions are bytes from the start, lines count from 1.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text of the token is the message.
    Error,
    Bool,
    /// One printable ASCII character that is nothing else.
    Char,
    CharConstant,
    Assign,
    Declare,
    Eof,
    /// With its leading dot.
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    /// With its leading dollar sign.
    Variable,
    Dot,
    Keyword(Keyword),
}

/// Words that are not names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

/// A piece of the template.
#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub position: usize,
    pub line: usize,
    pub text: std::borrow::Cow<'a, str>,
}

impl Token<'_> {
    /// As Go names it in error texts.
    pub fn describe(&self) -> String {
        use super::fmt::quote;
        match self.kind {
            Kind::Eof => "EOF".to_owned(),
            Kind::Error => self.text.clone().into_owned(),
            Kind::Keyword(_) => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                format!("{}...", quote(&start))
            }
            _ => quote(&self.text),
        }
    }
}

/// All tokens, the last of kind [`Kind::Eof`] or [`Kind::Error`].
pub(super) fn tokenize(text: &str) -> Vec<Token<'_>> {
    let mut lexer =
        Lexer { input: text, position: 0, start: 0, line: 1, paren_depth: 0, tokens: Vec::new() };
    while lexer.text() {
        while lexer.action() {}
        if lexer.failed() {
            break;
        }
    }
    lexer.tokens
}

struct Lexer<'a> {
    input: &'a str,
    position: usize,
    /// Where the token begins that is being read.
    start: usize,
    /// Line of `start`.
    line: usize,
    paren_depth: usize,
    tokens: Vec<Token<'a>>,
}

const LEFT_DELIM: &str = "{{";
const RIGHT_DELIM: &str = "}}";
/// The marker and the space beside it.
const TRIM_MARKER_BYTES: usize = 2;

fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

/// `- ` right after an opening delimiter.
fn has_left_trim_marker(text: &str) -> bool {
    text.starts_with('-') && text[1..].starts_with(is_space)
}

/// ` -` right before a closing delimiter.
fn has_right_trim_marker(text: &str) -> bool {
    text.starts_with(is_space) && text[1..].starts_with('-')
}

/// Go's `%#U`.
fn code_point(letter: char) -> String {
    format!("U+{:04X} '{letter}'", letter as u32)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.input[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.position += letter.len_utf8();
        Some(letter)
    }

    fn accept(&mut self, letters: &str) -> bool {
        let found = self.peek().is_some_and(|letter| letters.contains(letter));
        if found {
            self.next();
        }
        found
    }

    fn accept_run(&mut self, letters: &str) {
        while self.accept(letters) {}
    }

    /// Drops what was read since the last token.
    fn ignore(&mut self) {
        self.line += self.input[self.start..self.position].matches('\n').count();
        self.start = self.position;
    }

    fn emit(&mut self, kind: Kind) {
        let text = &self.input[self.start..self.position];
        let (position, line) = (self.start, self.line);
        self.tokens.push(Token { kind, position, line, text: text.into() });
        self.ignore();
    }

    /// Ends the token list; always false, to stop the caller.
    fn error(&mut self, message: impl Into<String>) -> bool {
        let text = std::borrow::Cow::Owned(message.into());
        let (position, line) = (self.start, self.line);
        self.tokens.push(Token { kind: Kind::Error, position, line, text });
        false
    }

    fn failed(&self) -> bool {
        self.tokens.last().is_some_and(|token| token.kind == Kind::Error)
    }

    /// Whether a closing delimiter comes next, and whether it trims.
    fn at_right_delim(&self) -> Option<bool> {
        let rest = self.rest();
        if has_right_trim_marker(rest) && rest[TRIM_MARKER_BYTES..].starts_with(RIGHT_DELIM) {
            return Some(true);
        }
        rest.starts_with(RIGHT_DELIM).then_some(false)
    }

    /// Reads up to and with the next opening delimiter; false at the end.
    fn text(&mut self) -> bool {
        loop {
            let Some(length) = self.rest().find(LEFT_DELIM) else {
                self.position = self.input.len();
                if self.start < self.position {
                    self.emit(Kind::Text);
                }
                self.emit(Kind::Eof);
                return false;
            };
            let text = &self.rest()[..length];
            let after = &self.rest()[length + LEFT_DELIM.len()..];
            let trims = has_left_trim_marker(after);
            let kept = if trims { text.trim_end_matches(is_space) } else { text };
            self.position += kept.len();
            if !kept.is_empty() {
                self.emit(Kind::Text);
            }
            self.position += text.len() - kept.len();
            self.ignore();
            self.position += LEFT_DELIM.len();
            let marker = if trims { TRIM_MARKER_BYTES } else { 0 };
            if after[marker..].starts_with("/*") {
                self.position += marker;
                self.ignore();
                if !self.comment() {
                    return false;
                }
                continue;
            }
            self.emit(Kind::LeftDelim);
            self.position += marker;
            self.ignore();
            self.paren_depth = 0;
            return true;
        }
    }

    fn comment(&mut self) -> bool {
        let Some(length) = self.rest()[2..].find("*/") else {
            return self.error("unclosed comment");
        };
        self.position += 2 + length + 2;
        let Some(trims) = self.at_right_delim() else {
            return self.error("comment ends before closing delimiter");
        };
        self.skip_right_delim(trims);
        true
    }

    fn skip_right_delim(&mut self, trims: bool) {
        self.position += RIGHT_DELIM.len() + if trims { TRIM_MARKER_BYTES } else { 0 };
        if trims {
            let rest = self.rest();
            self.position += rest.len() - rest.trim_start_matches(is_space).len();
        }
        self.ignore();
    }

    /// Reads one token of an action; false after the closing delimiter or an error.
    fn action(&mut self) -> bool {
        if let Some(trims) = self.at_right_delim() {
            if self.paren_depth > 0 {
                return self.error("unclosed left paren");
            }
            return self.right_delim(trims);
        }
        let Some(letter) = self.next() else { return self.error("unclosed action") };
        match letter {
            letter if is_space(letter) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' if self.accept("=") => self.emit(Kind::Declare),
            ':' => return self.error("expected :="),
            '|' => self.emit(Kind::Pipe),
            '"' => return self.quoted('"', Kind::String, "unterminated quoted string"),
            '\'' => {
                return self.quoted('\'', Kind::CharConstant, "unterminated character constant");
            }
            '`' => return self.raw_string(),
            '$' => return self.field_or_variable(Kind::Variable),
            '.' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                return self.field_or_variable(Kind::Field);
            }
            '.' | '+' | '-' | '0'..='9' => return self.number(),
            letter if is_word(letter) => return self.identifier(),
            '(' => {
                self.paren_depth += 1;
                self.emit(Kind::LeftParen);
            }
            ')' if self.paren_depth == 0 => return self.error("unexpected right paren"),
            ')' => {
                self.paren_depth -= 1;
                self.emit(Kind::RightParen);
            }
            letter if letter.is_ascii_graphic() => self.emit(Kind::Char),
            letter => {
                let code = code_point(letter);
                return self.error(format!("unrecognized character in action: {code}"));
            }
        }
        true
    }

    fn right_delim(&mut self, trims: bool) -> bool {
        if trims {
            self.position += TRIM_MARKER_BYTES;
            self.ignore();
        }
        self.position += RIGHT_DELIM.len();
        self.emit(Kind::RightDelim);
        if trims {
            let rest = self.rest();
            self.position += rest.len() - rest.trim_start_matches(is_space).len();
            self.ignore();
        }
        false
    }

    /// A run of spaces, without the one that belongs to a trim marker.
    fn space(&mut self) {
        let mut last = self.position - 1;
        while self.peek().is_some_and(is_space) {
            last = self.position;
            self.next();
        }
        let from_last = &self.input[last..];
        let marker = has_right_trim_marker(from_last)
            && from_last[TRIM_MARKER_BYTES..].starts_with(RIGHT_DELIM);
        if marker {
            self.position = last;
        }
        if self.start < self.position {
            self.emit(Kind::Space);
        }
    }

    fn quoted(&mut self, end: char, kind: Kind, unterminated: &str) -> bool {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|next| next != '\n') => {
                    self.next();
                }
                Some('\\' | '\n') | None => return self.error(unterminated),
                Some(letter) if letter == end => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        true
    }

    fn raw_string(&mut self) -> bool {
        let Some(length) = self.rest().find('`') else {
            return self.error("unterminated raw quoted string");
        };
        self.position += length + 1;
        self.emit(Kind::RawString);
        true
    }

    /// Whether a name may end here.
    fn at_terminator(&self) -> bool {
        match self.peek() {
            None => true,
            Some(letter) if is_space(letter) || ".,|:()".contains(letter) => true,
            Some(_) => self.rest().starts_with(RIGHT_DELIM),
        }
    }

    fn bad_character(&mut self) -> bool {
        let letter = self.peek().unwrap_or('\0');
        self.error(format!("bad character {}", code_point(letter)))
    }

    fn field_or_variable(&mut self, kind: Kind) -> bool {
        if self.at_terminator() {
            self.emit(if kind == Kind::Variable { Kind::Variable } else { Kind::Dot });
            return true;
        }
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if !self.at_terminator() {
            return self.bad_character();
        }
        self.emit(kind);
        true
    }

    fn identifier(&mut self) -> bool {
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if !self.at_terminator() {
            return self.bad_character();
        }
        let word = &self.input[self.start..self.position];
        self.emit(match word {
            "true" | "false" => Kind::Bool,
            "block" => Kind::Keyword(Keyword::Block),
            "break" => Kind::Keyword(Keyword::Break),
            "continue" => Kind::Keyword(Keyword::Continue),
            "define" => Kind::Keyword(Keyword::Define),
            "else" => Kind::Keyword(Keyword::Else),
            "end" => Kind::Keyword(Keyword::End),
            "if" => Kind::Keyword(Keyword::If),
            "nil" => Kind::Keyword(Keyword::Nil),
            "range" => Kind::Keyword(Keyword::Range),
            "template" => Kind::Keyword(Keyword::Template),
            "with" => Kind::Keyword(Keyword::With),
            _ => Kind::Identifier,
        });
        true
    }

    /// A number as far as its letters go; the parser checks its value. An imaginary part is an
    /// error: alerts have no use for complex numbers.
    fn number(&mut self) -> bool {
        self.position = self.start;
        let plain = self.scan_number();
        if !plain || self.peek().is_some_and(|next| matches!(next, '+' | '-')) {
            let text = super::fmt::quote(&self.input[self.start..self.position]);
            return self.error(format!("bad number syntax: {text}"));
        }
        self.emit(Kind::Number);
        true
    }

    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let (mut digits, mut exponent) = ("0123456789_", "eE");
        if self.accept("0") {
            if self.accept("xX") {
                (digits, exponent) = ("0123456789abcdefABCDEF_", "pP");
            } else if self.accept("oO") {
                (digits, exponent) = ("01234567_", "");
            } else if self.accept("bB") {
                (digits, exponent) = ("01_", "");
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        if self.accept(exponent) {
            self.accept("+-");
            self.accept_run("0123456789_");
        }
        if self.peek().is_some_and(is_word) {
            self.next();
            return false;
        }
        true
    }
}
