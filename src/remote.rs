//! Samples pushed to us by remote write.
