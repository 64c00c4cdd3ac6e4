//! Random numbers, real and seeded.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

/// A source of random bits; shared between threads.
pub trait Rng: Send + Sync + 'static {
    /// 64 uniformly distributed bits.
    fn next_u64(&self) -> u64;

    /// A random (version 4) UUID in its usual text form, as Alertmanager names silences.
    fn uuid(&self) -> String {
        let high = self.next_u64() & !0xf000 | 0x4000;
        let low = self.next_u64() & (u64::MAX >> 2) | 1 << 63;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

/// The operating system's generator, through a thread-local cryptographic generator.
#[derive(Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws OS randomness")]
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}

/// A generator whose whole sequence follows from its seed.
#[derive(Debug)]
pub struct SimRng {
    state: Mutex<StdRng>,
}

impl SimRng {
    /// The generator for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        self.state.lock().next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_sequence_and_uuids_have_their_form() {
        let (one, two) = (SimRng::new(7), SimRng::new(7));
        assert_eq!(one.next_u64(), two.next_u64());
        let id = one.uuid();
        assert_eq!(id, two.uuid());
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]));
    }
}
