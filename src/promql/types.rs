//! The type check of a parsed query, with the texts and places of Prometheus. Trees are at most
//! `parser::DEPTH_MAX` levels high, so recursion is safe.

use std::collections::BTreeSet;

use super::ast::{
    Aggregate, Binary, Cardinality, Expr, ExprKind, Span, Subquery, ValueType, VectorSelector,
};
use super::functions::Function;
use super::parser::ParseError;
use crate::model::labels::{METRIC_NAME, quote};
use crate::model::matcher::written::WrittenMatcher;

impl Expr {
    /// What the expression evaluates to.
    pub fn value_type(&self) -> ValueType {
        let mut expr = self;
        loop {
            return match &expr.kind {
                ExprKind::Number { .. } => ValueType::Scalar,
                ExprKind::String(_) => ValueType::String,
                ExprKind::VectorSelector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
                ExprKind::MatrixSelector { .. } | ExprKind::Subquery(_) => ValueType::Matrix,
                ExprKind::Call { function, .. } => function.return_type,
                ExprKind::Binary(Binary { lhs, rhs, .. }) => {
                    binary_type(lhs.value_type(), rhs.value_type())
                }
                ExprKind::Unary { expr: inner, .. } | ExprKind::Paren(inner) => {
                    expr = inner;
                    continue;
                }
            };
        }
    }
}

fn binary_type(lhs: ValueType, rhs: ValueType) -> ValueType {
    match (lhs, rhs) {
        (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
        _ => ValueType::Vector,
    }
}

/// Appends what is wrong, and settles how vectors are matched: set operators many to many, nothing
/// where a side is a scalar.
pub(super) fn check(expr: &mut Expr, query: &str, errors: &mut Vec<ParseError>) {
    Check { query, errors }.expr(expr);
}

struct Check<'a> {
    query: &'a str,
    errors: &'a mut Vec<ParseError>,
}

