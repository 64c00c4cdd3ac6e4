//! Runs queries: limits, deadline, cancellation, results.
