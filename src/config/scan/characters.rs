//! What stands at the place that the walk has come to, character by character, and how it goes on.

use super::Scanner;
use crate::config::scalar::ordinary_length;

impl Scanner<'_> {
    pub fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.index + ahead).copied()
    }

    pub fn is_blank(&self) -> bool {
        matches!(self.peek(0), Some(b' ' | b'\t'))
    }

    /// The length of the line break at hand, 0 if there is none.
    pub fn break_length(&self, ahead: usize) -> usize {
        let rest = self.bytes.get(self.index + ahead..).unwrap_or(&[]);
        match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            [0xC2, 0x85, ..] => 2,
            [0xE2, 0x80, 0xA8 | 0xA9, ..] => 3,
            _ => 0,
        }
    }

    pub fn is_break_or_end(&self) -> bool {
        self.index >= self.bytes.len() || self.break_length(0) > 0
    }

    pub fn is_blank_or_end(&self, ahead: usize) -> bool {
        match self.peek(ahead) {
            None | Some(b' ' | b'\t') => true,
            Some(_) => self.break_length(ahead) > 0,
        }
    }

    /// Steps over one character that is no line break.
    pub fn skip(&mut self) {
        let mut next = self.index + 1;
        while self.bytes.get(next).is_some_and(|byte| byte & 0xC0 == 0x80) {
            next += 1;
        }
        if self.is_control() {
            self.refuse("a control character", Some("write it as an escape such as \"\\e\" in double quotes"));
        }
        self.index = next.min(self.bytes.len());
        self.column += 1;
    }

    /// What libyaml's reader refuses, besides what cannot be in a `str`.
    fn is_control(&self) -> bool {
        match self.bytes[self.index] {
            b'\t' | b'\n' | b'\r' => false,
            0..=0x1F | 0x7F => true,
            0xC2 => matches!(self.peek(1), Some(0x80..=0x84 | 0x86..=0x9F)),
            0xEF => self.peek(1) == Some(0xBF) && matches!(self.peek(2), Some(0xBE | 0xBF)),
            _ => false,
        }
    }

    pub fn skip_break(&mut self) {
        let length = self.break_length(0);
        if length > 0 {
            self.index += length;
            self.line += 1;
            self.column = 0;
        }
    }

    /// Steps over what most of a file is made of.
    pub fn skip_ordinary(&mut self) {
        let run = ordinary_length(&self.bytes[self.index..]);
        self.index += run;
        self.column += run;
    }

    pub fn skip_line(&mut self) {
        while !self.is_break_or_end() {
            self.skip();
            self.skip_ordinary();
        }
    }

    /// Steps over one character or one line break.
    pub fn skip_any(&mut self) {
        if self.break_length(0) > 0 {
            self.skip_break();
        } else if self.index < self.bytes.len() {
            self.skip();
        }
    }
}
