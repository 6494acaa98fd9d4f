//! Redacted bytes to lines that may be shown.
//!
//! A line ends with a line feed, a carriage return and a line feed, or a carriage return alone, so that each
//! update of a progress display is a line of its own and nothing is lost. A carriage return at the beginning
//! of a line ends nothing, because such displays often begin with one.

use std::fmt::Write as _;

use super::words::{HIGH_BITS, WORD, below, equal, is_plain, words};

/// The longest line, in bytes before escaping. What is longer is hardly meant to be read, and a command
/// that never ends a line must not fill the memory.
pub const LINE_MAX: usize = 16 * 1024;

#[derive(Default)]
pub struct Lines {
    /// The line that has not ended yet.
    partial: Vec<u8>,
    /// How many of its bytes were cut off.
    cut: u64,
    /// The last line ended with a carriage return, so a line feed that follows belongs to it.
    after_return: bool,
    /// Where lines are escaped.
    scratch: String,
}

impl Lines {
    /// Takes in bytes that need no redaction any more. Lines that may be shown as they are, as most may,
    /// are handed on together and without a copy.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(&str)) {
        let bytes = self.end_pending(bytes, sink);
        let text = valid_prefix(bytes);
        let whole = text.rfind('\n').map_or("", |last| &text[..=last]);
        if !whole.is_empty() && shows_as_it_is(whole) {
            sink(whole);
        } else {
            for line in whole.split_inclusive('\n') {
                if shows_as_it_is(line) { sink(line) } else { self.push_piece(line.as_bytes(), sink) }
            }
        }
        for piece in bytes[whole.len()..].split_inclusive(|&byte| byte == b'\n') {
            self.push_piece(piece, sink);
        }
    }

    /// Takes in the marker that stands for a secret. It is cut off whole or not at all.
    pub fn push_marker(&mut self, name: &str) {
        let marker = format!("[secret {name}]");
        self.after_return = false;
        if self.cut > 0 || self.partial.len() + marker.len() > LINE_MAX {
            self.cut += marker.len() as u64;
        } else {
            self.partial.extend_from_slice(marker.as_bytes());
        }
    }

    /// Ends a last line that has no line ending.
    pub fn finish(&mut self, sink: &mut impl FnMut(&str)) {
        if self.is_pending() {
            self.end_line(sink);
        }
    }

    /// Gives a line that has begun already what belongs to it, and returns the rest.
    fn end_pending<'a>(&mut self, bytes: &'a [u8], sink: &mut impl FnMut(&str)) -> &'a [u8] {
        if !self.is_pending() && !self.after_return {
            return bytes;
        }
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1);
        let (piece, rest) = bytes.split_at(end);
        self.push_piece(piece, sink);
        rest
    }

    /// Takes in a piece of a line, which has no line feed but at its end.
    fn push_piece(&mut self, piece: &[u8], sink: &mut impl FnMut(&str)) {
        let line = piece.strip_suffix(b"\n").unwrap_or(piece);
        let mut parts = line.split(|&byte| byte == b'\r');
        self.append(parts.next().unwrap_or_default());
        for part in parts {
            if self.is_pending() {
                self.end_line(sink);
                self.after_return = true;
            }
            self.append(part);
        }
        if line.len() < piece.len() && !std::mem::take(&mut self.after_return) {
            self.end_line(sink);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.after_return = false;
        let room = if self.cut > 0 { 0 } else { LINE_MAX - self.partial.len() };
        let (kept, rest) = bytes.split_at(room.min(bytes.len()));
        self.partial.extend_from_slice(kept);
        self.cut += rest.len() as u64;
    }

    fn is_pending(&self) -> bool {
        !self.partial.is_empty() || self.cut > 0
    }

    fn end_line(&mut self, sink: &mut impl FnMut(&str)) {
        if self.cut > 0 {
            // A character that was cut through is cut off.
            let whole = self.partial.utf8_chunks().last().map_or(0, |last| incomplete(last.invalid()));
            self.partial.truncate(self.partial.len() - whole);
            self.cut += whole as u64;
        }
        self.scratch.clear();
        escape(&self.partial, &mut self.scratch);
        if self.cut > 0 {
            let _ = write!(self.scratch, "… [cut, {} bytes more]", self.cut);
        }
        self.scratch.push('\n');
        sink(&self.scratch);
        self.partial.clear();
        self.cut = 0;
    }
}

