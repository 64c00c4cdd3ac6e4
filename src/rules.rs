//! Recording and alerting rules: loading, scheduled evaluation, alert state, restoration, and the queue to Alertmanagers.
