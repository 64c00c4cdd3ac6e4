//! Wiring: builds every module from flags and configuration, reloads and shuts down.
