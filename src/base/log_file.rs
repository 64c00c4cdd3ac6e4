//! Files that lines are appended to for people and programs to read. Others may rename, cut or
//! remove them meanwhile; nothing is synced.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// An open log file.
#[derive(Debug)]
pub struct LogFile(OwnedFd);

impl LogFile {
    /// Opens a file for appending, and makes it when it is not there.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?))
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
