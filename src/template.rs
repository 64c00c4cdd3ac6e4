//! Go text/template for alert texts: lexer, parser, executor, Go's fmt and time layouts.

pub mod notification;
pub mod prometheus;

/// Why a template does not parse or execute, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// The whole text, as `template: NAME:1:16: executing "NAME" at <.X>: …`.
    pub message: String,
}
