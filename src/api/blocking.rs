//! Work that blocks on disk or computes for long, off the async threads. Whatever parses or compiles
//! what a request brought asks for a [`Blocking`], which there is nowhere else.

use super::Services;
use super::respond::{ApiError, ErrorType};
use crate::model::matcher::written::{WrittenMatcher, compile_all};
use crate::model::matcher::{CompileAllowance, Matcher};
use crate::promql::ast::Expr;
use crate::promql::parser::{self, ParseErrors, ParserOptions};

/// Shows that this thread may be kept busy.
#[derive(Debug)]
pub struct Blocking(());

/// Runs what computes for long for a client, below everything else that the server does.
pub(super) async fn answering<T: Send + 'static>(
    services: &Services,
    work: impl FnOnce(&Blocking) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    services.workers.run(|| work(&Blocking(()))).await?
}

/// Runs what blocks on disk off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Blocking) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let joined = tokio::task::spawn_blocking(|| work(&Blocking(()))).await;
    joined.unwrap_or_else(|_| Err(ApiError::new(ErrorType::Internal, "unexpected error: panic")))
}

impl Blocking {
    /// Parses a query.
    #[expect(clippy::unused_self, reason = "it is there to be had")]
    pub fn parse(&self, query: &str, options: &ParserOptions) -> Result<Expr, ParseErrors> {
        parser::parse(query, options)
    }

    /// Parses selectors and compiles what they hold; `parse` says which are allowed.
    #[expect(clippy::unused_self, reason = "it is there to be had")]
    pub fn selectors<'a>(
        &self,
        texts: impl Iterator<Item = &'a str>,
        parse: impl Fn(&str) -> Result<Vec<WrittenMatcher>, ParseErrors>,
        refused: impl Fn(&dyn std::fmt::Display) -> ApiError,
    ) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let mut allowance = CompileAllowance::default();
        let compiled = texts.map(|text| {
            let written = parse(text).map_err(|err| refused(&err))?;
            compile_all(&written, &mut allowance).map_err(|err| refused(&err))
        });
        compiled.collect()
    }

    /// The matchers of a parsed query's selectors.
    #[expect(clippy::unused_self, reason = "it is there to be had")]
    pub fn compile(&self, sets: &[&[WrittenMatcher]]) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let mut allowance = CompileAllowance::default();
        let compiled = sets.iter().map(|set| compile_all(set, &mut allowance));
        compiled.collect::<Result<_, _>>().map_err(|err| ApiError::parameter("query", err))
    }
}
