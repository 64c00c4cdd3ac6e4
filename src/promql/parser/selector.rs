//! Selectors, label sets and lists of labels.

use std::string::FromUtf8Error;

use super::expression::{Node, is_metric_identifier};
use super::{Parsed, Parser, Recovery};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::MatchOp;
use crate::model::matcher::written::WrittenMatcher;
use crate::promql::ast::{BinaryOp, Boundary, Expr, ExprKind, Span, TimeModifiers, VectorSelector};
use crate::promql::lexer::token::{Keyword, Token, TokenKind};
use crate::promql::print::quote_bytes;

fn match_op(kind: TokenKind) -> Option<MatchOp> {
    match kind {
        TokenKind::Assign => Some(MatchOp::Equal),
        TokenKind::Operator(BinaryOp::NotEqual) => Some(MatchOp::NotEqual),
        TokenKind::EqualRegex => Some(MatchOp::Regex),
        TokenKind::NotEqualRegex => Some(MatchOp::NotRegex),
        _ => None,
    }
}

/// Words that are label names in `by (…)`; `without` is none.
fn is_grouping_label(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier
        | TokenKind::MetricIdentifier
        | TokenKind::Aggregate(_)
        | TokenKind::Preprocessor(_)
        | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => {
            true
        }
        TokenKind::Keyword(word) => word != Keyword::Without,
        _ => false,
    }
}

