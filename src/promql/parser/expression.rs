//! Expressions: operators by precedence, operands, and what may follow an operand.

use super::duration::is_no_offset;
use super::literal::Literal;
use super::{Parsed, Parser, Recovery};
use crate::model::labels::quote;
use crate::promql::ast::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Boundary, Cardinality, Expr, ExprKind,
    Grouping, Span, Subquery, TimeModifiers, UnaryOp, VectorMatching,
};
use crate::promql::functions;
use crate::promql::lexer::token::{Keyword, Preprocessor, Token, TokenKind};

/// An expression and the levels of its tree. Boxed, for it lies on the stack once per level.
pub(super) struct Node {
    pub(super) expr: Box<Expr>,
    pub(super) height: usize,
}

impl Node {
    fn new(span: Span, kind: ExprKind, height: usize) -> Self {
        Self { expr: Box::new(Expr { span, kind }), height }
    }

    pub(super) fn leaf(span: Span, kind: ExprKind) -> Self {
        Self::new(span, kind, 1)
    }

    /// Stands in for what has been refused.
    fn nothing(span: Span) -> Self {
        Self::leaf(span, ExprKind::Number { value: f64::NAN, is_duration: false })
    }
}

/// Binds looser than any operator.
const LOOSEST: u8 = 0;
/// What binds tighter than a sign: `-a^b` is `-(a^b)`, `-a*b` is `(-a)*b`.
const POWER: u8 = 6;

fn precedence(op: BinaryOp) -> u8 {
    use BinaryOp as Op;
    match op {
        Op::Or => 1,
        Op::And | Op::Unless => 2,
        Op::Equal
        | Op::NotEqual
        | Op::Less
        | Op::LessEqual
        | Op::Greater
        | Op::GreaterEqual
        | Op::TrimUpper
        | Op::TrimLower => 3,
        Op::Add | Op::Sub => 4,
        Op::Mul | Op::Div | Op::Mod | Op::Atan2 => 5,
        Op::Pow => POWER,
    }
}

/// Words that are metric names wherever an expression starts.
pub(super) fn is_metric_identifier(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier
        | TokenKind::MetricIdentifier
        | TokenKind::Aggregate(_)
        | TokenKind::Preprocessor(_)
        | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
        TokenKind::Keyword(word) => !matches!(
            word,
            Keyword::Bool
                | Keyword::On
                | Keyword::Ignoring
                | Keyword::GroupLeft
                | Keyword::GroupRight
        ),
        _ => false,
    }
}

fn starts_expression(kind: TokenKind) -> bool {
    is_metric_identifier(kind)
        || matches!(
            kind,
            TokenKind::Number
                | TokenKind::Duration
                | TokenKind::String
                | TokenKind::LeftParen
                | TokenKind::LeftBrace
                | TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub)
        )
}

