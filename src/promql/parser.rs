//! Tokens to a syntax tree, by recursive descent with precedence climbing.
//!
//! Errors bear the texts and places of Prometheus. Its parser is generated from a grammar with
//! rules for errors; [`Recovery`] stands for the innermost such rule that would catch an unexpected
//! token. Errors of meaning are collected and parsing goes on; the first error of syntax ends it.
//!
//! Depth is bounded by [`DEPTH_MAX`], so that everything that walks a tree may recurse.

mod duration;
mod expression;
mod literal;
mod selector;
#[cfg(test)]
mod tests;

use std::fmt;

use super::ast::{Expr, ExprKind, Span};
use super::lexer::Lexer;
use super::lexer::token::{Token, TokenKind};
use super::types;
use crate::model::labels::Labels;
use crate::model::matcher::written::WrittenMatcher;

/// Levels of a syntax tree, chains like `a + b + c` included, for each term adds a level. Parser,
/// type check, printer, evaluator and drop recurse this deep on threads with 2 MiB of stack.
pub const DEPTH_MAX: usize = 500;

/// Stack of a thread that parses, prints or evaluates expressions. Half of it carries a tree of
/// [`DEPTH_MAX`] levels even in a build without optimization; it is reserved, not used.
pub const STACK_BYTES: usize = 8 << 20;
/// Errors reported for one query; more help nobody.
const ERRORS_MAX: usize = 100;

/// Which experiments the syntax includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserOptions {
    /// `--enable-feature=promql-experimental-functions`
    pub experimental_functions: bool,
    /// Arithmetic on durations; on by default since Prometheus 3.14.
    pub duration_expressions: bool,
    /// `--enable-feature=promql-extended-range-selectors`
    pub extended_range_selectors: bool,
    /// `--enable-feature=promql-binop-fill-modifiers`
    pub binop_fill_modifiers: bool,
}

impl ParserOptions {
    /// Everything that there is.
    pub const ALL: Self = Self {
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        binop_fill_modifiers: true,
    };
}

/// One thing that is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where.
    pub span: Span,
    /// What, without position.
    pub message: String,
}

/// All that is wrong with a query, at least one thing. Prints the first, as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors {
    query: String,
    errors: Vec<ParseError>,
    /// Not an error of syntax: printed without position.
    bare: bool,
}

impl ParseErrors {
    fn new(query: &str, errors: Vec<ParseError>) -> Self {
        assert!(!errors.is_empty(), "a refused query has an error");
        Self { query: query.to_owned(), errors, bare: false }
    }

    /// The errors in order of discovery.
    pub fn errors(&self) -> &[ParseError] {
        &self.errors
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.errors.first() else { return Ok(()) };
        match (self.bare, self.query.is_empty()) {
            (true, _) => {}
            (false, true) => f.write_str("unknown position: parse error: ")?,
            (false, false) => {
                let (line, column) = first.span.line_column(&self.query);
                write!(f, "{line}:{column}: parse error: ")?;
            }
        }
        f.write_str(&first.message)
    }
}

impl std::error::Error for ParseErrors {}

/// Parses and checks a query.
pub fn parse(query: &str, options: &ParserOptions) -> Result<Expr, ParseErrors> {
    let mut parser = Parser::new(query, *options);
    let parsed = parser.whole_expression();
    let mut errors = parser.errors;
    match parsed {
        Ok(mut expr) if errors.is_empty() => {
            types::check(&mut expr, query, &mut errors);
            if errors.is_empty() {
                return Ok(expr);
            }
            errors.truncate(ERRORS_MAX);
            Err(ParseErrors::new(query, errors))
        }
        _ => Err(ParseErrors::new(query, errors)),
    }
}

/// Parses the selector of a `match[]` parameter; time modifiers are no part of it, and it must not
/// select everything.
pub fn parse_metric_selector(
    text: &str,
    options: &ParserOptions,
) -> Result<Vec<WrittenMatcher>, ParseErrors> {
    let matchers = parse_any_selector(text, options)?;
    if matchers.iter().all(WrittenMatcher::matches_empty) {
        let message = "match[] must contain at least one non-empty matcher".to_owned();
        let error = ParseError { span: Span { start: 0, end: text.len() }, message };
        return Err(ParseErrors { query: text.to_owned(), errors: vec![error], bare: true });
    }
    Ok(matchers)
}

/// The same for selectors that may select everything.
pub fn parse_any_selector(
    text: &str,
    options: &ParserOptions,
) -> Result<Vec<WrittenMatcher>, ParseErrors> {
    let mut parser = Parser::new(text, *options);
    let parsed = parser.whole_selector();
    if !parser.errors.is_empty() {
        return Err(ParseErrors::new(text, parser.errors));
    }
    let ExprKind::VectorSelector(selector) =
        parsed.map_or(ExprKind::String(Vec::new()), |e| e.kind)
    else {
        unreachable!("no error, thus a selector");
    };
    Ok(selector.matchers)
}

/// Parses the name and labels of one series: `metric{label="value"}`.
pub fn parse_metric(text: &str) -> Result<Labels, ParseErrors> {
    let mut parser = Parser::new(text, ParserOptions::ALL);
    match parser.whole_metric() {
        Ok(labels) if parser.errors.is_empty() => Ok(labels),
        _ => Err(ParseErrors::new(text, parser.errors)),
    }
}