impl Parser<'_> {
    /// A selector from start to end of the text, without time modifiers.
    pub(super) fn whole_selector(&mut self) -> Parsed<Expr> {
        let token = self.peek()?;
        let node = match token.kind {
            TokenKind::LeftBrace => {
                self.advance()?;
                self.selector_without_name(token)?
            }
            kind if is_metric_identifier(kind) => {
                self.advance()?;
                self.selector_of_name(token)?
            }
            _ => return self.unexpected(),
        };
        self.expect(TokenKind::EndOfInput)?;
        Ok(*node.expr)
    }

    /// `name` or `name{…}`
    pub(super) fn selector_of_name(&mut self, name: Token) -> Parsed<Node> {
        let (mut matchers, mut span) = (Vec::new(), name.span);
        if self.accept(TokenKind::LeftBrace)?.is_some() {
            (matchers, span.end) = self.matchers()?;
        }
        let name = self.text(name).to_owned();
        matchers.push(WrittenMatcher::equal(METRIC_NAME, &name));
        Ok(selector(name, matchers, span))
    }

    /// `{…}`
    pub(super) fn selector_without_name(&mut self, open: Token) -> Parsed<Node> {
        let (matchers, end) = self.matchers()?;
        Ok(selector(String::new(), matchers, Span { start: open.span.start, end }))
    }

    /// The rest of `{…}` and where it ends.
    fn matchers(&mut self) -> Parsed<(Vec<WrittenMatcher>, usize)> {
        let mut matchers = Vec::new();
        loop {
            // An empty list, or a comma at the end.
            if let Some(close) = self.accept(TokenKind::RightBrace)? {
                return Ok((matchers, close.span.end));
            }
            matchers.extend(self.matcher()?);
            if self.accept(TokenKind::Comma)?.is_none() {
                let close = self.expect_or(TokenKind::RightBrace, Recovery::AFTER_MATCHER)?;
                return Ok((matchers, close.span.end));
            }
        }
    }

    fn matcher(&mut self) -> Parsed<Option<WrittenMatcher>> {
        let token = self.peek()?;
        let name = match token.kind {
            TokenKind::Identifier => self.text(token).to_owned(),
            TokenKind::String => self.unquote_text(token),
            _ => return self.unexpected_in(Recovery::MATCHER),
        };
        self.advance()?;
        let Some(op) = match_op(self.peek()?.kind) else {
            if token.kind == TokenKind::String {
                return Ok(Some(WrittenMatcher::equal(METRIC_NAME, &name)));
            }
            return self.unexpected_in(Recovery::MATCH_OPERATOR);
        };
        self.advance()?;
        let value = self.expect_or(TokenKind::String, Recovery::MATCH_VALUE)?;
        match WrittenMatcher::new(op, &name, &self.unquote_text(value)) {
            Ok(matcher) => Ok(Some(matcher)),
            Err(err) => {
                let span = Span { start: token.span.start, end: value.span.end };
                self.error(span, err.to_string());
                Ok(None)
            }
        }
    }

    /// `(a, b)` of `by`, `on` and their like, and where it ends.
    pub(super) fn grouping_labels(&mut self) -> Parsed<(Vec<String>, usize)> {
        self.expect_or(TokenKind::LeftParen, Recovery::GROUPING)?;
        let mut labels = Vec::new();
        loop {
            if let Some(close) = self.accept(TokenKind::RightParen)? {
                return Ok((labels, close.span.end));
            }
            labels.push(self.grouping_label()?);
            if self.accept(TokenKind::Comma)?.is_none() {
                let close =
                    self.expect_or(TokenKind::RightParen, Recovery::AFTER_GROUPING_LABEL)?;
                return Ok((labels, close.span.end));
            }
        }
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek()?;
        let name = match token.kind {
            TokenKind::String => self.unquote(token),
            kind if is_grouping_label(kind) => self.text(token).as_bytes().to_vec(),
            _ => return self.unexpected_in(Recovery::GROUPING_LABEL),
        };
        self.advance()?;
        match String::from_utf8(name) {
            Ok(name) if !name.is_empty() => Ok(name),
            name => {
                let bytes = name.map_or_else(FromUtf8Error::into_bytes, String::into_bytes);
                let quoted = quote_bytes(&bytes);
                self.error(token.span, format!("invalid label name for grouping: {quoted}"));
                Ok(String::new())
            }
        }
    }

    /// `name{label="value"}` from start to end of the text.
    pub(super) fn whole_metric(&mut self) -> Parsed<Labels> {
        let token = self.peek()?;
        let name = is_metric_identifier(token.kind).then(|| self.text(token).to_owned());
        if name.is_some() {
            self.advance()?;
        }
        let mut pairs = Vec::new();
        if self.accept(TokenKind::LeftBrace)?.is_some() {
            pairs = self.label_pairs()?;
        }
        self.expect(TokenKind::EndOfInput)?;
        pairs.extend(name.map(|name| (METRIC_NAME.to_owned(), name)));
        Ok(Labels::from_pairs(pairs))
    }

    fn label_pairs(&mut self) -> Parsed<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        loop {
            if self.accept(TokenKind::RightBrace)?.is_some() {
                return Ok(pairs);
            }
            pairs.push(self.label_pair()?);
            if self.accept(TokenKind::Comma)?.is_none() {
                self.expect_or(TokenKind::RightBrace, Recovery::AFTER_LABEL)?;
                return Ok(pairs);
            }
        }
    }

    fn label_pair(&mut self) -> Parsed<(String, String)> {
        let token = self.peek()?;
        let name = match token.kind {
            TokenKind::Identifier => self.text(token).to_owned(),
            TokenKind::String => self.unquote_text(token),
            _ => return self.unexpected_in(Recovery::LABEL),
        };
        self.advance()?;
        if self.accept(TokenKind::Assign)?.is_none() {
            if token.kind == TokenKind::String {
                return Ok((METRIC_NAME.to_owned(), name));
            }
            return self.unexpected_in(Recovery::LABEL_ASSIGN);
        }
        let value = self.expect_or(TokenKind::String, Recovery::LABEL_VALUE)?;
        Ok((name, self.unquote_text(value)))
    }
}

fn selector(name: String, matchers: Vec<WrittenMatcher>, span: Span) -> Node {
    let (time, boundary) = (TimeModifiers::default(), Boundary::Plain);
    let selector = VectorSelector { name, matchers, time, boundary };
    Node::leaf(span, ExprKind::VectorSelector(selector))
}
