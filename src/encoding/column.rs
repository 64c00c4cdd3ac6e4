//! Column chunks: runs of timestamps or values as compact, self-describing bytes.
