//! Identity of a series across log files and segments: a keyed 128-bit hash of its labels.
//!
//! The canonical form of a label set is each name and each value, in order of names, each followed
//! by the byte 0xFF (which no UTF-8 text contains). The hash is SipHash-1-3 with 128 bits of
//! output; its key is drawn when a data directory is made and lives in the manifest, so a sender
//! cannot make series collide.

use crate::model::labels::Labels;
use crate::storage::append::SeriesKey;

/// Ends each name and each value.
pub const END: u8 = 0xff;

/// Key of the hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub u64, pub u64);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn finish(&mut self) -> u64 {
        for _ in 0..3 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

impl HashKey {
    /// The fingerprint of a label set in canonical form. Never zero.
    pub fn fingerprint(self, canonical: &[u8]) -> u128 {
        let mut sip = Sip {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
        };
        let (words, tail) = canonical.as_chunks::<8>();
        for word in words {
            sip.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        sip.word(u64::from_le_bytes(last) | (canonical.len() as u64) << 56);
        sip.v2 ^= 0xee;
        let low = sip.finish();
        sip.v1 ^= 0xdd;
        let high = sip.finish();
        (u128::from(high) << 64 | u128::from(low)).max(1)
    }
}

/// Appends the canonical form of a label set.
pub fn push_canonical(series: SeriesKey<'_>, out: &mut Vec<u8>) {
    let mut push = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        out.push(END);
        out.extend_from_slice(value.as_bytes());
        out.push(END);
    };
    match series {
        SeriesKey::Labels(labels) => labels.iter().for_each(|(name, value)| push(name, value)),
        SeriesKey::Pairs(pairs) => pairs.iter().for_each(|(name, value)| push(name, value)),
    }
}

/// Whether this is the canonical form of a label set; found out without making another.
pub fn is_canonical_of(canonical: &[u8], series: SeriesKey<'_>) -> bool {
    let mut rest = canonical;
    let mut strip = |name: &str, value: &str| {
        for text in [name, value] {
            match rest.strip_prefix(text.as_bytes()).map(<[u8]>::split_first) {
                Some(Some((&END, after))) => rest = after,
                _ => return false,
            }
        }
        true
    };
    let is_prefix = match series {
        SeriesKey::Labels(labels) => labels.iter().all(|(name, value)| strip(name, value)),
        SeriesKey::Pairs(pairs) => pairs.iter().all(|(name, value)| strip(name, value)),
    };
    is_prefix && rest.is_empty()
}

/// The order of two label sets in canonical form: as [`Labels`] are ordered.
pub fn compare_canonical(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let same = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    // The end of a text comes before any letter.
    let rank = |byte: &u8| byte.wrapping_add(1);
    a[same..].iter().map(rank).cmp(b[same..].iter().map(rank))
}

/// The label set of a canonical form; `None` when it is none (damaged bytes).
pub fn parse_canonical(canonical: &[u8]) -> Option<Labels> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut rest = canonical;
    while !rest.is_empty() {
        let name = text(&mut rest)?;
        let value = text(&mut rest)?;
        let ordered = pairs.last().is_none_or(|(last, _)| *last < name);
        if value.is_empty() || !ordered {
            return None;
        }
        pairs.push((name, value));
    }
    Some(Labels::from_sorted(pairs))
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = memchr::memchr(END, rest)?;
    let (text, after) = rest.split_at_checked(end)?;
    *rest = after.get(1..)?;
    std::str::from_utf8(text).ok()
}

/// The canonical form of a label set.
#[cfg(test)]
pub fn canonical(labels: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    push_canonical(SeriesKey::Labels(labels), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_depends_on_key_and_every_label() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "api")]);
        let bytes = canonical(&labels);
        let key = HashKey(1, 2);
        assert_eq!(key.fingerprint(&bytes), key.fingerprint(&bytes));
        assert_ne!(key.fingerprint(&bytes), HashKey(1, 3).fingerprint(&bytes));
        assert_ne!(key.fingerprint(&bytes), key.fingerprint(&bytes[..bytes.len() - 1]));
    }

    #[test]
    fn damaged_forms_are_refused() {
        for bad in [&b"a"[..], b"a\xff", b"a\xffb", b"a\xff\xff", b"b\xff1\xffa\xff1\xff"] {
            assert!(parse_canonical(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_form_round_trips(
            a in prop::collection::btree_map("[a-c\u{0}é]{0,2}", "[a-b\u{0}ü]{1,2}", 0..3),
        ) {
            let labels = Labels::from_pairs(a);
            prop_assert_eq!(parse_canonical(&canonical(&labels)).unwrap(), labels);
        }

        #[test]
        fn forms_are_ordered_as_labels(
            a in prop::collection::btree_map("[a-c\u{0}é\u{7f}]{0,9}", "[a-b\u{0}\u{10ffff}]{1,9}", 0..4),
            b in prop::collection::btree_map("[a-c\u{0}é\u{7f}]{0,9}", "[a-b\u{0}\u{10ffff}]{1,9}", 0..4),
            common in 0_usize..4,
        ) {
            let shared = a.iter().take(common).chain(&b);
            let (a, b) = (Labels::from_pairs(&a), Labels::from_pairs(shared));
            prop_assert!(is_canonical_of(&canonical(&a), SeriesKey::Labels(&a)));
            prop_assert_eq!(is_canonical_of(&canonical(&a), SeriesKey::Labels(&b)), a == b);
            prop_assert_eq!(compare_canonical(&canonical(&a), &canonical(&b)), a.cmp(&b));
        }
    }
}
