//! The kinds of tokens, and how error messages name them.

use crate::model::labels::quote;
use crate::promql::ast::{AggregateOp, BinaryOp, Span};

/// A piece of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Kind.
    pub kind: TokenKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of tokens. Keywords are recognised in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TokenKind {
    EndOfInput,
    /// A name without colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    Number,
    Duration,
    /// Still quoted.
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotEqualRegex,
    At,
    /// An operator; `!=` also between a label and its value.
    Operator(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    Preprocessor(Preprocessor),
}

/// Words with a meaning of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Keyword {
    Bool,
    By,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Ignoring,
    Offset,
    Smoothed,
    Anchored,
    On,
    Without,
}

/// Words that stand for a property of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Preprocessor {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// Letters of the longest keyword (`count_values`); a longer word needs no look-up.
const KEYWORD_BYTES_MAX: usize = 12;

impl TokenKind {
    /// The keyword that is written so, in any case; `inf` and `nan` are numbers.
    pub fn keyword(word: &str) -> Option<Self> {
        let mut lower = [0_u8; KEYWORD_BYTES_MAX];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        KEYWORDS.iter().find(|(name, _)| name.as_bytes() == lower).map(|(_, kind)| *kind)
    }
}

static KEYWORDS: [(&str, TokenKind); 39] = {
    use self::{Keyword as K, Preprocessor as P};
    use TokenKind::{Aggregate, Keyword as Word, Number, Operator, Preprocessor as Property};
    [
        ("and", Operator(BinaryOp::And)),
        ("or", Operator(BinaryOp::Or)),
        ("unless", Operator(BinaryOp::Unless)),
        ("atan2", Operator(BinaryOp::Atan2)),
        ("sum", Aggregate(AggregateOp::Sum)),
        ("avg", Aggregate(AggregateOp::Avg)),
        ("count", Aggregate(AggregateOp::Count)),
        ("min", Aggregate(AggregateOp::Min)),
        ("max", Aggregate(AggregateOp::Max)),
        ("group", Aggregate(AggregateOp::Group)),
        ("stddev", Aggregate(AggregateOp::Stddev)),
        ("stdvar", Aggregate(AggregateOp::Stdvar)),
        ("topk", Aggregate(AggregateOp::TopK)),
        ("bottomk", Aggregate(AggregateOp::BottomK)),
        ("count_values", Aggregate(AggregateOp::CountValues)),
        ("quantile", Aggregate(AggregateOp::Quantile)),
        ("limitk", Aggregate(AggregateOp::LimitK)),
        ("limit_ratio", Aggregate(AggregateOp::LimitRatio)),
        ("offset", Word(K::Offset)),
        ("smoothed", Word(K::Smoothed)),
        ("anchored", Word(K::Anchored)),
        ("by", Word(K::By)),
        ("without", Word(K::Without)),
        ("on", Word(K::On)),
        ("ignoring", Word(K::Ignoring)),
        ("group_left", Word(K::GroupLeft)),
        ("group_right", Word(K::GroupRight)),
        ("fill", Word(K::Fill)),
        ("fill_left", Word(K::FillLeft)),
        ("fill_right", Word(K::FillRight)),
        ("bool", Word(K::Bool)),
        ("start", Property(P::Start)),
        ("end", Property(P::End)),
        ("step", Property(P::Step)),
        ("range", Property(P::Range)),
        ("max_of", Property(P::MaxOf)),
        ("min_of", Property(P::MinOf)),
        ("inf", Number),
        ("nan", Number),
    ]
};

/// Letters of a token that an error message shows.
const SHOWN_CHARS_MAX: usize = 10;

impl Token {
    /// How `unexpected …` names the token, whose text is `text`.
    pub fn describe(self, text: &str) -> String {
        match self.kind {
            TokenKind::EndOfInput => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", quote(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            TokenKind::Number => format!("number {}", quote_short(text)),
            TokenKind::Duration => format!("duration {}", quote_short(text)),
            TokenKind::String => format!("string {}", quote_short(text)),
            TokenKind::Operator(_)
            | TokenKind::EqualRegex
            | TokenKind::NotEqualRegex
            | TokenKind::At => format!("<op:{text}>"),
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(_) => format!("<{text}>"),
            TokenKind::LeftParen
            | TokenKind::RightParen
            | TokenKind::LeftBrace
            | TokenKind::RightBrace
            | TokenKind::LeftBracket
            | TokenKind::RightBracket
            | TokenKind::Comma
            | TokenKind::Colon
            | TokenKind::Assign
            | TokenKind::Preprocessor(_) => quote(text),
        }
    }
}

/// The first letters, and dots when more bytes than that follow.
fn quote_short(text: &str) -> String {
    if text.len() <= SHOWN_CHARS_MAX {
        return quote(text);
    }
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{}...", quote(&short))
}
