//! Formats in which samples arrive and leave: exposition text, remote write.
