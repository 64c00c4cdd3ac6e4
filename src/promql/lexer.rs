//! Text to tokens, byte by byte. What may stand where follows Prometheus' lexer, quirks included,
//! so that the same queries are refused with the same words: in braces there are no keywords, in
//! brackets no names. Tests are in `parser/tests.rs`.

mod number;
#[cfg(test)]
pub mod steps;
pub mod token;

use std::fmt;

use super::ast::{BinaryOp, Span};
use token::{Preprocessor, Token, TokenKind};

/// What the lexer refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LexError {
    /// From the offending token to the end of the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
}

/// Splits a query into tokens, one at a time.
#[derive(Debug)]
pub struct Lexer<'a> {
    input: &'a str,
    /// The next byte to read.
    position: usize,
    /// First byte of the token at hand.
    start: usize,
    /// Inside of brackets, before the first number or after a name of a duration expression.
    in_duration: bool,
    parens_open: usize,
    brace_open: bool,
    bracket_open: bool,
    colon_seen: bool,
    /// A number stood in brackets before; Prometheus never forgets that.
    duration_seen: bool,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of the text.
    pub fn new(input: &'a str) -> Self {
        Self {
            input,
            position: 0,
            start: 0,
            in_duration: false,
            parens_open: 0,
            brace_open: false,
            bracket_open: false,
            colon_seen: false,
            duration_seen: false,
        }
    }

    /// The text under a span.
    pub fn text(&self, span: Span) -> &'a str {
        self.input.get(span.start..span.end).unwrap_or_default()
    }

    /// The whole text.
    pub fn input(&self) -> &'a str {
        self.input
    }

    /// The next token without comments and white space; at the end `EndOfInput` for ever.
    pub fn next_token(&mut self) -> Result<Token, LexError> {
        self.skip_space();
        let mode = (self.in_duration, self.brace_open);
        while !self.in_duration && self.peek() == Some(b'#') {
            while self.peek().is_some_and(|byte| !matches!(byte, b'\n' | b'\r')) {
                self.position += 1;
            }
            self.skip_space();
        }
        self.start = self.position;
        match mode {
            (true, _) => self.in_duration(),
            (false, true) => self.in_braces(),
            (false, false) => self.in_statement(),
        }
    }

    fn peek(&self) -> Option<u8> {
        #[cfg(test)]
        steps::count();
        self.input.as_bytes().get(self.position).copied()
    }

    fn peek_char(&self) -> Option<char> {
        #[cfg(test)]
        steps::count();
        self.input.get(self.position..).and_then(|rest| rest.chars().next())
    }

    fn next_char(&mut self) -> Option<char> {
        let letter = self.peek_char()?;
        self.position += letter.len_utf8();
        Some(letter)
    }

    fn accept(&mut self, valid: impl Fn(u8) -> bool) -> bool {
        let accepted = self.peek().is_some_and(valid);
        self.position += usize::from(accepted);
        accepted
    }

    fn accept_byte(&mut self, byte: u8) -> bool {
        self.accept(|next| next == byte)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.position += 1;
        }
    }

    fn emit(&self, kind: TokenKind) -> Result<Token, LexError> {
        Ok(Token { kind, span: Span { start: self.start, end: self.position } })
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, LexError> {
        let span = Span { start: self.start, end: self.input.len() };
        Err(LexError { span, message: message.into() })
    }

    /// An error about the token just read, which Prometheus places behind it.
    fn fail_behind<T>(&mut self, message: impl Into<String>) -> Result<T, LexError> {
        self.start = self.position;
        self.fail(message)
    }

    fn in_statement(&mut self) -> Result<Token, LexError> {
        let Some(letter) = self.next_char() else {
            return match (self.parens_open, self.bracket_open) {
                (1.., _) => self.fail("unclosed left parenthesis"),
                (0, true) => self.fail("unclosed left bracket"),
                (0, false) => self.emit(TokenKind::EndOfInput),
            };
        };
        match letter {
            ',' => self.emit(TokenKind::Comma),
            '@' => self.emit(TokenKind::At),
            '=' | '!' | '<' | '>' => self.comparison(letter),
            '"' | '\'' => self.string(letter),
            '`' => self.raw_string(),
            '(' | ')' => self.paren(letter),
            '[' | ']' => self.bracket(letter),
            '{' => {
                self.brace_open = true;
                self.emit(TokenKind::LeftBrace)
            }
            '0'..='9' => self.number(letter),
            '.' if self.peek().is_some_and(|byte| byte.is_ascii_digit()) => self.number(letter),
            'a'..='z' | 'A'..='Z' | '_' | ':' => self.word(letter),
            _ => match arithmetic(letter) {
                Some(op) => self.emit(TokenKind::Operator(op)),
                None => self.fail(format!("unexpected character: {}", QuotedChar(Some(letter)))),
            },
        }
    }

    fn number(&mut self, first: char) -> Result<Token, LexError> {
        self.position -= first.len_utf8();
        self.number_or_duration()
    }

    fn comparison(&mut self, letter: char) -> Result<Token, LexError> {
        let op = match (letter, self.peek()) {
            ('=', Some(b'=')) => BinaryOp::Equal,
            ('=', Some(b'~')) => return self.fail("unexpected character after '=': '~'"),
            ('=', _) => return self.emit(TokenKind::Assign),
            ('!', Some(b'=')) => BinaryOp::NotEqual,
            ('!', _) => {
                let next = QuotedChar(self.peek_char());
                return self.fail(format!("unexpected character after '!': {next}"));
            }
            ('<', Some(b'=')) => BinaryOp::LessEqual,
            ('<', Some(b'/')) => BinaryOp::TrimUpper,
            ('>', Some(b'=')) => BinaryOp::GreaterEqual,
            ('>', Some(b'/')) => BinaryOp::TrimLower,
            ('<', _) => return self.emit(TokenKind::Operator(BinaryOp::Less)),
            _ => return self.emit(TokenKind::Operator(BinaryOp::Greater)),
        };
        self.position += 1;
        self.emit(TokenKind::Operator(op))
    }

    fn paren(&mut self, letter: char) -> Result<Token, LexError> {
        if letter == '(' {
            self.parens_open += 1;
            return self.emit(TokenKind::LeftParen);
        }
        match self.parens_open.checked_sub(1) {
            Some(open) => self.parens_open = open,
            None => return self.fail_behind("unexpected right parenthesis ')'"),
        }
        self.emit(TokenKind::RightParen)
    }

    fn bracket(&mut self, letter: char) -> Result<Token, LexError> {
        match (letter, self.bracket_open) {
            ('[', true) => self.fail("unexpected left bracket '['"),
            ('[', false) => {
                (self.bracket_open, self.colon_seen, self.in_duration) = (true, false, true);
                self.emit(TokenKind::LeftBracket)
            }
            (_, true) => {
                self.bracket_open = false;
                self.emit(TokenKind::RightBracket)
            }
            (_, false) => self.fail("unexpected right bracket ']'"),
        }
    }

    /// A name, a keyword, or in brackets a colon or a word of duration expressions.
    fn word(&mut self, first: char) -> Result<Token, LexError> {
        if !self.bracket_open {
            return self.keyword_or_identifier();
        }
        if first == ':' {
            if self.colon_seen {
                return self.fail("unexpected colon ':'");
            }
            self.colon_seen = true;
            return self.emit(TokenKind::Colon);
        }
        match self.duration_keyword(first) {
            Some(kind) => self.emit(kind),
            None => {
                let letter = QuotedChar(Some(first));
                self.fail(format!("unexpected character: {letter}, expected ':'"))
            }
        }
    }

    fn keyword_or_identifier(&mut self) -> Result<Token, LexError> {
        while self.accept(|byte| is_alphanumeric(byte) || byte == b':') {}
        let word = self.text(Span { start: self.start, end: self.position });
        let kind = match TokenKind::keyword(word) {
            // `fill` is a metric's name unless a parenthesis follows.
            Some(TokenKind::Keyword(
                token::Keyword::Fill | token::Keyword::FillLeft | token::Keyword::FillRight,
            )) if !self.paren_follows() => TokenKind::Identifier,
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.emit(kind)
    }

    fn paren_follows(&self) -> bool {
        let rest = self.input.as_bytes().get(self.position..).unwrap_or_default();
        rest.iter().find(|byte| !is_space(**byte)) == Some(&b'(')
    }

    /// `step`, `range`, `max_of` or `min_of`, whose first letter has been read.
    fn duration_keyword(&mut self, first: char) -> Option<TokenKind> {
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        while self.accept(is_alpha) {}
        let word = self.text(Span { start: self.start, end: self.position });
        TokenKind::keyword(word).filter(|kind| {
            let TokenKind::Preprocessor(word) = kind else { return false };
            !matches!(word, Preprocessor::Start | Preprocessor::End)
        })
    }

    /// In brackets, where Prometheus allows neither names nor comments.
    fn in_duration(&mut self) -> Result<Token, LexError> {
        let Some(letter) = self.next_char() else {
            return self.fail("unexpected end of input in duration expression");
        };
        match letter {
            ']' => {
                (self.bracket_open, self.colon_seen, self.in_duration) = (false, false, false);
                self.emit(TokenKind::RightBracket)
            }
            ':' if !self.duration_seen => {
                self.fail_behind("unexpected colon before duration in duration expression")
            }
            ':' if self.colon_seen => {
                self.fail_behind("unexpected repeated colon in duration expression")
            }
            ':' => {
                self.colon_seen = true;
                self.emit(TokenKind::Colon)
            }
            '(' | ')' => self.paren(letter),
            ',' => self.emit(TokenKind::Comma),
            '0'..='9' | '.' if self.starts_number(letter) => {
                // What follows is read like a statement, as Prometheus does.
                (self.duration_seen, self.in_duration) = (true, false);
                self.number(letter)
            }
            _ => match arithmetic(letter)
                .map(TokenKind::Operator)
                .or_else(|| self.duration_keyword(letter))
            {
                Some(kind) => self.emit(kind),
                None => {
                    let letter = QuotedChar(Some(letter));
                    self.fail(format!("unexpected character in duration expression: {letter}"))
                }
            },
        }
    }

    fn starts_number(&self, first: char) -> bool {
        first.is_ascii_digit() || self.peek().is_some_and(|byte| byte.is_ascii_digit())
    }

    fn in_braces(&mut self) -> Result<Token, LexError> {
        let Some(letter) = self.next_char() else {
            return self.fail("unexpected end of input inside braces");
        };
        match letter {
            'a'..='z' | 'A'..='Z' | '_' => {
                while self.accept(is_alphanumeric) {}
                self.emit(TokenKind::Identifier)
            }
            ',' => self.emit(TokenKind::Comma),
            '"' | '\'' => self.string(letter),
            '`' => self.raw_string(),
            '=' if self.accept_byte(b'~') => self.emit(TokenKind::EqualRegex),
            '=' => self.emit(TokenKind::Assign),
            '!' if self.accept_byte(b'~') => self.emit(TokenKind::NotEqualRegex),
            '!' if self.accept_byte(b'=') => self.emit(TokenKind::Operator(BinaryOp::NotEqual)),
            '!' => {
                let next = QuotedChar(self.peek_char());
                self.fail(format!("unexpected character after '!' inside braces: {next}"))
            }
            '{' => self.fail("unexpected left brace '{'"),
            '}' => {
                self.brace_open = false;
                self.emit(TokenKind::RightBrace)
            }
            _ => {
                let letter = QuotedChar(Some(letter));
                self.fail(format!("unexpected character inside braces: {letter}"))
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, LexError> {
        loop {
            match self.next_char() {
                Some('\\') => self.escape(quote)?,
                // Prometheus cannot tell it from broken UTF-8.
                Some(char::REPLACEMENT_CHARACTER) => return self.fail("invalid UTF-8 rune"),
                None | Some('\n') => return self.fail("unterminated quoted string"),
                Some(letter) if letter == quote => return self.emit(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> Result<Token, LexError> {
        loop {
            match self.next_char() {
                Some(char::REPLACEMENT_CHARACTER) => return self.fail("invalid UTF-8 rune"),
                None => return self.fail("unterminated raw string"),
                Some('`') => return self.emit(TokenKind::String),
                Some(_) => {}
            }
        }
    }

    /// Checks an escape sequence whose backslash has been read.
    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let Some(letter) = self.next_char() else {
            return self.fail("escape sequence not terminated");
        };
        let (digits, radix, value_max) = match letter {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            _ if letter == quote => return Ok(()),
            '0'..='7' => (3, 8, 255),
            'x' => (2, 16, 255),
            'u' => (4, 16, char::MAX as u32),
            'U' => (8, 16, char::MAX as u32),
            _ => return self.fail(format!("unknown escape sequence {}", CodePoint(letter))),
        };
        if radix == 8 {
            self.position -= 1;
        }
        let mut value = 0_u32;
        for _ in 0..digits {
            let Some(letter) = self.next_char() else {
                return self.fail("escape sequence not terminated");
            };
            let Some(digit) = letter.to_digit(radix) else {
                let letter = CodePoint(letter);
                return self.fail(format!("illegal character {letter} in escape sequence"));
            };
            value = value.wrapping_mul(radix).wrapping_add(digit); // at most 8 hex digits
        }
        if value_max < value || (0xD800..0xE000).contains(&value) {
            return self.fail("escape sequence is an invalid Unicode code point");
        }
        Ok(())
    }
}

fn arithmetic(letter: char) -> Option<BinaryOp> {
    Some(match letter {
        '+' => BinaryOp::Add,
        '-' => BinaryOp::Sub,
        '*' => BinaryOp::Mul,
        '/' => BinaryOp::Div,
        '%' => BinaryOp::Mod,
        '^' => BinaryOp::Pow,
        _ => return None,
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alpha(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_alphanumeric(byte: u8) -> bool {
    is_alpha(byte) || byte.is_ascii_digit()
}

/// Go's `%q` of a character; the end of the text prints as the replacement character.
struct QuotedChar(Option<char>);

impl fmt::Display for QuotedChar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.unwrap_or(char::REPLACEMENT_CHARACTER) {
            '\'' => f.write_str("'\\''"),
            '"' => f.write_str("'\"'"),
            letter => {
                let quoted = crate::model::labels::quote(letter.encode_utf8(&mut [0; 4]));
                write!(f, "'{}'", quoted.trim_matches('"'))
            }
        }
    }
}

/// Go's `%#U`: `U+0078 'x'`.
struct CodePoint(char);

impl fmt::Display for CodePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X}", self.0 as u32)?;
        if self.0.is_control() { Ok(()) } else { write!(f, " '{}'", self.0) }
    }
}