/// Syntax went wrong; the error has been noted.
struct Refused;

type Parsed<T> = Result<T, Refused>;

/// The error rule that catches a token which fits nowhere: what was being read, what could follow.
#[derive(Clone, Copy)]
struct Recovery {
    context: &'static str,
    expected: &'static str,
}

impl Recovery {
    const fn new(context: &'static str, expected: &'static str) -> Self {
        Self { context, expected }
    }

    const TOP: Self = Self::new("", "");
    const AGGREGATION: Self = Self::new("aggregation", "");
    const OFFSET: Self = Self::new("offset", "number, duration, step(), or range()");
    const AT: Self = Self::new("@", "timestamp");
    const RANGE: Self =
        Self::new("subquery or range selector", "number, duration, step(), or range()");
    const AFTER_RANGE: Self = Self::new("subquery or range", "\":\" or \"]\"");
    const STEP: Self =
        Self::new("subquery selector", "number, duration, step(), range(), or \"]\"");
    const AFTER_STEP: Self = Self::new("subquery selector", "\"]\"");
    const GROUPING: Self = Self::new("grouping opts", "\"(\"");
    const GROUPING_LABEL: Self = Self::new("grouping opts", "label");
    const AFTER_GROUPING_LABEL: Self = Self::new("grouping opts", "\",\" or \")\"");
    const MATCHER: Self = Self::new("label matching", "identifier or \"}\"");
    const MATCH_OPERATOR: Self = Self::new("label matching", "label matching operator");
    const MATCH_VALUE: Self = Self::new("label matching", "string");
    const AFTER_MATCHER: Self = Self::new("label matching", "\",\" or \"}\"");
    const LABEL: Self = Self::new("label set", "identifier or \"}\"");
    const LABEL_ASSIGN: Self = Self::new("label set", "\"=\"");
    const LABEL_VALUE: Self = Self::new("label set", "string");
    const AFTER_LABEL: Self = Self::new("label set", "\",\" or \"}\"");
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token that comes next, once somebody looked.
    ahead: Option<Token>,
    options: ParserOptions,
    errors: Vec<ParseError>,
    recovery: Recovery,
    /// Levels of recursion.
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(input: &'a str, options: ParserOptions) -> Self {
        let (lexer, recovery) = (Lexer::new(input), Recovery::TOP);
        Self { lexer, ahead: None, options, errors: Vec::new(), recovery, depth: 0 }
    }

    /// Notes an error and goes on.
    fn error(&mut self, span: Span, message: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(ParseError { span, message: message.into() });
        }
    }

    fn peek(&mut self) -> Parsed<Token> {
        #[cfg(test)]
        super::lexer::steps::count();
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        match self.lexer.next_token() {
            Ok(token) => {
                self.ahead = Some(token);
                Ok(token)
            }
            Err(err) => {
                self.error(err.span, err.message);
                Err(Refused)
            }
        }
    }

    fn advance(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.ahead = None;
        Ok(token)
    }

    fn text(&self, token: Token) -> &'a str {
        self.lexer.text(token.span)
    }

    /// Takes the next token if it is of that kind.
    fn accept(&mut self, kind: TokenKind) -> Parsed<Option<Token>> {
        let token = self.peek()?;
        Ok((token.kind == kind).then(|| {
            self.ahead = None;
            token
        }))
    }

    /// Takes a token that must be of that kind.
    fn expect(&mut self, kind: TokenKind) -> Parsed<Token> {
        let recovery = self.recovery;
        self.expect_or(kind, recovery)
    }

    /// The same where the grammar has a rule of its own for the error.
    fn expect_or(&mut self, kind: TokenKind, recovery: Recovery) -> Parsed<Token> {
        match self.accept(kind)? {
            Some(token) => Ok(token),
            None => self.unexpected_in(recovery),
        }
    }

    /// Refuses the next token.
    fn unexpected<T>(&mut self) -> Parsed<T> {
        let recovery = self.recovery;
        self.unexpected_in(recovery)
    }

    fn unexpected_in<T>(&mut self, recovery: Recovery) -> Parsed<T> {
        let token = self.peek()?;
        let mut message = format!("unexpected {}", token.describe(self.text(token)));
        if !recovery.context.is_empty() {
            message.push_str(&format!(" in {}", recovery.context));
        }
        if !recovery.expected.is_empty() {
            message.push_str(&format!(", expected {}", recovery.expected));
        }
        self.error(token.span, message);
        Err(Refused)
    }

    /// Runs a part of the grammar under another error rule.
    fn recovering<T>(
        &mut self,
        recovery: Recovery,
        part: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        let outer = std::mem::replace(&mut self.recovery, recovery);
        let parsed = part(self)?;
        self.recovery = outer;
        Ok(parsed)
    }

    /// Runs a part of the grammar one level deeper.
    fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if DEPTH_MAX <= self.depth {
            let span = self.peek()?.span;
            return self.too_deep(span);
        }
        self.depth += 1;
        let parsed = part(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    fn too_deep<T>(&mut self, span: Span) -> Parsed<T> {
        self.error(span, format!("expression nests deeper than {DEPTH_MAX} levels"));
        Err(Refused)
    }

    /// Refuses what would make a tree higher than the rest of the house can bear.
    fn check_height(&mut self, height: usize, span: Span) -> Parsed<()> {
        if height <= DEPTH_MAX { Ok(()) } else { self.too_deep(span) }
    }
}
