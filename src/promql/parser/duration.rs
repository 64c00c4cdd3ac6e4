//! Durations in brackets and after `offset`.

use super::literal::Literal;
use super::{Parsed, Parser};
use crate::promql::ast::{BinaryOp, DurationExpr, DurationKind, Span, UnaryOp};
use crate::promql::lexer::token::{Preprocessor, Token, TokenKind};

/// Nanoseconds that fit into 64 bits, in seconds.
const SECONDS_MAX: f64 = (1_u64 << 63) as f64 / 1e9;

/// A duration and the levels of its tree.
pub(super) struct Node {
    pub(super) expr: DurationExpr,
    pub(super) height: usize,
}

impl Node {
    fn leaf(span: Span, kind: DurationKind) -> Self {
        Self { expr: DurationExpr { span, kind }, height: 1 }
    }

    /// Stands in for what has been refused.
    fn nothing() -> Self {
        Self::leaf(Span::default(), DurationKind::Literal { seconds: 0.0, is_duration: false })
    }

    fn is_literal_zero(&self) -> bool {
        matches!(self.expr.kind, DurationKind::Literal { seconds: 0.0, .. })
    }
}

fn precedence(op: BinaryOp) -> Option<u8> {
    match op {
        BinaryOp::Add | BinaryOp::Sub => Some(1),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => Some(2),
        BinaryOp::Pow => Some(3),
        _ => None,
    }
}

/// What binds tighter than a sign.
const UNARY: u8 = 3;

fn sign_of(kind: TokenKind) -> Option<UnaryOp> {
    match kind {
        TokenKind::Operator(BinaryOp::Add) => Some(UnaryOp::Plus),
        TokenKind::Operator(BinaryOp::Sub) => Some(UnaryOp::Minus),
        _ => None,
    }
}

