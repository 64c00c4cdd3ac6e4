//! The syntax tree of a query. Positions are byte offsets into the query text.

use crate::model::matcher::written::WrittenMatcher;

/// Half-open span of bytes in the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Span {
    /// Line and column of the start, both from 1, in bytes, as error messages and annotations
    /// show them.
    pub fn line_column(self, query: &str) -> (usize, usize) {
        let before = query.as_bytes().get(..self.start).unwrap_or(query.as_bytes());
        let lines = before.split(|byte| *byte == b'\n');
        lines.fold((0, 1), |(line, _), text| (line + 1, text.len() + 1))
    }
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number.
    Scalar,
    /// A text.
    String,
    /// At most one sample for each series.
    Vector,
    /// Samples over a span of time for each series.
    Matrix,
}

impl ValueType {
    /// The words of error messages: `instant vector`, `range vector`, `scalar`, `string`.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }

    /// The word of the API's `resultType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

/// A node with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: ExprKind,
}

impl Expr {
    /// Calls `visit` on this node and all below it, parents before their children and parameters
    /// of aggregations after what is aggregated.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        let mut pending = vec![self];
        while let Some(expr) = pending.pop() {
            visit(expr);
            match &expr.kind {
                ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::VectorSelector(_) => {}
                ExprKind::MatrixSelector { selector: inner, .. }
                | ExprKind::Subquery(Subquery { expr: inner, .. })
                | ExprKind::Unary { expr: inner, .. }
                | ExprKind::Paren(inner) => pending.push(inner),
                ExprKind::Call { args, .. } => pending.extend(args.iter().rev()),
                ExprKind::Aggregate(aggregate) => {
                    pending.extend(aggregate.param.as_deref());
                    pending.push(&aggregate.expr);
                }
                ExprKind::Binary(binary) => pending.extend([&*binary.rhs, &*binary.lhs]),
            }
        }
    }

    /// Without the parentheses around it.
    pub fn unparenthesised(&self) -> &Self {
        let mut expr = self;
        while let ExprKind::Paren(inner) = &expr.kind {
            expr = inner;
        }
        expr
    }
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "fields bear the names of the grammar")]
pub enum ExprKind {
    /// A number; `is_duration` when it was written as `5m`.
    Number {
        /// The number; a duration counts in seconds.
        value: f64,
        /// Written as a duration.
        is_duration: bool,
    },
    /// A string literal; bytes, because escapes may name any.
    String(Vec<u8>),
    /// `metric{label="value"}` with its modifiers.
    VectorSelector(VectorSelector),
    /// `selector[5m]`
    MatrixSelector {
        /// A vector selector.
        selector: Box<Expr>,
        /// How far back.
        range: DurationExpr,
    },
    /// `expr[30m:5m]`
    Subquery(Subquery),
    /// `f(args)`
    Call { function: &'static super::functions::Function, args: Vec<Expr> },
    /// `sum by (a) (expr)`
    Aggregate(Aggregate),
    /// `lhs op rhs`
    Binary(Binary),
    /// `-expr`, `+expr`
    Unary { op: UnaryOp, expr: Box<Expr> },
    /// `(expr)`
    Paren(Box<Expr>),
}

/// Sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// An instant vector selector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// Metric name as written before the braces; empty when there is none, also where a quoted name
    /// in the braces became a matcher.
    pub name: String,
    /// All matchers as written; that of `name` comes last.
    pub matchers: Vec<WrittenMatcher>,
    /// Time modifiers.
    pub time: TimeModifiers,
    /// `anchored`, `smoothed`.
    pub boundary: Boundary,
}

/// Treatment of the borders of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// Samples within the range only.
    #[default]
    Plain,
    /// `anchored`
    Anchored,
    /// `smoothed`
    Smoothed,
}

/// `offset` and `@` of a selector or subquery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeModifiers {
    /// `offset`; may be negative.
    pub offset: Option<DurationExpr>,
    /// `@`
    pub at: Option<AtModifier>,
}

