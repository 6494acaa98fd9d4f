//! What a tool says on standard error. It is held in protected memory until the answer is known,
//! because a script that traces itself says the answer there too, and shown without it.

use std::str;

use super::REDACTED_MIN;
use crate::error::printable;
use crate::sys::{Arena, Block, MemoryError};

/// The most bytes kept. Beyond them the oldest lines go.
const HELD_MAX: usize = 8 * 1024;

/// The most characters of a line that are shown.
const LINE_MAX: usize = 200;

pub(super) struct Words {
    held: Block,
    len: usize,
    /// The beginning was thrown away, and perhaps only a part of a line.
    is_cut: bool,
}

impl Words {
    pub fn new(arena: &'static Arena) -> Result<Words, MemoryError> {
        Ok(Words { held: arena.block(HELD_MAX)?, len: 0, is_cut: false })
    }

    /// Where the next bytes are to be read to. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.len == HELD_MAX {
            self.held.copy_within(HELD_MAX / 2.., 0);
            self.len = HELD_MAX / 2;
            self.is_cut = true;
        }
        &mut self.held[self.len..]
    }

    /// Takes in the first `count` bytes of `space()` and returns them.
    pub fn hear(&mut self, count: usize) -> &[u8] {
        let start = self.len;
        self.len = (start + count).min(HELD_MAX);
        &self.held[start..self.len]
    }

    /// Whether it is in the middle of a line.
    pub fn ends_within_line(&self) -> bool {
        self.held[..self.len].last().is_some_and(|&byte| byte != b'\n')
    }

    /// The lines with anything on them, fit to be shown, with `marker` in place of `answer` and of
    /// each line of it.
    pub fn lines(&self, answer: &[u8], marker: &str) -> Vec<String> {
        let lines = self.held[..self.len].split(|&byte| byte == b'\n' || byte == b'\r');
        // The rest of a line that was cut may be the rest of an answer.
        let whole = lines.skip(usize::from(self.is_cut));
        let shown = whole.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).map(|line| {
            let line = without(line, answer, marker);
            printable(&line).chars().take(LINE_MAX).collect()
        });
        shown.collect()
    }
}

fn without(line: &[u8], answer: &[u8], marker: &str) -> String {
    let parts = answer.split(|&byte| byte == b'\n' || byte == b'\r').chain([answer]).map(<[u8]>::trim_ascii);
    let mut hidden = vec![false; line.len()];
    for part in parts.filter(|part| part.len() >= REDACTED_MIN) {
        for (at, _) in line.windows(part.len()).enumerate().filter(|(_, text)| *text == part) {
            hidden[at..at + part.len()].fill(true);
        }
    }
    let mut shown = String::new();
    let mut at = 0;
    for run in hidden.chunk_by(|one, next| one == next) {
        match run[0] {
            true => shown.push_str(marker),
            false => shown.push_str(&String::from_utf8_lossy(&line[at..at + run.len()])),
        }
        at += run.len();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Protection, protect};

    fn lines(said: &[u8], answer: &[u8]) -> Vec<String> {
        let mut words = Words::new(protect(Protection::Locked).expect("locked memory").arena).expect("room");
        for part in said.chunks(1000) {
            for part in [&part[..part.len() / 2], &part[part.len() / 2..]] {
                let space = words.space();
                let count = part.len().min(space.len());
                space[..count].copy_from_slice(&part[..count]);
                assert_eq!(words.hear(count), &part[..count]);
            }
        }
        words.lines(answer, "[secret vault]")
    }

    #[test]
    fn the_answer_and_each_line_of_it_are_not_shown() {
        let said = b"+ echo correct horse\r\n\nsecond: battery\x1bstaple correct horse.";
        let expected = ["+ echo [secret vault]", "second: battery\\u{1b}staple [secret vault]."];
        assert_eq!(lines(said, b"correct horse"), expected);
        assert_eq!(lines(b"a battery\nb", b"correct\nbattery \n"), ["a [secret vault]", "b"]);
        assert_eq!(lines(b"short: horse", b"horse"), ["short: horse"]);
        // Both cover what they share.
        assert_eq!(lines(b"x correct horse battery y", b"correct horse\nhorse battery"), ["x [secret vault] y"]);
    }

    #[test]
    fn of_too_much_the_last_lines_are_kept() {
        let said = [b"correct horse ".repeat(800), b"\nlast words".to_vec()].concat();
        assert_eq!(lines(&said, b"correct horse"), ["last words"]);
        assert_eq!(lines(&b"correct horse".repeat(800), b"correct horse battery"), [] as [&str; 0]);
    }
}
