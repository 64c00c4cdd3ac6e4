//! Reading a log file after a restart: which frames are whole, and what ends them.

use memchr::memmem;

use super::directory::Directory;
use super::format::{FILE_HEADER_BYTES, Frame, Record, read_frame, visit_records};

/// What lies behind the last whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: the file ends there or was never written further.
    Clean,
    /// A commit that was being written when power or process went: nobody was told it is safe.
    Torn {
        /// Where the last whole frame ends.
        offset_bytes: u64,
    },
    /// Bytes that were on disk for certain are not what was written.
    Corrupt {
        /// Where the last whole frame ends.
        offset_bytes: u64,
        /// What is wrong there.
        reason: &'static str,
    },
}

/// The whole frames at the beginning of a file, and what follows them. `closed_bytes` is the
/// length at which the manifest says the file was closed, if it says so: all of it was synced.
pub fn scan(file: &[u8], file_id: u64, closed_bytes: Option<u64>) -> (Vec<Frame>, Tail) {
    let closed = closed_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let readable = file.get(..closed.unwrap_or(file.len())).unwrap_or(file);
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = FILE_HEADER_BYTES;
    let reason = loop {
        // One that was closed and is shorter than it was has lost something.
        if closed.unwrap_or(file.len()) == at {
            break None;
        }
        let expected = frames.last().map(|frame| frame.sequence + 1);
        match read_frame(readable, at, file_id) {
            Err(reason) => break Some(reason),
            Ok(frame) if expected.is_some_and(|expected| frame.sequence != expected) => {
                break Some("frame is out of sequence");
            }
            Ok(frame) => {
                at = frame.end;
                frames.push(frame);
            }
        }
    };
    let offset_bytes = at as u64;
    let tail = match (reason, closed) {
        (None, _) => Tail::Clean,
        (Some(reason), Some(_)) => Tail::Corrupt { offset_bytes, reason },
        (Some(reason), None) => judge_tail(file, file_id, at, reason),
    };
    (frames, tail)
}

/// A tail is looked at in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;
/// So many pieces of zeros end the tail: what was written lies together, apart from what a power
/// cut took of the last second. Reading all of a preallocated file would take long.
const ZERO_PIECES_MAX: usize = 64;

/// What was written at the beginning of `rest`; beyond that there are zeros.
fn written(rest: &[u8]) -> &[u8] {
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    let (mut end, mut zeros) = (0, 0);
    for (index, piece) in rest.chunks(PIECE_BYTES).enumerate() {
        if *piece == ZEROS[..piece.len()] {
            zeros += 1;
            if zeros == ZERO_PIECES_MAX {
                break;
            }
        } else {
            end = index * PIECE_BYTES + piece.len();
            zeros = 0;
        }
    }
    rest.get(..end).unwrap_or(rest)
}

/// Looks for a later frame that knew the bytes at `at` to be on disk.
fn judge_tail(file: &[u8], file_id: u64, at: usize, reason: &'static str) -> Tail {
    let offset_bytes = at as u64;
    let rest = written(file.get(at..).unwrap_or(&[]));
    if rest.is_empty() {
        return Tail::Clean;
    }
    // The file id stands 8 bytes after the beginning of each frame.
    for found in memmem::find_iter(rest, &file_id.to_le_bytes()) {
        let Some(start) = found.checked_sub(8) else { continue };
        if let Ok(frame) = read_frame(file, at + start, file_id)
            && frame.durable_bytes > offset_bytes
        {
            return Tail::Corrupt { offset_bytes, reason };
        }
    }
    Tail::Torn { offset_bytes }
}