impl Check<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(ParseError { span, message: message.into() });
    }

    fn expr(&mut self, expr: &mut Expr) -> ValueType {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::Number { .. } => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::VectorSelector(selector) => {
                self.selector(selector, span);
                self.non_empty_matcher(selector, span);
                ValueType::Vector
            }
            ExprKind::MatrixSelector { selector, .. } => {
                self.expr(selector);
                ValueType::Matrix
            }
            ExprKind::Subquery(subquery) => self.subquery(subquery, span),
            ExprKind::Call { function, args } => {
                self.call(function, args, span);
                function.return_type
            }
            ExprKind::Aggregate(aggregate) => {
                self.aggregate(aggregate);
                ValueType::Vector
            }
            ExprKind::Binary(binary) => self.binary(binary, span),
            ExprKind::Unary { expr: operand, .. } => {
                let found = self.expr(operand);
                if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                    let found = quote(found.documented());
                    self.error(span, format!("unary expression only allowed on expressions of type scalar or instant vector, got {found}"));
                }
                found
            }
            ExprKind::Paren(inner) => self.expr(inner),
        }
    }

    /// Checks the operand and that it is of the wanted type.
    fn expect(&mut self, expr: &mut Expr, wanted: ValueType, context: &str) {
        let found = self.expr(expr);
        if found != wanted {
            let (wanted, found) = (wanted.documented(), found.documented());
            self.error(expr.span, format!("expected type {wanted} in {context}, got {found}"));
        }
    }

    fn aggregate(&mut self, aggregate: &mut Aggregate) {
        self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression");
        if let (Some(param), Some(wanted)) = (&mut aggregate.param, aggregate.op.param_type()) {
            self.expect(param, wanted, "aggregation parameter");
        }
    }

    fn subquery(&mut self, subquery: &mut Subquery, span: Span) -> ValueType {
        let found = self.expr(&mut subquery.expr);
        if found != ValueType::Vector {
            let found = found.as_str();
            self.error(
                span,
                format!("subquery is only allowed on instant vector, got {found} instead"),
            );
        }
        ValueType::Matrix
    }

    fn selector(&mut self, selector: &VectorSelector, span: Span) {
        let Some((_, braced)) = selector.matchers.split_last() else { return };
        if selector.name.is_empty() {
            return;
        }
        for matcher in braced.iter().filter(|matcher| matcher.name() == METRIC_NAME) {
            let (name, other) = (quote(&selector.name), quote(matcher.value()));
            self.error(span, format!("metric name must not be set twice: {name} or {other}"));
        }
    }

    fn non_empty_matcher(&mut self, selector: &VectorSelector, span: Span) {
        let all = || selector.matchers.iter().all(WrittenMatcher::matches_empty);
        if selector.name.is_empty() && all() {
            self.error(span, "vector selector must contain at least one non-empty matcher");
        }
    }

    fn call(&mut self, function: &Function, args: &mut [Expr], span: Span) {
        let (name, got) = (quote(function.name), args.len());
        let (min, max) = (function.args_min(), function.args_max());
        if function.variadic == 0 && got != min {
            self.error(span, format!("expected {min} argument(s) in call to {name}, got {got}"));
        } else if got < min {
            self.error(
                span,
                format!("expected at least {min} argument(s) in call to {name}, got {got}"),
            );
        } else if let Some(max) = max.filter(|max| *max < got) {
            self.error(
                span,
                format!("expected at most {max} argument(s) in call to {name}, got {got}"),
            );
        }
        let is_info = function.name == "info";
        if is_info && let Some(selector) = args.get(1) {
            self.info_selector(selector, span);
        }
        // Surplus arguments have no type to check; the count has been refused above.
        let checked = if function.variadic == 0 { min } else { usize::MAX };
        for (index, arg) in args.iter_mut().enumerate().take(checked) {
            let Some(wanted) = function.arg_type(index) else { return };
            let found = match &arg.kind {
                // The selector of info metrics may match the empty label set.
                ExprKind::VectorSelector(selector) if is_info && index == 1 => {
                    self.selector(selector, arg.span);
                    ValueType::Vector
                }
                _ => self.expr(arg),
            };
            if found != wanted {
                let (wanted, found) = (wanted.documented(), found.documented());
                self.error(
                    arg.span,
                    format!("expected type {wanted} in call to function {name}, got {found}"),
                );
            }
        }
    }

    fn info_selector(&mut self, expr: &Expr, call: Span) {
        let found = expr.value_type();
        if found != ValueType::Vector {
            let (wanted, found) = (ValueType::Vector.documented(), found.documented());
            self.error(
                call,
                format!("expected type {wanted} in call to function \"info\", got {found}"),
            );
        }
        match &expr.kind {
            ExprKind::VectorSelector(selector) if selector.name.is_empty() => {}
            ExprKind::VectorSelector(_) => {
                self.error(expr.span, "expected label selectors only, got vector selector instead");
            }
            _ => self.error(expr.span, "expected label selectors only"),
        }
    }

    fn binary(&mut self, binary: &mut Binary, span: Span) -> ValueType {
        let (lhs, rhs) = (self.expr(&mut binary.lhs), self.expr(&mut binary.rhs));
        let result = binary_type(lhs, rhs);
        if binary.return_bool && !binary.op.is_comparison() {
            self.error(
                self.operator_span(binary),
                "bool modifier can only be used on comparison operators",
            );
        }
        if binary.op.is_comparison() && !binary.return_bool && result == ValueType::Scalar {
            self.error(
                self.operator_span(binary),
                "comparisons between scalars must use BOOL modifier",
            );
        }
        self.shared_labels(binary);
        for (operand, found) in [(&binary.lhs, lhs), (&binary.rhs, rhs)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                self.error(
                    operand.span,
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }
        self.matching(binary, span, lhs == ValueType::Vector && rhs == ValueType::Vector);
        if binary.op.is_set() && (lhs == ValueType::Scalar || rhs == ValueType::Scalar) {
            let op = quote(binary.op.as_str());
            self.error(span, format!("set operator {op} not allowed in binary scalar expression"));
        }
        result
    }

    fn shared_labels(&mut self, binary: &Binary) {
        let Some(matching) = binary.matching.as_ref().filter(|matching| matching.on) else {
            return;
        };
        let include: BTreeSet<_> = matching.include.iter().collect();
        for label in matching.labels.iter().filter(|label| include.contains(label)) {
            let label = quote(label);
            self.error(
                self.operator_span(binary),
                format!("label {label} must not occur in ON and GROUP clause at once"),
            );
        }
    }

    fn matching(&mut self, binary: &mut Binary, span: Span, between_vectors: bool) {
        let Some(matching) = &mut binary.matching else { return };
        let is_set = binary.op.is_set();
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if is_set && matching.card == Cardinality::OneToOne {
            matching.card = Cardinality::ManyToMany;
        }
        if !between_vectors {
            if !matching.labels.is_empty() {
                self.error(span, "vector matching only allowed between instant vectors");
            }
            if fills {
                self.error(span, "filling in missing series only allowed between instant vectors");
            }
            binary.matching = None;
            return;
        }
        if !is_set {
            return;
        }
        if matching.card != Cardinality::ManyToMany {
            let op = quote(binary.op.as_str());
            self.error(span, format!("no grouping allowed for {op} operation"));
            self.error(span, "set operations must always be many-to-many");
        }
        if fills {
            self.error(span, "filling in missing series not allowed for set operators");
        }
    }

    /// The operator with its modifiers: what lies between the operands, without white space.
    fn operator_span(&self, binary: &Binary) -> Span {
        let (lhs, rhs) = (binary.lhs.span.end, binary.rhs.span.start);
        let between = self.query.get(lhs..rhs).unwrap_or_default();
        let start = lhs + (between.len() - between.trim_start().len());
        Span { start, end: start + between.trim().len() }
    }
}
