//! The head: what the newest commits are judged against and how they become frames.
//!
//! [`batch`] stages, [`judge`] decides which samples are taken, [`groups`] arranges them in rows
//! and [`commit`] writes the frame, with what [`starts`] has to say. [`limits`] keeps new series out. All but staging happens under
//! one short lock.

pub mod batch;
pub mod commit;
pub mod groups;
pub mod judge;
pub mod limits;
pub mod starts;
