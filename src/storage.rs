//! The time-series store: rows of groups in log files, sealed into segments, named by a manifest.
//!
//! Writers use [`append::Append`], readers [`select::Select`]; everything else is behind them.

pub mod append;
pub mod select;
