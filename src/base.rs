//! The ground floor: what the operating system gives us, behind traits that a simulation can stand in for.
//!
//! Nothing above this layer reads the wall clock, touches a file or draws a random number except
//! through [`clock::Clock`], [`disk::Disk`] and [`rng::Rng`]. Self-metrics live here too, because
//! every layer reports some.

pub mod clock;
pub mod disk;
#[cfg(test)]
pub mod fuzz;
pub mod log_file;
pub mod metrics;
pub mod pages;
pub mod rng;
pub mod turns;