/// Notes where the rows and samples of a frame are. `bytes` begins `shift_bytes` into the file.
pub fn add_to_directory(
    directory: &mut Directory,
    bytes: &[u8],
    frame: &Frame,
    base_ms: i64,
    shift_bytes: u32,
) -> Result<(), &'static str> {
    visit_records(bytes, frame, base_ms, &mut |record| match record {
        Record::Members { group, series } => directory.add_members(group, &series),
        Record::Row { group, offset, row } => {
            directory.add_row(group, shift_bytes + offset, row.timestamp_ms)
        }
        Record::Loose { series, offset, timestamp_ms, .. } => {
            directory.add_loose(series, shift_bytes + offset, timestamp_ms);
            Ok(())
        }
        Record::Histogram { series, offset, timestamp_ms, .. } => {
            directory.add_histogram(series, shift_bytes + offset, timestamp_ms);
            Ok(())
        }
        Record::Starts { offset, start_ms, series } => {
            for series in series {
                directory.add_start(series, shift_bytes + offset, start_ms);
            }
            Ok(())
        }
        Record::Series { .. } | Record::Metadata { .. } | Record::Exemplar { .. } => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::format::{FileHeader, FrameWriter, Section, push_row};
    use super::*;
    use proptest::prelude::*;

    /// A file of frames, each with a row, and where they end. The k-th frame knows that those
    /// before the (k-1)-th are durable.
    fn file(count: usize) -> (Vec<u8>, Vec<usize>) {
        let header = FileHeader { file_id: 7, base_ms: 1_000, first_sequence: 1 };
        let mut bytes = header.encode().to_vec();
        let mut ends = vec![bytes.len()];
        let mut writer = FrameWriter::default();
        for index in 0..count {
            writer.clear();
            let out = writer.begin(Section::Rows);
            out.push(0);
            push_row(out, index as i64, 3, &[0b101], &[0b100], &[index as u64]);
            writer.end();
            let durable = ends[index.saturating_sub(1)] as u64;
            bytes.extend_from_slice(writer.finish(7, index as u64 + 1, durable));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn whole_files_are_read_to_the_end() {
        let (mut bytes, ends) = file(4);
        let len = bytes.len() as u64;
        assert_eq!(scan(&bytes, 7, Some(len)).1, Tail::Clean);
        // One that was closed with more than it has now was cut, be it between two frames.
        let (frames, tail) = scan(&bytes[..ends[3]], 7, Some(len));
        let offset_bytes = ends[3] as u64;
        assert!(matches!(tail, Tail::Corrupt { offset_bytes: own, .. } if own == offset_bytes));
        assert_eq!(frames.len(), 3);
        bytes.resize(bytes.len() + 100, 0);
        let (frames, tail) = scan(&bytes, 7, None);
        assert_eq!((frames.len(), tail), (4, Tail::Clean));
        assert_eq!(frames[3].end, ends[4]);
        assert_eq!(scan(&bytes, 7, Some(len)).0.len(), 4);
        let mut times = Vec::new();
        for frame in &frames {
            let visit = &mut |record: Record<'_>| {
                let Record::Row { row, .. } = record else { return Err("not a row") };
                times.push((row.timestamp_ms, row.value_bits(0)));
                Ok(())
            };
            visit_records(&bytes, frame, 1_000, visit).unwrap();
        }
        assert_eq!(times[3], (1_003, Some(3)));
    }

    #[test]
    fn damage_is_torn_or_corrupt_by_what_later_frames_knew() {
        let (bytes, ends) = file(5);
        let damaged = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at + 40] ^= 1;
            scan(&bytes, 7, None)
        };
        // The last frame (index 4) knows of everything before ends[3].
        for (index, end) in ends.iter().take(5).enumerate() {
            let (frames, tail) = damaged(*end);
            assert_eq!(frames.len(), index);
            let offset_bytes = *end as u64;
            let reason = "checksum of the frame does not match";
            let expected = match index {
                0..=2 => Tail::Corrupt { offset_bytes, reason },
                _ => Tail::Torn { offset_bytes },
            };
            assert_eq!(tail, expected, "frame {index}");
        }
        let mut closed = bytes.clone();
        closed[ends[4] + 40] ^= 1;
        let tail = scan(&closed, 7, Some(bytes.len() as u64)).1;
        assert!(matches!(tail, Tail::Corrupt { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn cut_and_flipped_bytes_never_panic_and_never_invent(
            cut in 0_usize..400, flips in prop::collection::vec((0_usize..400, 0_u8..8), 0..4),
        ) {
            let (mut bytes, _) = file(5);
            let whole = bytes.clone();
            bytes.truncate(cut.max(FILE_HEADER_BYTES));
            for (at, bit) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            let (frames, _) = scan(&bytes, 7, None);
            for frame in frames {
                // A frame that passes is one that was written, at its place.
                prop_assert_eq!(&bytes[frame.body_start..frame.end], &whole[frame.body_start..frame.end]);
                let _ = visit_records(&bytes, &frame, 0, &mut |_| Ok(()));
            }
        }

        #[test]
        fn records_of_any_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let frame = Frame { sequence: 1, durable_bytes: 0, body_start: 0, end: body.len() };
            let _ = visit_records(&body, &frame, 0, &mut |_| Ok(()));
        }
    }
}
