//! Maps that survive when somebody cuts their file.
//!
//! Reading a page of a map that the file has no longer raises SIGBUS, which would end the process.
//! Here a handler puts zeros in place of the missing pages and marks the map; the read goes on
//! with zeros, and whoever reads asks [`Guarded::torn_at`] before trusting what it found. A bus
//! error anywhere else ends the process as it would have without the handler.
#![expect(unsafe_code, reason = "signal handlers and fixed maps have no safe interface")]

use std::io;
use std::mem;
use std::ops::Deref;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::Mmap;
use parking_lot::Mutex;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Maps at one time: as many as Linux allows a process.
const SLOTS_MAX: usize = 1 << 16;

/// Where a map is. The handler reads it without any lock.
struct Slot {
    /// 0: free.
    start: AtomicUsize,
    end: AtomicUsize,
    /// The lowest address that could not be read.
    torn_at: AtomicUsize,
}

/// Everything could be read.
const WHOLE: usize = usize::MAX;

/// A read-only map.
#[derive(Debug)]
pub struct Guarded {
    map: Mmap,
    slot: usize,
}

static SLOTS: [Slot; SLOTS_MAX] = [const {
    Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), torn_at: AtomicUsize::new(WHOLE) }
}; SLOTS_MAX];
/// Slots below this were used at some time.
static SLOTS_USED: AtomicUsize = AtomicUsize::new(0);
static SLOTS_FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
static HANDLER: Mutex<bool> = Mutex::new(false);
/// What did the work before.
static OLD: OnceLock<libc::sigaction> = OnceLock::new();

impl Guarded {
    /// Takes a map under guard.
    pub fn new(map: Mmap) -> io::Result<Self> {
        install()?;
        let slot = {
            let mut free = SLOTS_FREE.lock();
            free.pop().unwrap_or_else(|| SLOTS_USED.fetch_add(1, Ordering::AcqRel))
        };
        let Some(own) = SLOTS.get(slot) else {
            SLOTS_USED.fetch_sub(1, Ordering::AcqRel);
            return Err(io::Error::other("too many files are mapped"));
        };
        let start = map.as_ptr().addr();
        own.torn_at.store(WHOLE, Ordering::Release);
        own.end.store(start + map.len(), Ordering::Release);
        own.start.store(start, Ordering::Release);
        Ok(Self { map, slot })
    }

    /// From where on pages could not be read: what was read of them are zeros.
    pub fn torn_at(&self) -> Option<u64> {
        let torn_at = SLOTS[self.slot].torn_at.load(Ordering::Acquire);
        (torn_at != WHOLE).then(|| torn_at.saturating_sub(self.map.as_ptr().addr()) as u64)
    }
}

impl Deref for Guarded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The map itself goes after this.
        SLOTS[self.slot].start.store(0, Ordering::Release);
        SLOTS_FREE.lock().push(self.slot);
    }
}

/// Installs the handler once. Nothing is chained: the one before it (Rust's own looks for stack
/// overflows and resets the signal) comes back only when it is its turn.
fn install() -> io::Result<()> {
    let mut is_installed = HANDLER.lock();
    if *is_installed {
        return Ok(());
    }
    PAGE_BYTES.get_or_init(rustix::param::page_size);
    // SAFETY: all zeros is a valid `sigaction`, without flags and with an empty mask.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    new.sa_sigaction = on_bus_error as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: both point to live values; the handler only reads atomics and makes a system call,
    // which is allowed in a handler.
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const new, &raw mut old) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    OLD.get_or_init(|| old);
    *is_installed = true;
    Ok(())
}

extern "C" fn on_bus_error(
    _signal: libc::c_int,
    info: *const libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the system hands over a valid `siginfo_t`, and that of SIGBUS carries an address.
    let address = unsafe { (*info).si_addr() }.addr();
    if fill(address) {
        return;
    }
    // Not ours: the instruction is run again under the handler that was there before.
    match OLD.get() {
        // SAFETY: the action came from the system; setting it is allowed in a handler.
        Some(old) => unsafe { libc::sigaction(libc::SIGBUS, old, ptr::null_mut()) },
        // SAFETY: exiting at once is allowed in a handler.
        None => unsafe { libc::_exit(128 + libc::SIGBUS) },
    };
}

impl Slot {
    /// Where its map ends, if the address lies in it. A slot may be given to another map while it is
    /// looked at; then the start read before the end is not the one read after it.
    fn end_of(&self, address: usize) -> Option<usize> {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        let is_one = self.start.load(Ordering::Acquire) == start;
        (is_one && start != 0 && start <= address && address < end).then_some(end)
    }
}

/// Puts zeros in place of the pages from this address to the end of its map.
fn fill(address: usize) -> bool {
    let used = SLOTS_USED.load(Ordering::Acquire).min(SLOTS_MAX);
    let own = |slot: &'static Slot| slot.end_of(address).map(|end| (slot, end));
    let Some((slot, end)) = SLOTS[..used].iter().find_map(own) else { return false };
    let Some(page_bytes) = PAGE_BYTES.get() else { return false };
    let page = address / page_bytes * page_bytes;
    let len = end - page;
    slot.torn_at.fetch_min(page, Ordering::AcqRel);
    // SAFETY: the pages belong to a map that lives as long as its slot is taken, and the reader
    // that raised the signal holds it. Readers are given bytes, any of which is valid.
    let filled = unsafe {
        mmap_anonymous(
            ptr::with_exposed_provenance_mut(page),
            len,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::FIXED,
        )
    };
    filled.is_ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::base::disk::{Disk, OsDisk};

    const PAGES: usize = 8;

    fn write(path: &Path, page_bytes: usize) {
        let file = OsDisk.create(path).unwrap();
        for page in 0..PAGES {
            file.write_at(&vec![page as u8 + 1; page_bytes], (page * page_bytes) as u64).unwrap();
        }
    }

    /// What is cut reads as zeros, in any thread; the rest and other maps are as they were.
    #[test]
    fn a_map_whose_file_was_cut_reads_zeros_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let page_bytes = rustix::param::page_size();
        let whole = folder.path().join("whole");
        write(&whole, page_bytes);
        let other = OsDisk.map(&whole, (PAGES * page_bytes) as u64).unwrap();
        for kept in 0..PAGES {
            let path = folder.path().join(kept.to_string());
            write(&path, page_bytes);
            let map = Arc::new(OsDisk.map(&path, (PAGES * page_bytes) as u64).unwrap());
            OsDisk.open(&path).unwrap().set_len((kept * page_bytes) as u64).unwrap();
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let map = Arc::clone(&map);
                    std::thread::spawn(move || {
                        (0..PAGES).map(|page| map[page * page_bytes + 7]).collect::<Vec<u8>>()
                    })
                })
                .collect();
            let expected: Vec<u8> =
                (0..PAGES).map(|page| if page < kept { page as u8 + 1 } else { 0 }).collect();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), expected);
            }
            assert_eq!(map.torn_at(), Some((kept * page_bytes) as u64));
        }
        assert_eq!(other[PAGES * page_bytes - 1], PAGES as u8);
        assert!(!other.is_torn());
    }
}
