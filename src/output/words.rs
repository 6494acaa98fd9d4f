//! Text looked at eight bytes at once, in plain arithmetic.
//!
//! All output passes these loops, and the program is compiled for size, without vector instructions.

/// The bytes of a word.
pub const WORD: usize = size_of::<u64>();

/// The high bit of each byte.
pub const HIGH_BITS: u64 = every(0x80);

const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; WORD])
}

/// The bytes of `text` in words, each with the place of its first byte; the last one is filled up with blanks.
pub fn words(text: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    let (words, rest) = text.as_chunks::<WORD>();
    let mut last = [b' '; WORD];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().copied().chain([last]).enumerate().map(|(index, word)| (index * WORD, u64::from_ne_bytes(word)))
}

/// Whether all bytes of `word` are printable ASCII, as they most often are; cheaper than to ask which are not.
pub fn is_plain(word: u64) -> bool {
    // A byte of ASCII gets its high bit by the subtraction if it is a control character, by the addition if it is DEL.
    (word.wrapping_sub(every(b' ')) | word.wrapping_add(every(1)) | word) & HIGH_BITS == 0
}

/// The high bits of those bytes of `word` that are less than `limit`, which is ASCII.
pub fn below(word: u64, limit: u8) -> u64 {
    !(((word & !HIGH_BITS) + every(0x80 - limit)) | word) & HIGH_BITS
}

/// The high bits of those bytes of `word` that are `byte`.
pub fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ every(byte), 1)
}

/// How many lines end in `text`.
pub fn count_line_feeds(text: &[u8]) -> usize {
    // Each byte of a sum counts for itself, which it can up to 255.
    let sums = |part| words(part).fold(0, |sums, (_, word)| sums + (equal(word, b'\n') >> 7));
    let count = |part| sums(part).to_ne_bytes().map(usize::from).iter().sum::<usize>();
    text.chunks(usize::from(u8::MAX - 1) * WORD).map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_looked_at_by_itself() {
        for (byte, other, limit) in (0..=255).flat_map(|byte| [0, 9, 32, 127, 128, 255].map(|n| (byte, n, n.min(128))))
        {
            let word = u64::from_ne_bytes([byte, other, 0xff, byte, 0, other, byte, 0x80]);
            let flags =
                |is: &dyn Fn(u8) -> bool| u64::from_ne_bytes(word.to_ne_bytes().map(|b| if is(b) { 0x80 } else { 0 }));
            assert_eq!(below(word, limit), flags(&|b| b < limit), "{word:x} below {limit}");
            assert_eq!(equal(word, other), flags(&|b| b == other), "{word:x} equal {other}");
            assert_eq!(is_plain(word & !HIGH_BITS), flags(&|b| !(b' '..0x7f).contains(&(b & 0x7f))) == 0, "{word:x}");
        }
    }

    #[test]
    fn line_feeds_are_counted_however_many_there_are() {
        for (lines, filler) in (0..4000).step_by(37).flat_map(|lines| [0, 1, 7, 8, 100].map(|filler| (lines, filler))) {
            let text = format!("{}x", format!("{}\n", "y".repeat(filler)).repeat(lines));
            assert_eq!(count_line_feeds(text.as_bytes()), lines, "{filler} bytes each");
        }
    }

    #[test]
    fn all_bytes_come_in_words_and_the_last_is_filled_up() {
        let text = b"0123456789";
        let all: Vec<(usize, [u8; WORD])> = words(text).map(|(at, word)| (at, word.to_ne_bytes())).collect();
        assert_eq!(all, [(0, *b"01234567"), (8, *b"89      ")]);
    }
}
