//! Which queries run or wait, so that somebody can look at them and end one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::CancelFlag;

/// A query that runs or waits for a place.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveQuery {
    /// Its number, counted since the start.
    pub id: u64,
    /// The query as written.
    pub query: String,
    /// When it came, milliseconds since 1970.
    pub started_ms: i64,
    /// How long it has been here, waiting included.
    pub elapsed: Duration,
    /// Whether it waits for a place.
    pub waiting: bool,
}

struct Entry {
    query: String,
    started_ms: i64,
    /// On the clock's monotonic time.
    started: Duration,
    running: AtomicBool,
    cancel: CancelFlag,
}

/// All of them, by number.
#[derive(Default)]
pub(super) struct Active {
    next: std::sync::atomic::AtomicU64,
    entries: Mutex<BTreeMap<u64, Entry>>,
}

/// A query's entry; gone when dropped.
pub(super) struct Registered<'a> {
    active: &'a Active,
    id: u64,
}

impl Active {
    pub(super) fn register(
        &self,
        query: &str,
        (started_ms, started): (i64, Duration),
        cancel: &CancelFlag,
    ) -> Registered<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (query, cancel) = (query.to_owned(), cancel.clone());
        let entry = Entry { query, started_ms, started, running: AtomicBool::new(false), cancel };
        self.entries.lock().insert(id, entry);
        Registered { active: self, id }
    }

    pub(super) fn list(&self, now: Duration) -> Vec<ActiveQuery> {
        let entries = self.entries.lock();
        let query = |(id, entry): (&u64, &Entry)| ActiveQuery {
            id: *id,
            query: entry.query.clone(),
            started_ms: entry.started_ms,
            elapsed: now.saturating_sub(entry.started),
            waiting: !entry.running.load(Ordering::Relaxed),
        };
        entries.iter().map(query).collect()
    }

    /// Asks a query to end; false when there is none of this number.
    pub(super) fn cancel(&self, id: u64) -> bool {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(&id) else { return false };
        entry.cancel.cancel();
        true
    }

    pub(super) fn cancel_all(&self) {
        self.entries.lock().values().for_each(|entry| entry.cancel.cancel());
    }
}

impl Registered<'_> {
    /// It waits no longer.
    pub(super) fn set_running(&self) {
        if let Some(entry) = self.active.entries.lock().get(&self.id) {
            entry.running.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.active.entries.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_listed_and_canceled_by_number() {
        let active = Active::default();
        let flags = [CancelFlag::new(), CancelFlag::new()];
        let first = active.register("up", (1000, Duration::from_secs(1)), &flags[0]);
        let second = active.register("down", (2000, Duration::from_secs(2)), &flags[1]);
        second.set_running();
        let list = active.list(Duration::from_secs(5));
        let seen: Vec<_> = list.iter().map(|own| (own.query.as_str(), own.waiting)).collect();
        assert_eq!(seen, [("up", true), ("down", false)]);
        assert_eq!(list[1].elapsed, Duration::from_secs(3));
        assert!(active.cancel(list[1].id));
        assert_eq!(flags.each_ref().map(CancelFlag::is_canceled), [false, true]);
        drop(first);
        assert!(!active.cancel(list[0].id));
        active.cancel_all();
        drop(second);
        assert!(active.list(Duration::ZERO).is_empty());
    }
}
