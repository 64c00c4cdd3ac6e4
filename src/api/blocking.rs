//! Work that blocks on disk or computes for long, off the async threads. Whatever parses or compiles
//! what a request brought asks for a [`Blocking`], which there is nowhere else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::quick::{Key, PATIENCE, Quick};
use super::respond::{ApiError, ErrorType};
use super::workers::Workers;
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

/// Runs what may be quick: here when it was so the last time, else as [`answering`] does. `work`
/// gives nothing when it takes longer than the patience that it is told of.
pub(super) async fn answering_soon<T: Send + 'static>(
    services: &Arc<Services>,
    key: Option<Key>,
    work: impl Fn(&Blocking, Option<Duration>) -> Result<Option<T>, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    soon(&services.quick, &services.workers, key, work).await
}

async fn soon<T: Send + 'static>(
    quick: &Arc<Quick>,
    workers: &Workers,
    key: Option<Key>,
    work: impl Fn(&Blocking, Option<Duration>) -> Result<Option<T>, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if let Some(key) = key
        && let Some(_turn) = quick.turn(key)
    {
        let brief = || quick.timed(key, || work(&Blocking(()), Some(PATIENCE)));
        let done = catch_unwind(AssertUnwindSafe(brief)).unwrap_or_else(|_| Err(panicked()));
        if let Some(done) = done.transpose() {
            return done;
        }
    }
    let quick = Arc::clone(quick);
    let whole = workers.run(move || match key {
        Some(key) => quick.timed(key, || work(&Blocking(()), None)),
        None => work(&Blocking(()), None),
    });
    let hurried = || ApiError::new(ErrorType::Internal, "a query was hurried for no reason");
    whole.await??.ok_or_else(hurried)
}

/// Runs what blocks on disk off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Blocking) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let joined = tokio::task::spawn_blocking(|| work(&Blocking(()))).await;
    joined.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> ApiError {
    ApiError::new(ErrorType::Internal, "unexpected error: panic")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::params::Params;
    use crate::base::clock::SimClock;
    use crate::model::sample::TimeRange;

    /// Which thread answered, after how many attempts.
    async fn answer(
        quick: &Arc<Quick>,
        key: Option<Key>,
        brief: fn() -> Result<bool, ApiError>,
    ) -> Result<(std::thread::ThreadId, usize), ApiError> {
        let attempts = std::sync::atomic::AtomicUsize::new(0);
        let work = move |_: &Blocking, patience: Option<Duration>| {
            let attempt = 1 + attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let is_done = patience.is_none() || brief()?;
            Ok(is_done.then(|| (std::thread::current().id(), attempt)))
        };
        soon(quick, &Workers::default(), key, work).await
    }

    #[tokio::test]
    async fn what_was_quick_is_tried_here_first() {
        let quick = Arc::new(Quick::new(Arc::new(SimClock::new(0)), 1));
        let range = TimeRange { min_ms: 0, max_ms: 0 };
        let key = quick.key("query", &Params::from_query("query=up"), range);
        assert!(key.is_some());
        let here = std::thread::current().id();
        let first = answer(&quick, key, || Ok(true)).await.unwrap();
        assert!(first.0 != here && first.1 == 1);
        assert_eq!(answer(&quick, key, || Ok(true)).await.unwrap(), (here, 1));
        let again = answer(&quick, key, || Ok(false)).await.unwrap();
        assert!(again.0 != here && again.1 == 2, "given up here, done there");
        let failed = answer(&quick, key, || Err(ApiError::bad_data("no"))).await;
        assert_eq!(failed.unwrap_err().text, "no");
        let panicked = answer(&quick, key, || panic!("as the test wants")).await;
        assert_eq!(panicked.unwrap_err().text, "unexpected error: panic");
        assert_eq!(answer(&quick, key, || Ok(true)).await.unwrap(), (here, 1), "nothing is held");
        assert_ne!(answer(&quick, None, || Ok(true)).await.unwrap().0, here);
    }
}
