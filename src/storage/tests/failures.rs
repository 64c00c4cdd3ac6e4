//! Single operations of the disk that fail, one after the other, and what is told of it.

use super::*;
use crate::storage::append::{SyncError, Ticket};

/// What becomes of a ticket, without waiting for it.
struct Told(Arc<Mutex<Option<Result<(), SyncError>>>>);

impl Told {
    fn of(ticket: Ticket) -> Self {
        let told = Arc::new(Mutex::new(None));
        let result = Arc::clone(&told);
        ticket.on_settled(move |own| *result.lock() = Some(own));
        Self(told)
    }

    /// `None`: nothing yet.
    fn is_durable(&self) -> Option<bool> {
        self.0.lock().as_ref().map(Result::is_ok)
    }
}

/// Samples of a second.
fn samples(second: i64) -> Vec<(Labels, i64, f64)> {
    (0..40).map(|i| (labels("m", i), NOW_MS + second * 1_000, (second + i as i64) as f64)).collect()
}

/// Whatever operation of closing and sealing fails, and whoever syncs after it: what was told to be
/// durable is found after a power cut, and who still waits is told.
#[test]
fn a_sync_that_failed_elsewhere_does_not_acknowledge() {
    for seed in 0..4 {
        for operation in 0..40 {
            let machine = Machine::new(seed);
            let storage = machine.open();
            append(&storage, &samples(0));
            storage.seal_now().unwrap();
            let (_, ticket) = try_append(&storage, OnReject::Skip, &samples(1)).unwrap();
            let told = Told::of(ticket);
            machine.disk.fail_once_after(operation);
            let _ = storage.seal_now();
            // One that nobody syncs until all is over.
            let late = try_append(&storage, OnReject::Skip, &samples(2));
            storage.store.sync_once();
            let late = late.ok().map(|(_, ticket)| Told::of(ticket));
            storage.store.sync_once();
            let is_poisoned = storage.is_poisoned();
            machine.disk.crash();
            drop(storage);
            let found = read(&all(&machine.open()));
            let has = |second: i64| {
                let is = |own: &(i64, u64)| own.0 == NOW_MS + second * 1_000;
                found.iter().filter(|(_, samples)| samples.iter().any(is)).count()
            };
            let place = format!("seed {seed}, operation {operation}");
            for (told, second) in [told].iter().chain(&late).zip(1..) {
                let durable = told.is_durable();
                assert!(durable.is_some(), "{place}: second {second} waits for ever");
                assert!(durable != Some(true) || has(second) == 40, "{place}: lost {second}");
                assert!(is_poisoned || durable == Some(true), "{place}");
            }
        }
    }
}
