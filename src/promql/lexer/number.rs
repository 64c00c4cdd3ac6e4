//! Numbers and durations. What is cut out here need not be valid yet: the parser reads it.

use super::token::{Token, TokenKind};
use super::{LexError, Lexer, is_alphanumeric};
use crate::model::labels::quote;
use crate::promql::ast::Span;

/// What may not follow an exponent's letter or an underscore.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b'.' | b'_' | b'e' | b'E')
}

impl Lexer<'_> {
    pub(super) fn number_or_duration(&mut self) -> Result<Token, LexError> {
        if self.scan_number() {
            return self.emit(TokenKind::Number);
        }
        if self.scan_duration() {
            return self.emit(TokenKind::Duration);
        }
        let text = self.text(Span { start: self.start, end: self.position });
        self.fail(format!("bad number or duration syntax: {}", quote(text)))
    }

    /// Goes over a number; stops where it cannot be one, without going back.
    fn scan_number(&mut self) -> bool {
        let hex = self.accept_byte(b'0') && self.accept(|byte| matches!(byte, b'x' | b'X'));
        if hex {
            self.accept_byte(b'_');
        }
        let is_digit =
            |byte: u8| if hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
        self.accept_byte(b'.');
        self.accept(is_digit);
        let (mut dots, mut exponents) = (0, 0);
        while let Some(byte) = self.peek().filter(|byte| is_digit(*byte) || is_separator(*byte)) {
            match byte {
                b'.' => {
                    self.position += 1;
                    dots += 1;
                    let repeated = 1 < dots || self.accept(|next| matches!(next, b'.' | b'_'));
                    if repeated || hex {
                        return false;
                    }
                }
                // In a hexadecimal number, too: `0x1ee` is refused.
                b'e' | b'E' => {
                    self.position += 1;
                    exponents += 1;
                    if 1 < exponents {
                        return false;
                    }
                    self.accept(|next| matches!(next, b'+' | b'-'));
                    if self.accept(is_separator) || self.peek().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.position += 1;
                    if self.accept(is_separator) || self.peek().is_none() {
                        return false;
                    }
                }
                _ => while self.accept(is_digit) {},
            }
        }
        !self.peek().is_some_and(is_alphanumeric)
    }

    /// Goes on with units and further numbers after the first number.
    fn scan_duration(&mut self) -> bool {
        let mut units: &[u8] = b"smhdwy";
        loop {
            if !self.accept(|byte| units.contains(&byte)) {
                return false;
            }
            self.accept_byte(b's'); // for `ms`; a wrong unit is found when the text is read
            if !self.accept(|byte| byte.is_ascii_digit()) {
                break;
            }
            while self.accept(|byte| byte.is_ascii_digit()) {}
            units = b"smhdw";
        }
        !self.accept(is_alphanumeric)
    }
}
