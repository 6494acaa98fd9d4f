//! How many columns text takes on a terminal, and text folded to fit them.
//!
//! Nearly everything that is shown is ASCII. The last line of a command's output may be anything, so
//! East Asian scripts and emoji count as two columns and combining marks as none: the parts of
//! Unicode's EastAsianWidth.txt and of its nonspacing marks that people write.

use std::ops::RangeInclusive;

const NO_COLUMN: [RangeInclusive<u32>; 17] = [
    0x0300..=0x036f,
    0x0483..=0x0489,
    0x0591..=0x05bd,
    0x0610..=0x061a,
    0x064b..=0x065f,
    0x06d6..=0x06dc,
    0x0941..=0x0948,
    0x0e34..=0x0e3a,
    0x0e47..=0x0e4e,
    0x1ab0..=0x1aff,
    0x1dc0..=0x1dff,
    0x200b..=0x200f,
    0x202a..=0x202e,
    0x2060..=0x2064,
    0x20d0..=0x20ff,
    0xfe00..=0xfe0f,
    0xe0100..=0xe01ef,
];

const TWO_COLUMNS: [RangeInclusive<u32>; 17] = [
    0x1100..=0x115f,
    0x231a..=0x231b,
    0x23e9..=0x23ec,
    0x2705..=0x2705,
    0x2728..=0x2728,
    0x274c..=0x274e,
    0x2753..=0x2757,
    0x2e80..=0x303e,
    0x3041..=0x4dbf,
    0x4e00..=0xa4cf,
    0xac00..=0xd7a3,
    0xf900..=0xfaff,
    0xfe30..=0xfe6f,
    0xff00..=0xff60,
    0xffe0..=0xffe6,
    0x1f300..=0x1faff,
    0x20000..=0x3fffd,
];

fn columns_of(c: char) -> usize {
    let is_in = |ranges: &[RangeInclusive<u32>]| ranges.iter().any(|range| range.contains(&u32::from(c)));
    match c {
        ' '..='~' => 1,
        _ if is_in(&NO_COLUMN) => 0,
        _ if is_in(&TWO_COLUMNS) => 2,
        _ => 1,
    }
}

/// The columns that `text` takes.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// `text` in lines of at most `width` columns, broken at blanks where that is possible. Only the blanks at which
/// it is broken are left out.
pub fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for (index, word) in text.split(' ').enumerate() {
        let blank = usize::from(index > 0);
        if index > 0 && used + blank + columns(word) > width {
            lines.push(String::new());
            used = 0;
        } else if index > 0 {
            push(&mut lines, ' ');
            used += blank;
        }
        for c in word.chars() {
            let own = columns_of(c);
            if used > 0 && used + own > width {
                lines.push(String::new());
                used = 0;
            }
            push(&mut lines, c);
            used += own;
        }
    }
    lines
}

fn push(lines: &mut [String], c: char) {
    if let Some(last) = lines.last_mut() {
        last.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_folded_at_blanks() {
        assert_eq!(fold("rclone-config as command", 16), ["rclone-config as", "command"]);
        assert_eq!(fold("short", 16), ["short"]);
        assert_eq!(fold("", 16), [""]);
    }

    #[test]
    fn a_word_that_is_too_long_is_broken_and_nothing_is_lost() {
        assert_eq!(fold("a /usr/bin/restic", 8), ["a", "/usr/bin", "/restic"]);
        let long = "x".repeat(200);
        assert_eq!(fold(&long, 7).concat(), long);
        assert_eq!(fold("ab", 0), ["a", "b"]);
    }

    #[test]
    fn wide_characters_take_two_columns_and_marks_none() {
        assert_eq!(columns("数据"), 4);
        assert_eq!(columns("e\u{301}"), 1);
        assert_eq!(columns("✅ done 🎉"), 10);
        assert_eq!(fold("数据备份", 5), ["数据", "备份"]);
    }
}
