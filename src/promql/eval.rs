//! Evaluates expressions.

/// The moments of an evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span;

impl Span {
    pub(super) fn instant(_at_ms: i64) -> Self {
        Self
    }
    pub(super) fn range(_start_ms: i64, _end_ms: i64, _step_ms: i64) -> Self {
        Self
    }
}
