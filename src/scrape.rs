//! Scraping: target pools, loops, parsing responses into appends, staleness.
