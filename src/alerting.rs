//! The Alertmanager: routes, groups, inhibition, silences, notification log and receivers.