/// The moment of `@`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AtModifier {
    /// `@ 1609746000`, in milliseconds.
    Timestamp(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// A duration in brackets or after `offset`: a literal or an expression on literals.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: DurationKind,
}

/// The kinds of duration expressions.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "fields bear the names of the grammar")]
pub enum DurationKind {
    /// Seconds; `is_duration` when it was written as `5m`, not as a plain number.
    Literal { seconds: f64, is_duration: bool },
    /// `step()`: the resolution of the range query; zero in an instant query.
    Step,
    /// `range()`: from the query's start to its end.
    Range,
    /// `min_of(a, b)`
    MinOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    MaxOf(Box<DurationExpr>, Box<DurationExpr>),
    /// `a + b`, `- * / % ^`
    Binary { op: BinaryOp, lhs: Box<DurationExpr>, rhs: Box<DurationExpr> },
    /// `-a`, `+a`
    Unary { op: UnaryOp, expr: Box<DurationExpr> },
    /// `(a)`
    Paren(Box<DurationExpr>),
}

/// A subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// What is evaluated again and again.
    pub expr: Box<Expr>,
    /// Over which span.
    pub range: DurationExpr,
    /// How often; the global evaluation interval when it is left out.
    pub step: Option<DurationExpr>,
    /// Time modifiers.
    pub time: TimeModifiers,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// The vector.
    pub expr: Box<Expr>,
    /// `k`, quantile or label, where the operator takes one.
    pub param: Option<Box<Expr>>,
    /// `by` or `without`.
    pub grouping: Grouping,
}

/// By which labels an aggregation groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// `without` instead of `by`.
    pub without: bool,
    /// The labels as written.
    pub labels: Vec<String>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it; reference: PromQL operators")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    CountValues,
    Quantile,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Count,
        Self::Min,
        Self::Max,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::TopK,
        Self::BottomK,
        Self::CountValues,
        Self::Quantile,
        Self::LimitK,
        Self::LimitRatio,
    ];

    /// As written in PromQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::TopK => "topk",
            Self::BottomK => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::LimitK => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// The type of the parameter, for operators that take one.
    pub fn param_type(self) -> Option<ValueType> {
        match self {
            Self::TopK | Self::BottomK | Self::Quantile | Self::LimitK | Self::LimitRatio => {
                Some(ValueType::Scalar)
            }
            Self::CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    /// Needs `--enable-feature=promql-experimental-functions`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::LimitK | Self::LimitRatio)
    }
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// Operator.
    pub op: BinaryOp,
    /// Left.
    pub lhs: Box<Expr>,
    /// Right.
    pub rhs: Box<Expr>,
    /// `bool` modifier of a comparison.
    pub return_bool: bool,
    /// How vectors are matched; none when a side is a scalar.
    pub matching: Option<VectorMatching>,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it; reference: PromQL operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Mod,
        Self::Pow,
        Self::Atan2,
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessEqual,
        Self::Greater,
        Self::GreaterEqual,
        Self::TrimUpper,
        Self::TrimLower,
        Self::And,
        Self::Or,
        Self::Unless,
    ];

    /// As written in PromQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    /// `== != < <= > >=`
    pub fn is_comparison(self) -> bool {
        use BinaryOp as Op;
        matches!(
            self,
            Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual
        )
    }

    /// `and or unless`
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// How many series of one side a series of the other may meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// Plain.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Vector matching of a binary operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// Cardinality.
    pub card: Cardinality,
    /// `on(labels)` rather than `ignoring(labels)`.
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Labels that `group_left(…)` or `group_right(…)` takes over from the one side.
    pub include: Vec<String>,
    /// `fill`, `fill_left`: value of missing left samples.
    pub fill_left: Option<f64>,
    /// `fill`, `fill_right`: value of missing right samples.
    pub fill_right: Option<f64>,
}
