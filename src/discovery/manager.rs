//! Runs the providers and publishes what they find.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::{Options, file, static_targets};
use crate::base::clock::Clock;
use crate::base::metrics::Registry;
use crate::model::target::{TargetGroup, TargetSets};

/// Time between two publications, so that a storm of updates costs little.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(5);
/// After new options, how long the first publication waits for providers that have not reported.
const FIRST_REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds the targets of all sets. Stops when dropped.
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    publish_interval: Duration,
    state: Mutex<State>,
    /// A provider has reported something.
    changed: Notify,
    /// New options were applied: publish without delay.
    applied: Notify,
    sender: watch::Sender<Arc<TargetSets>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct State {
    providers: Vec<Provider>,
    sets: Vec<String>,
    next_id: u64,
}

struct Provider {
    id: u64,
    options: Options,
    /// Names of the sets that use it.
    sets: Vec<String>,
    groups: Vec<Arc<TargetGroup>>,
    has_reported: bool,
    /// Its task ends when this is dropped.
    _running: Option<watch::Sender<()>>,
}

impl Manager {
    /// A manager without sets; `name` tells its metrics apart (`scrape`, `notify`). Must be called
    /// within a tokio runtime, whose tasks do the work.
    pub fn new(name: &'static str, clock: Arc<dyn Clock>, registry: &Registry) -> Self {
        Self::with_interval(name, clock, registry, PUBLISH_INTERVAL)
    }

    fn with_interval(
        name: &'static str,
        clock: Arc<dyn Clock>,
        registry: &Registry,
        publish_interval: Duration,
    ) -> Self {
        let inner = Arc::new(Inner {
            publish_interval,
            state: Mutex::default(),
            changed: Notify::new(),
            applied: Notify::new(),
            sender: watch::Sender::new(Arc::default()),
            metrics: Metrics::new(registry, name),
            clock,
            runtime: tokio::runtime::Handle::current(),
        });
        inner.runtime.spawn(publish(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// All groups by set; changes whenever something new was found.
    pub fn targets(&self) -> watch::Receiver<Arc<TargetSets>> {
        self.inner.sender.subscribe()
    }

    /// Replaces all sets. Providers whose options stay keep running with what they have found.
    pub fn apply(&self, sets: BTreeMap<String, Vec<Options>>) {
        let mut state = self.inner.state.lock();
        let mut old = std::mem::take(&mut state.providers);
        let names: Vec<String> = sets.keys().cloned().collect();
        for gone in state.sets.iter().filter(|name| !names.contains(name)) {
            self.inner.metrics.forget_set(gone);
        }
        state.sets = names;
        for (name, list) in sets {
            for options in list {
                let running = state.providers.iter_mut().find(|own| own.options == options);
                if let Some(provider) = running {
                    if !provider.sets.contains(&name) {
                        provider.sets.push(name.clone());
                    }
                    continue;
                }
                let mut provider = match old.iter().position(|own| own.options == options) {
                    Some(at) => old.swap_remove(at),
                    None => self.start(&mut state.next_id, options),
                };
                provider.sets = vec![name.clone()];
                state.providers.push(provider);
            }
        }
        drop(state);
        self.inner.applied.notify_one();
    }

    fn start(&self, next_id: &mut u64, options: Options) -> Provider {
        let id = *next_id;
        *next_id += 1;
        let (groups, running) = match &options {
            Options::Static(groups) => {
                let groups = static_targets::groups(groups);
                (groups.into_iter().map(Arc::new).collect(), None)
            }
            Options::File(file) => {
                let (sender, stop) = watch::channel(());
                let report = Report { inner: Arc::downgrade(&self.inner), id };
                let (metrics, clock) = (self.inner.metrics.clone(), Arc::clone(&self.inner.clock));
                self.inner.runtime.spawn(file::run(file.clone(), report, stop, metrics, clock));
                (Vec::new(), Some(sender))
            }
        };
        let has_reported = running.is_none();
        let sets = Vec::new();
        Provider { id, options, sets, groups, has_reported, _running: running }
    }
}

/// Where a provider tells what it has found.
pub(super) struct Report {
    inner: Weak<Inner>,
    id: u64,
}

impl Report {
    /// Replaces all groups of this provider.
    pub(super) fn replace(&self, groups: Vec<TargetGroup>) {
        let Some(inner) = self.inner.upgrade() else { return };
        inner.metrics.received_updates.inc();
        let mut state = inner.state.lock();
        let Some(provider) = state.providers.iter_mut().find(|own| own.id == self.id) else {
            return;
        };
        let first = !std::mem::replace(&mut provider.has_reported, true);
        let is_same = provider.groups.len() == groups.len()
            && provider.groups.iter().zip(&groups).all(|(old, new)| **old == *new);
        if is_same && !first {
            return;
        }
        provider.groups = groups.into_iter().map(Arc::new).collect();
        drop(state);
        inner.changed.notify_one();
    }
}

impl Inner {
    fn all_have_reported(&self) -> bool {
        self.state.lock().providers.iter().all(|provider| provider.has_reported)
    }

    fn send(&self) {
        let mut sets = TargetSets::new();
        let state = self.state.lock();
        for name in &state.sets {
            let providers = state.providers.iter().filter(|own| own.sets.contains(name));
            let groups: Vec<_> = providers.flat_map(|own| own.groups.iter().cloned()).collect();
            self.metrics.set_targets(name, groups.iter().map(|group| group.targets.len()).sum());
            sets.insert(name.clone(), groups);
        }
        drop(state);
        self.metrics.updates.inc();
        self.sender.send_replace(Arc::new(sets));
    }
}

/// Publishes after changes, until the manager is gone.
async fn publish(inner: Weak<Inner>) {
    /// How often a task without work looks whether its manager is gone.
    const LOOK: Duration = Duration::from_mins(1);
    let mut next_publication = Instant::now();
    loop {
        let Some(own) = inner.upgrade() else { return };
        let mut is_urgent = false;
        tokio::select! {
            () = own.applied.notified() => is_urgent = true,
            () = own.changed.notified() => {}
            () = tokio::time::sleep(LOOK) => continue,
        }
        let deadline = Instant::now() + FIRST_REPORT_TIMEOUT;
        while is_urgent && !own.all_have_reported() {
            tokio::select! {
                () = own.changed.notified() => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        if !is_urgent && Instant::now() < next_publication {
            own.metrics.updates_delayed.inc();
            tokio::select! {
                () = tokio::time::sleep_until(next_publication) => {}
                // Taken as handled: what follows publishes everything.
                () = own.applied.notified() => {}
            }
        }
        own.send();
        next_publication = Instant::now() + own.publish_interval;
    }
}

#[cfg(test)]
mod tests;
