//! Finding scrape targets: static lists and files.
