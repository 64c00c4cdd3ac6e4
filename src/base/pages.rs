//! Memory for large tables.
#![expect(unsafe_code, reason = "what the system may do with memory has no safe interface")]

/// The system's larger pages.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Makes room for `additional` items, in large pages where the system has them: with small ones a
/// table that is filled for the first time spends half of that on page faults.
pub fn reserve_large<T>(table: &mut Vec<T>, additional: usize) {
    table.reserve_exact(additional);
    let free = table.spare_capacity_mut();
    let bytes = size_of_val(free);
    let start = free.as_mut_ptr().cast::<u8>();
    let offset = start.align_offset(LARGE_PAGE_BYTES);
    let whole = bytes.saturating_sub(offset) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
    if whole == 0 {
        return;
    }
    // SAFETY: `offset..offset + whole` is within the allocation, and the advice changes nothing that
    // a program can see. A system that does not take it goes on as before.
    let _ = unsafe { libc::madvise(start.add(offset).cast(), whole, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_room_and_what_was_in_it() {
        for (len, additional) in [(0, 0), (3, 5), (0, 1 << 20), (1000, 3 << 20), (1, 77_777)] {
            let mut table: Vec<u64> = (0..len).collect();
            reserve_large(&mut table, additional);
            assert!(table.len() + additional <= table.capacity());
            assert!(table.iter().copied().eq(0..len));
            table.extend(len..len + additional as u64);
            assert!(table.iter().copied().eq(0..len + additional as u64));
        }
    }
}