impl Parser<'_> {
    /// A query from start to end.
    pub(super) fn whole_expression(&mut self) -> Parsed<Expr> {
        if self.peek()?.kind == TokenKind::EndOfInput {
            self.error(Span::default(), "no expression found in input");
            return Err(super::Refused);
        }
        let node = self.expression(LOOSEST)?;
        self.expect(TokenKind::EndOfInput)?;
        Ok(*node.expr)
    }

    fn expression(&mut self, precedence_min: u8) -> Parsed<Node> {
        let mut lhs = self.signed()?;
        loop {
            let token = self.peek()?;
            let TokenKind::Operator(op) = token.kind else { return Ok(lhs) };
            if precedence(op) < precedence_min {
                return Ok(lhs);
            }
            self.advance()?;
            lhs = self.binary(op, token.span, lhs)?;
        }
    }

    /// The rest of a binary expression. Apart from `expression`, whose stack frame lies on every
    /// level of a query.
    #[inline(never)]
    fn binary(&mut self, op: BinaryOp, op_span: Span, lhs: Node) -> Parsed<Node> {
        let (return_bool, matching) = self.binary_modifiers()?;
        let level = precedence(op);
        let rhs_min = if op == BinaryOp::Pow { level } else { level + 1 };
        let rhs = self.nested(|parser| parser.expression(rhs_min))?;
        let height = lhs.height.max(rhs.height) + 1;
        self.check_height(height, op_span)?;
        let span = Span { start: lhs.expr.span.start, end: rhs.expr.span.end };
        if !self.options.binop_fill_modifiers
            && (matching.fill_left.is_some() || matching.fill_right.is_some())
        {
            self.error(span, "binop fill modifiers are experimental and not enabled");
        }
        let (lhs, rhs, matching) = (lhs.expr, rhs.expr, Some(matching));
        let binary = Binary { op, lhs, rhs, return_bool, matching };
        Ok(Node::new(span, ExprKind::Binary(binary), height))
    }

    /// `bool`, `on(…)`, `group_left(…)`, `fill(…)` after an operator.
    fn binary_modifiers(&mut self) -> Parsed<(bool, VectorMatching)> {
        let mut matching = VectorMatching::default();
        let return_bool = self.accept(TokenKind::Keyword(Keyword::Bool))?.is_some();
        let clause = self.peek()?.kind;
        if let TokenKind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = clause {
            self.advance()?;
            matching.on = word == Keyword::On;
            (matching.labels, _) = self.grouping_labels()?;
            self.group_modifier(&mut matching)?;
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn group_modifier(&mut self, matching: &mut VectorMatching) -> Parsed<()> {
        matching.card = match self.peek()?.kind {
            TokenKind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            TokenKind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => return Ok(()),
        };
        self.advance()?;
        let next = self.peek()?.kind;
        if next == TokenKind::LeftParen {
            (matching.include, _) = self.grouping_labels()?;
        } else if !starts_expression(next) {
            return self.unexpected_in(Recovery::GROUPING);
        }
        Ok(())
    }

    fn fill_modifiers(&mut self, matching: &mut VectorMatching) -> Parsed<()> {
        let TokenKind::Keyword(first) = self.peek()?.kind else { return Ok(()) };
        let other = match first {
            Keyword::Fill => None,
            Keyword::FillLeft => Some(Keyword::FillRight),
            Keyword::FillRight => Some(Keyword::FillLeft),
            _ => return Ok(()),
        };
        self.advance()?;
        let value = Some(self.fill_value()?);
        if first != Keyword::FillRight {
            matching.fill_left = value;
        }
        if first != Keyword::FillLeft {
            matching.fill_right = value;
        }
        let Some(other) = other else { return Ok(()) };
        if self.accept(TokenKind::Keyword(other))?.is_some() {
            let value = Some(self.fill_value()?);
            match other {
                Keyword::FillLeft => matching.fill_left = value,
                _ => matching.fill_right = value,
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(TokenKind::LeftParen)?;
        let (value, _) = self.signed_number()?;
        self.expect(TokenKind::RightParen)?;
        Ok(value)
    }

    /// A number or duration with at most one sign, and where it ends.
    fn signed_number(&mut self) -> Parsed<(f64, usize)> {
        let sign = match self.peek()?.kind {
            TokenKind::Operator(BinaryOp::Add) => Some(1.0),
            TokenKind::Operator(BinaryOp::Sub) => Some(-1.0),
            _ => None,
        };
        if sign.is_some() {
            self.advance()?;
        }
        let token = self.peek()?;
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return self.unexpected();
        }
        self.advance()?;
        let Literal { span, value, .. } = self.literal(token)?;
        Ok((value * sign.unwrap_or(1.0), span.end))
    }

    /// An operand with its signs; a literal takes its sign.
    fn signed(&mut self) -> Parsed<Node> {
        let token = self.peek()?;
        let op = match token.kind {
            TokenKind::Operator(BinaryOp::Add) => UnaryOp::Plus,
            TokenKind::Operator(BinaryOp::Sub) => UnaryOp::Minus,
            _ => {
                let operand = self.operand()?;
                return self.suffixes(operand);
            }
        };
        self.advance()?;
        let Node { expr, height } = self.nested(|parser| parser.expression(POWER))?;
        let span = Span { start: token.span.start, end: expr.span.end };
        if let ExprKind::Number { value, is_duration } = expr.kind {
            let value = if op == UnaryOp::Minus { -value } else { value };
            return Ok(Node::leaf(span, ExprKind::Number { value, is_duration }));
        }
        self.check_height(height + 1, span)?;
        let kind = ExprKind::Unary { op, expr };
        Ok(Node::new(span, kind, height + 1))
    }

    fn operand(&mut self) -> Parsed<Node> {
        let token = self.advance()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let Literal { span, value, is_duration } = self.literal(token)?;
                Ok(Node::leaf(span, ExprKind::Number { value, is_duration }))
            }
            TokenKind::String => Ok(Node::leaf(token.span, ExprKind::String(self.unquote(token)))),
            TokenKind::LeftParen => self.parenthesised(token),
            TokenKind::LeftBrace => self.selector_without_name(token),
            TokenKind::Aggregate(op) => self.aggregate_or_metric(op, token),
            TokenKind::Identifier | TokenKind::Preprocessor(_) => self.call_or_metric(token),
            kind if is_metric_identifier(kind) => self.selector_of_name(token),
            _ => {
                self.ahead = Some(token);
                self.unexpected()
            }
        }
    }

    fn parenthesised(&mut self, open: Token) -> Parsed<Node> {
        let Node { expr, height } = self.nested(|parser| parser.expression(LOOSEST))?;
        let close = self.expect(TokenKind::RightParen)?;
        let span = Span { start: open.span.start, end: close.span.end };
        self.check_height(height + 1, span)?;
        let kind = ExprKind::Paren(expr);
        Ok(Node::new(span, kind, height + 1))
    }

    fn call_or_metric(&mut self, name: Token) -> Parsed<Node> {
        if self.peek()?.kind != TokenKind::LeftParen {
            return self.selector_of_name(name);
        }
        let (args, height, end) = self.arguments()?;
        self.call_of(name, args, Span { start: name.span.start, end }, height)
    }

    /// Apart from the function that recurses, to keep its stack frame small.
    #[inline(never)]
    fn call_of(&mut self, name: Token, args: Vec<Expr>, span: Span, height: usize) -> Parsed<Node> {
        let text = self.text(name);
        let Some(function) = functions::lookup(text) else {
            self.error(name.span, format!("unknown function with name {}", quote(text)));
            return Ok(Node::nothing(span));
        };
        if function.experimental && !self.options.experimental_functions {
            self.error(name.span, format!("function {} is not enabled", quote(text)));
        }
        self.check_height(height, span)?;
        Ok(Node::new(span, ExprKind::Call { function, args }, height))
    }

    /// Arguments in parentheses, the levels of a tree above them, and where they end.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize, usize)> {
        self.expect(TokenKind::LeftParen)?;
        let (mut args, mut height) = (Vec::new(), 1);
        if let Some(close) = self.accept(TokenKind::RightParen)? {
            return Ok((args, height, close.span.end));
        }
        loop {
            let arg = self.nested(|parser| parser.expression(LOOSEST))?;
            height = height.max(arg.height + 1);
            args.push(*arg.expr);
            let mut more = false;
            while let Some(comma) = self.accept(TokenKind::Comma)? {
                more = starts_expression(self.peek()?.kind);
                if more {
                    break;
                }
                self.error(comma.span, "trailing commas not allowed in function call args");
            }
            if !more {
                let close = self.expect(TokenKind::RightParen)?;
                return Ok((args, height, close.span.end));
            }
        }
    }

    fn aggregate_or_metric(&mut self, op: AggregateOp, token: Token) -> Parsed<Node> {
        match self.peek()?.kind {
            TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without) => {
                self.recovering(Recovery::AGGREGATION, |parser| parser.aggregate(op, token))
            }
            _ => self.selector_of_name(token),
        }
    }

    fn aggregate(&mut self, op: AggregateOp, token: Token) -> Parsed<Node> {
        let before = self.grouping()?;
        let (args, height, end) = self.arguments()?;
        let after = if before.is_none() { self.grouping()? } else { None };
        let end = after.as_ref().map_or(end, |(_, end)| *end);
        let grouping = before.or(after).map_or_else(
            || Grouping { without: false, labels: Vec::new() },
            |(grouping, _)| grouping,
        );
        let span = Span { start: token.span.start, end };
        self.aggregate_of(op, args, grouping, span, height)
    }

    /// Apart from the function that recurses, to keep its stack frame small.
    #[inline(never)]
    fn aggregate_of(
        &mut self,
        op: AggregateOp,
        mut args: Vec<Expr>,
        grouping: Grouping,
        span: Span,
        height: usize,
    ) -> Parsed<Node> {
        let (wanted, got) = (1 + usize::from(op.param_type().is_some()), args.len());
        let message = if got == 0 {
            "no arguments for aggregate expression provided".to_owned()
        } else if op.is_experimental() && !self.options.experimental_functions {
            let name = op.as_str();
            format!(
                "{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
            )
        } else if let (true, Some(expr)) = (got == wanted, args.pop()) {
            self.check_height(height, span)?;
            let (expr, param) = (Box::new(expr), args.pop().map(Box::new));
            let kind = ExprKind::Aggregate(Aggregate { op, expr, param, grouping });
            return Ok(Node::new(span, kind, height));
        } else {
            format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"
            )
        };
        self.error(span, message);
        Ok(Node::nothing(span))
    }

    /// `by (…)` or `without (…)`, if it comes next, and where it ends.
    fn grouping(&mut self) -> Parsed<Option<(Grouping, usize)>> {
        let TokenKind::Keyword(word @ (Keyword::By | Keyword::Without)) = self.peek()?.kind else {
            return Ok(None);
        };
        self.advance()?;
        let (labels, end) = self.grouping_labels()?;
        Ok(Some((Grouping { without: word == Keyword::Without, labels }, end)))
    }

    /// `[5m]`, `offset`, `@`, `anchored` and `smoothed`, any number of them.
    fn suffixes(&mut self, mut node: Node) -> Parsed<Node> {
        loop {
            let token = self.peek()?;
            match token.kind {
                TokenKind::LeftBracket => {
                    self.advance()?;
                    node = self.brackets(node, token)?;
                }
                TokenKind::At => {
                    self.advance()?;
                    self.recovering(Recovery::AT, |parser| parser.at_modifier(&mut node.expr))?;
                }
                TokenKind::Keyword(Keyword::Offset) => {
                    self.advance()?;
                    self.recovering(Recovery::OFFSET, |parser| parser.offset(&mut node))?;
                }
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.advance()?;
                    self.boundary(&mut node.expr, Boundary::Anchored);
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.advance()?;
                    self.boundary(&mut node.expr, Boundary::Smoothed);
                }
                _ => return Ok(node),
            }
        }
    }

    /// The rest of a range selector or subquery.
    fn brackets(&mut self, node: Node, open: Token) -> Parsed<Node> {
        let range = self.recovering(Recovery::RANGE, Self::positive_duration)?;
        let (start, height) = (node.expr.span.start, node.height.max(range.height) + 1);
        if let Some(close) = self.accept(TokenKind::RightBracket)? {
            let brackets = Span { start: open.span.start, end: close.span.end };
            self.check_range_operand(&node.expr, brackets);
            self.check_height(height, brackets)?;
            let (selector, range) = (node.expr, range.expr);
            let kind = ExprKind::MatrixSelector { selector, range };
            let span = Span { start, end: close.span.end };
            return Ok(Node::new(span, kind, height));
        }
        self.expect_or(TokenKind::Colon, Recovery::AFTER_RANGE)?;
        let (step, height, close) = match self.accept(TokenKind::RightBracket)? {
            Some(close) => (None, height, close),
            None => {
                let step = self.recovering(Recovery::STEP, Self::positive_duration)?;
                let close = self.expect_or(TokenKind::RightBracket, Recovery::AFTER_STEP)?;
                (Some(step.expr), height.max(step.height + 1), close)
            }
        };
        let span = Span { start, end: close.span.end };
        self.check_height(height, span)?;
        let (expr, time) = (node.expr, TimeModifiers::default());
        let kind = ExprKind::Subquery(Subquery { expr, range: range.expr, step, time });
        Ok(Node::new(span, kind, height))
    }

    fn check_range_operand(&mut self, operand: &Expr, brackets: Span) {
        let message = match &operand.kind {
            ExprKind::VectorSelector(selector) if selector.time.offset.is_some() => {
                "no offset modifiers allowed before range"
            }
            ExprKind::VectorSelector(selector) if selector.time.at.is_some() => {
                "no @ modifiers allowed before range"
            }
            ExprKind::VectorSelector(_) => return,
            _ => "ranges only allowed for vector selectors",
        };
        self.error(brackets, message);
    }

    fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        let span = expr.span;
        let (at, end) = match self.peek()?.kind {
            TokenKind::Preprocessor(word @ (Preprocessor::Start | Preprocessor::End)) => {
                self.advance()?;
                self.expect(TokenKind::LeftParen)?;
                let end = self.expect(TokenKind::RightParen)?.span.end;
                let is_start = word == Preprocessor::Start;
                (if is_start { AtModifier::Start } else { AtModifier::End }, end)
            }
            _ => {
                let (seconds, end) = self.signed_number()?;
                if !(i64::MIN as f64..i64::MAX as f64).contains(&seconds)
                    || seconds == i64::MIN as f64
                {
                    let seconds = format_fixed(seconds);
                    self.error(span, format!("timestamp out of bounds for @ modifier: {seconds}"));
                }
                // A cast saturates: beyond 64 bits of milliseconds there is no data either.
                (AtModifier::Timestamp((seconds * 1000.0).round() as i64), end)
            }
        };
        let Some(time) = self.time_modifiers(expr, "@ modifier") else { return Ok(()) };
        if time.at.is_some() {
            self.error(span, "@ <timestamp> may not be set multiple times");
            return Ok(());
        }
        time.at = Some(at);
        expr.span.end = end;
        Ok(())
    }

    fn offset(&mut self, node: &mut Node) -> Parsed<()> {
        let span = node.expr.span;
        let offset = self.offset_duration()?;
        let height = node.height.max(offset.height + 1);
        self.check_height(height, span)?;
        node.height = height;
        let Some(time) = self.time_modifiers(&mut node.expr, "offset modifier") else {
            return Ok(());
        };
        let end = offset.expr.span.end;
        if time.offset.is_some() {
            self.error(span, "offset may not be set multiple times");
        } else if !is_no_offset(&offset.expr) {
            time.offset = Some(offset.expr);
        }
        node.expr.span.end = end;
        Ok(())
    }

    /// Where `offset` and `@` of an expression are kept; notes an error where it takes none.
    fn time_modifiers<'e>(
        &mut self,
        expr: &'e mut Expr,
        modifier: &str,
    ) -> Option<&'e mut TimeModifiers> {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::VectorSelector(selector) => return Some(&mut selector.time),
            ExprKind::Subquery(subquery) => return Some(&mut subquery.time),
            ExprKind::MatrixSelector { selector, .. } => {
                if let ExprKind::VectorSelector(selector) = &mut selector.kind {
                    return Some(&mut selector.time);
                }
                self.error(span, "ranges only allowed for vector selectors");
            }
            _ => self.error(
                span,
                format!("{modifier} must be preceded by an instant vector selector or range vector selector or a subquery"),
            ),
        }
        None
    }

    fn boundary(&mut self, expr: &mut Expr, boundary: Boundary) {
        let span = expr.span;
        let word = if boundary == Boundary::Anchored { "anchored" } else { "smoothed" };
        if !self.options.extended_range_selectors {
            return self.error(span, format!("{word} modifier is experimental and not enabled"));
        }
        let selector = match &mut expr.kind {
            ExprKind::VectorSelector(selector) => selector,
            ExprKind::MatrixSelector { selector, .. } => match &mut selector.kind {
                ExprKind::VectorSelector(selector) => selector,
                _ => return,
            },
            ExprKind::Subquery(_) => {
                return self
                    .error(span, format!("{word} modifier is not supported for subqueries"));
            }
            _ => return self.error(span, format!("{word} modifier not implemented")),
        };
        if selector.boundary != Boundary::Plain && selector.boundary != boundary {
            self.error(span, "anchored and smoothed modifiers cannot be used together");
        }
        selector.boundary = boundary;
    }
}

/// Go's `%f`.
fn format_fixed(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { crate::model::float::format_plain(value) }
}