/// How many bytes at the end of a text, where they are no character, may have begun one.
fn incomplete(invalid: &[u8]) -> usize {
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

/// The part of `bytes` before the first one that is no UTF-8.
fn valid_prefix(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()])).unwrap_or_default()
}

/// Whether `lines`, all of them whole, are short enough and have nothing that must be escaped.
fn shows_as_it_is(lines: &str) -> bool {
    let bytes = lines.as_bytes();
    let mut not_ascii = 0;
    let no_control = words(bytes).all(|(_, word)| {
        not_ascii |= word & HIGH_BITS;
        is_plain(word) || controls(word) == 0
    });
    if !no_control || (not_ascii != 0 && has_escaped_non_ascii(bytes)) {
        return false;
    }
    // Two halves with a line feed each have no line over the limit between them.
    bytes.len() <= LINE_MAX || bytes.chunks(LINE_MAX / 2).all(|half| half.contains(&b'\n'))
}

/// The high bits of those bytes of `word` that are ASCII and must be escaped.
fn controls(word: u64) -> u64 {
    (below(word, b' ') & !equal(word, b'\t') & !equal(word, b'\n')) | equal(word, 0x7f)
}

/// As `is_escaped`, for the characters outside of ASCII in UTF-8 that ends with a line feed.
fn has_escaped_non_ascii(bytes: &[u8]) -> bool {
    let is_escaped_at = |at: usize| match bytes.get(at..) {
        Some([0xc2, second, ..]) => *second < 0xa0,
        Some([0xd8, 0x9c, ..]) => true,
        Some([0xe2, 0x80, 0x8e | 0x8f | 0xa8..=0xae, ..]) => true,
        Some([0xe2, 0x81, 0xa6..=0xa9, ..]) => true,
        _ => false,
    };
    words(bytes).any(|(at, word)| {
        let may_begin = equal(word, 0xc2) | equal(word, 0xd8) | equal(word, 0xe2);
        may_begin != 0 && (at..at + WORD).any(is_escaped_at)
    })
}

/// Control characters but the tab, and what reorders or breaks a line of text without being seen.
fn is_escaped(c: char) -> bool {
    match c {
        '\t' => false,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    }
}

/// Appends `bytes` to `text`: what is not UTF-8 and ASCII control characters as `\x1b`, others as `\u{202e}`.
fn escape(bytes: &[u8], text: &mut String) {
    if let Ok(line) = std::str::from_utf8(bytes)
        && !line.contains(is_escaped)
    {
        return text.push_str(line);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                c if !is_escaped(c) => text.push(c),
                c if c.is_ascii() => escape_byte(c as u8, text),
                c => text.extend(c.escape_unicode()),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape_byte(byte, text));
    }
}

fn escape_byte(byte: u8, text: &mut String) {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    text.extend(['\\', 'x', digit(byte >> 4), digit(byte & 0xf)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_look_at_lines_agrees_with_the_slow_one_for_every_character() {
        for c in ('\0'..=char::MAX).filter(|&c| c != '\n') {
            assert_eq!(shows_as_it_is(&format!("{c}\n")), !is_escaped(c), "{c:?}");
        }
    }

    #[test]
    fn it_does_so_wherever_the_character_stands() {
        for (c, before) in ('\0'..'\u{2100}').filter(|&c| c != '\n').flat_map(|c| (1..18).map(move |n| (c, n))) {
            assert_eq!(shows_as_it_is(&format!("{:before$}{c}\n", "")), !is_escaped(c), "{c:?} after {before}");
        }
    }

    #[test]
    fn a_line_over_the_limit_is_cut_among_others_too_and_one_at_the_limit_is_not() {
        for (before, len) in
            [0, 1, 5000, LINE_MAX].into_iter().flat_map(|n| (LINE_MAX - 2..LINE_MAX + 3).map(move |m| (n, m)))
        {
            let text = format!("{}\n{}\nlast\n", "x".repeat(before), "y".repeat(len));
            let mut shown = String::new();
            Lines::default().push(text.as_bytes(), &mut |lines| shown.push_str(lines));
            let cut = format!("{}… [cut, {} bytes more]", "y".repeat(LINE_MAX), len.saturating_sub(LINE_MAX));
            let expected = if len > LINE_MAX { text.replace(&"y".repeat(len), &cut) } else { text };
            assert!(shown == expected, "{len} bytes after a line of {before}");
        }
    }
}
