//! The one place that knows whether the store has failed.
//!
//! After a failed write or sync nobody knows what is on the device: a second sync may report success
//! for lost data, a second edit of the manifest may overwrite one that is there. Log files, the
//! manifest, the syncer and the writer therefore share one cell; each asks it before it does
//! anything and before it tells anybody that something is durable. Once set it stays so until the
//! store is opened anew.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use tracing::error;

/// The cell. Clones are the same one.
#[derive(Clone, Default)]
pub struct Failure(Arc<Cell>);

#[derive(Default)]
struct Cell {
    /// What failed first.
    what: OnceLock<&'static str>,
    /// Called after that.
    on_set: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Failure {
    /// From now on nothing is written. Only the first reason is told.
    pub fn set(&self, what: &'static str, err: &io::Error) {
        if self.0.what.set(what).is_ok() {
            error!(error = %err, what, "The store takes no more samples until it is restarted.");
            if let Some(on_set) = self.0.on_set.get() {
                on_set();
            }
        }
    }

    /// Whether something failed.
    pub fn is_set(&self) -> bool {
        self.0.what.get().is_some()
    }

    /// An error when something failed.
    pub fn check(&self) -> io::Result<()> {
        match self.0.what.get() {
            Some(what) => Err(io::Error::other(format!("stopped earlier: {what}"))),
            None => Ok(()),
        }
    }

    /// Names who is to be told at once, before anything can fail. There is one.
    pub fn on_set(&self, told: impl Fn() + Send + Sync + 'static) {
        let is_first = self.0.on_set.set(Box::new(told)).is_ok();
        assert!(is_first, "one is told of a failure");
    }

    /// Locks what a panic would leave half changed: unwinding while it is locked sets the cell.
    pub fn lock<'a, T>(&'a self, own: &'a Mutex<T>) -> Watched<'a, T> {
        Watched { own: own.lock(), failure: self }
    }
}

/// A lock that is held. The fields are let go after [`Watched::drop`]: whoever has the lock next
/// finds the cell set.
pub struct Watched<'a, T> {
    own: MutexGuard<'a, T>,
    failure: &'a Failure,
}

impl<T> Deref for Watched<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.own
    }
}

impl<T> DerefMut for Watched<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.own
    }
}

impl<T> Drop for Watched<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let err = io::Error::other("panic while the store was being changed");
            self.failure.set("a change of the store was not finished", &err);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_under_the_lock_is_a_failure_before_the_lock_is_free() {
        let (failure, own) = (Failure::default(), Mutex::new(0));
        *failure.lock(&own) += 1;
        assert!(failure.check().is_ok());
        let told = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&told);
        failure.on_set(move || *counted.lock() += 1);
        std::thread::scope(|scope| {
            let (failure, own) = (failure.clone(), &own);
            let panics = scope.spawn(move || {
                let mut own = failure.lock(own);
                *own += 1;
                panic!("half done");
            });
            assert!(panics.join().is_err());
        });
        assert_eq!(*own.lock(), 2);
        assert!(failure.is_set() && failure.check().is_err());
        failure.set("again", &io::Error::other("again"));
        assert_eq!(*told.lock(), 1, "told once");
    }
}
