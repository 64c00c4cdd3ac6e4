//! Segments that say anything, with checksums that fit.

use super::format::{ENTRY_BYTES, FOOTER_BYTES, Footer, PAGE_BYTES};

/// Gives the bytes checksums that fit, as far as they look like a segment.
pub fn reseal(bytes: &mut [u8]) {
    let Some(footer_at) = bytes.len().checked_sub(FOOTER_BYTES) else { return };
    let (content, footer) = bytes.split_at_mut(footer_at);
    let Some(tables) = footer.first_chunk::<8>() else { return };
    let tables = usize::try_from(u64::from_le_bytes(*tables)).unwrap_or(usize::MAX);
    let Some((paged, rest)) = content.split_at_mut_checked(tables) else { return };
    let (pages, _) = paged.as_chunks::<PAGE_BYTES>();
    let last = &paged[pages.len() * PAGE_BYTES..];
    let pages = pages.iter().map(<[u8; PAGE_BYTES]>::as_slice);
    let pages = pages.chain((!last.is_empty()).then_some(last));
    let mut page_count = 0;
    for (page, place) in pages.zip(rest.as_chunks_mut::<4>().0) {
        *place = crc32c::crc32c(page).to_le_bytes();
        page_count += 1;
    }
    let sections_bytes = rest.len() - 4 * page_count;
    let mut sealed = Vec::new();
    Footer {
        tables_offset: tables as u64,
        page_count: page_count as u32,
        section_count: (sections_bytes / ENTRY_BYTES) as u32,
        tables_crc: crc32c::crc32c(rest),
    }
    .write(&mut sealed);
    footer.copy_from_slice(&sealed);
}
