//! The sub-commands beside serving.
