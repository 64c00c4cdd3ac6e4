//! Outgoing HTTP shared by scraping, notifiers and receivers: TLS, credentials, proxies.