impl Parser<'_> {
    /// A range or step: an expression; a literal must be above zero.
    pub(super) fn positive_duration(&mut self) -> Parsed<Node> {
        let node = self.duration(0)?;
        if let DurationKind::Literal { seconds, .. } = node.expr.kind
            && seconds <= 0.0
        {
            self.error(node.expr.span, "duration must be greater than 0");
        }
        Ok(node)
    }

    /// What `offset` takes: one operand with at most one sign, for an operator behind it belongs to
    /// the expression around. Only after a parenthesis or a second sign, Prometheus reads on.
    pub(super) fn offset_duration(&mut self) -> Parsed<Node> {
        let token = self.peek()?;
        match (token.kind, sign_of(token.kind)) {
            (TokenKind::LeftParen, _) => self.duration(0),
            (_, None) => self.duration_operand(),
            (_, Some(sign)) => {
                self.advance()?;
                let next = self.peek()?;
                if sign_of(next.kind).is_some() {
                    let operand = self.nested(|parser| parser.duration(UNARY))?;
                    let signed = self.signed_duration(sign, token, operand)?;
                    return self.duration_operators(signed, 0);
                }
                let operand = self.offset_operand(next)?;
                self.signed_duration(sign, token, operand)
            }
        }
    }

    /// The operand after the sign of an offset; here parentheses need no gate.
    fn offset_operand(&mut self, first: Token) -> Parsed<Node> {
        if first.kind != TokenKind::LeftParen {
            return self.duration_operand();
        }
        self.advance()?;
        let inner = self.nested(|parser| parser.duration(0))?;
        let close = self.expect(TokenKind::RightParen)?;
        let span = Span { start: first.span.start, end: close.span.end };
        self.wrapped_duration(inner, span)
    }

    fn duration(&mut self, precedence_min: u8) -> Parsed<Node> {
        let lhs = self.duration_unary()?;
        self.duration_operators(lhs, precedence_min)
    }

    fn duration_operators(&mut self, mut lhs: Node, precedence_min: u8) -> Parsed<Node> {
        loop {
            let token = self.peek()?;
            let TokenKind::Operator(op) = token.kind else { return Ok(lhs) };
            let Some(level) = precedence(op).filter(|level| precedence_min <= *level) else {
                return Ok(lhs);
            };
            self.advance()?;
            let right_associative = op == BinaryOp::Pow;
            let rhs = self.nested(|parser| {
                parser.duration(if right_associative { level } else { level + 1 })
            })?;
            lhs = self.duration_binary(op, token.span, lhs, rhs)?;
        }
    }

    fn duration_binary(
        &mut self,
        op: BinaryOp,
        op_span: Span,
        lhs: Node,
        rhs: Node,
    ) -> Parsed<Node> {
        self.gate_duration(lhs.expr.span);
        if rhs.is_literal_zero() {
            match op {
                BinaryOp::Div => self.error(op_span, "division by zero"),
                BinaryOp::Mod => self.error(op_span, "modulo by zero"),
                _ => {}
            }
            if matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                return Ok(Node::nothing());
            }
        }
        let height = lhs.height.max(rhs.height) + 1;
        self.check_height(height, op_span)?;
        let span = Span { start: lhs.expr.span.start, end: rhs.expr.span.end };
        let (lhs, rhs) = (Box::new(lhs.expr), Box::new(rhs.expr));
        let kind = DurationKind::Binary { op, lhs, rhs };
        Ok(Node { expr: DurationExpr { span, kind }, height })
    }

    fn duration_unary(&mut self) -> Parsed<Node> {
        let token = self.peek()?;
        let Some(sign) = sign_of(token.kind) else { return self.duration_operand() };
        self.advance()?;
        let operand = self.nested(|parser| parser.duration(UNARY))?;
        self.signed_duration(sign, token, operand)
    }

    /// A plus vanishes and a literal takes its sign, as in Prometheus' tree.
    fn signed_duration(&mut self, sign: UnaryOp, token: Token, operand: Node) -> Parsed<Node> {
        let Node { expr, height } = operand;
        let span = Span { start: token.span.start, end: expr.span.end };
        match (expr.kind, sign) {
            (DurationKind::Literal { seconds, is_duration }, _) => {
                let seconds = if sign == UnaryOp::Minus { -seconds } else { seconds };
                Ok(Node::leaf(span, DurationKind::Literal { seconds, is_duration }))
            }
            (kind, UnaryOp::Plus) => {
                Ok(Node { expr: DurationExpr { span: expr.span, kind }, height })
            }
            (kind, UnaryOp::Minus) => {
                self.check_height(height + 1, span)?;
                let expr = Box::new(DurationExpr { span: expr.span, kind });
                let kind = DurationKind::Unary { op: sign, expr };
                Ok(Node { expr: DurationExpr { span, kind }, height: height + 1 })
            }
        }
    }

    /// A literal, a word with its parentheses, or an expression in parentheses.
    fn duration_operand(&mut self) -> Parsed<Node> {
        let token = self.peek()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.advance()?;
                let Literal { span, value, is_duration } = self.literal(token)?;
                if !(-SECONDS_MAX..=SECONDS_MAX).contains(&value) {
                    self.error(span, "duration out of range");
                    return Ok(Node::nothing());
                }
                Ok(Node::leaf(span, DurationKind::Literal { seconds: value, is_duration }))
            }
            TokenKind::LeftParen => {
                self.advance()?;
                let inner = self.nested(|parser| parser.duration(0))?;
                let close = self.expect(TokenKind::RightParen)?;
                self.gate_duration(inner.expr.span);
                let span = Span { start: token.span.start, end: close.span.end };
                self.wrapped_duration(inner, span)
            }
            TokenKind::Preprocessor(word) => self.duration_word(word, token),
            _ => self.unexpected(),
        }
    }

    /// Doubled parentheses are one pair, as in Prometheus' tree.
    fn wrapped_duration(&mut self, inner: Node, span: Span) -> Parsed<Node> {
        if matches!(inner.expr.kind, DurationKind::Paren(_)) {
            return Ok(inner);
        }
        let height = inner.height + 1;
        self.check_height(height, span)?;
        let is_literal = matches!(inner.expr.kind, DurationKind::Literal { .. });
        let span = if is_literal { span } else { inner.expr.span };
        let kind = DurationKind::Paren(Box::new(inner.expr));
        Ok(Node { expr: DurationExpr { span, kind }, height })
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`
    fn duration_word(&mut self, word: Preprocessor, token: Token) -> Parsed<Node> {
        let leaf = match word {
            Preprocessor::Start | Preprocessor::End => return self.unexpected(),
            Preprocessor::Step => Some(DurationKind::Step),
            Preprocessor::Range => Some(DurationKind::Range),
            Preprocessor::MinOf | Preprocessor::MaxOf => None,
        };
        self.advance()?;
        self.expect(TokenKind::LeftParen)?;
        let (kind, height) = match leaf {
            Some(kind) => (kind, 1),
            None => {
                let lhs = self.nested(|parser| parser.duration(0))?;
                self.expect(TokenKind::Comma)?;
                let rhs = self.nested(|parser| parser.duration(0))?;
                let height = lhs.height.max(rhs.height) + 1;
                let (lhs, rhs) = (Box::new(lhs.expr), Box::new(rhs.expr));
                let kind = match word {
                    Preprocessor::MinOf => DurationKind::MinOf(lhs, rhs),
                    _ => DurationKind::MaxOf(lhs, rhs),
                };
                (kind, height)
            }
        };
        self.check_height(height, token.span)?;
        let close = self.expect(TokenKind::RightParen)?;
        let span = Span { start: token.span.start, end: close.span.end };
        self.gate_duration(span);
        Ok(Node { expr: DurationExpr { span, kind }, height })
    }

    fn gate_duration(&mut self, span: Span) {
        if !self.options.duration_expressions {
            self.error(span, "experimental duration expression is not enabled");
        }
    }
}

/// Whether an offset counts as not set: the tree of Prometheus holds whole nanoseconds, and zero
/// for none.
pub(super) fn is_no_offset(duration: &DurationExpr) -> bool {
    match duration.kind {
        DurationKind::Literal { seconds, .. } => (seconds * 1e9).round() == 0.0,
        _ => false,
    }
}
