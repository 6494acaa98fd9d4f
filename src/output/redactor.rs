//! Raw output in, finished lines out: the buffer that a pipe is read into, and the replacing of secrets.
//!
//! The buffer lies in protected memory and every byte of it is wiped once it has been dealt with. What
//! may be the beginning of a secret stays in it until the next bytes decide, so it grows with the longest one.

use std::sync::Arc;

use zeroize::Zeroize;

use super::lines::Lines;
use super::patterns::{Hit, Patterns};
use crate::sys::{Arena, Block};

/// Room for one read: little while a command is silent, since every running one has a buffer, and as much
/// as a pipe holds when it is not.
const ROOM_MIN: usize = 4 * 1024;
const ROOM_MAX: usize = 64 * 1024;

/// So many small reads in a row make a command silent again.
const QUIET_READS: u32 = 64;

/// One command's output on its way to being shown.
pub struct Redactor {
    arena: &'static Arena,
    patterns: Arc<Patterns>,
    buffer: Buffer,
    /// How much of the buffer waits for what follows.
    held: usize,
    /// How much of that a marker stands for already, and which secret's.
    hidden: usize,
    last: usize,
    lines: Lines,
    withheld: bool,
    room: usize,
    quiet_reads: u32,
}

impl Redactor {
    /// For the output of one command; a command's two streams share one only if they share a pipe.
    pub fn new(arena: &'static Arena, patterns: Arc<Patterns>) -> Redactor {
        Redactor {
            arena,
            patterns,
            buffer: Buffer::new(arena, ROOM_MIN),
            held: 0,
            hidden: 0,
            last: 0,
            lines: Lines::default(),
            withheld: false,
            room: ROOM_MIN,
            quiet_reads: 0,
        }
    }

    /// Where the next bytes are to be read to. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        let free = self.buffer.bytes().len() - self.held;
        if free < self.room / 2 || free > self.room * 2 {
            self.resize(free);
        }
        &mut self.buffer.bytes_mut()[self.held..]
    }

    /// Takes in the first `count` bytes of `space()` and hands the lines that are now complete to `sink`: one or
    /// more at a time, each with a line feed at its end.
    pub fn advance(&mut self, count: usize, sink: &mut impl FnMut(&str)) {
        let free = self.buffer.bytes().len() - self.held;
        let count = count.min(free);
        self.adapt(count, free);
        self.held += count;
        self.release(false, sink);
    }

    /// Hands over what is left, a last line without a line ending too.
    pub fn finish(mut self, sink: &mut impl FnMut(&str)) {
        self.release(true, sink);
        self.lines.finish(sink);
    }

    /// From now on looks for `patterns` instead, and lets go of the old ones.
    pub fn look_for(&mut self, patterns: Arc<Patterns>) {
        self.patterns = patterns;
    }

    /// From now on shows nothing, because the secrets to look for are gone: one line says so. Lets go of them.
    pub fn withhold(&mut self, sink: &mut impl FnMut(&str)) {
        if self.withheld {
            return;
        }
        self.withheld = true;
        self.look_for(Arc::new(Patterns::none()));
        self.lines = Lines::default();
        self.release(true, sink);
        sink("[output withheld until this command ends: the secrets to look for in it are wiped]\n");
    }

    /// Replaces the secrets in what is held, passes on what is decided and wipes it.
    fn release(&mut self, at_end: bool, sink: &mut impl FnMut(&str)) {
        let decided = if self.withheld { self.held } else { self.redact(at_end, sink) };
        let held = self.held;
        let buffer = self.buffer.bytes_mut();
        buffer.copy_within(decided..held, 0);
        self.held = held - decided;
        buffer[self.held..held].fill(0);
    }

    /// Returns how many bytes are decided. Matches that overlap hide all that any of them covers.
    fn redact(&mut self, at_end: bool, sink: &mut impl FnMut(&str)) -> usize {
        let text = &self.buffer.bytes()[..self.held];
        // Up to here `text` has been passed on, as it is or as a marker.
        let mut done = self.hidden;
        let mut from = 0;
        let decided = loop {
            let (start, end, secret) = match self.patterns.find(text, from, at_end) {
                Hit::Match { start, end, secret } => (start, end, secret),
                Hit::Begun { start } => break start,
                Hit::Nothing => break text.len(),
            };
            from = start + 1;
            if start >= done {
                self.lines.push(&text[done..start], sink);
            }
            if start >= done || (end > done && secret != self.last) {
                self.lines.push_marker(self.patterns.name(secret));
                self.last = secret;
            }
            done = done.max(end);
        };
        if done < decided {
            self.lines.push(&text[done..decided], sink);
            done = decided;
        }
        self.hidden = done - decided;
        decided
    }

    /// Learns from a read of `count` bytes into `free` how much room the next one should have.
    fn adapt(&mut self, count: usize, free: usize) {
        if count == free {
            self.room = (self.room * 4).min(ROOM_MAX);
        }
        self.quiet_reads = if count < ROOM_MIN { self.quiet_reads + 1 } else { 0 };
        if self.quiet_reads >= QUIET_READS {
            self.quiet_reads = 0;
            self.room = ROOM_MIN;
        }
    }

    /// Moves what is held to a buffer with `room` behind it; rather keeps a small protected one than
    /// take a large one that is not.
    fn resize(&mut self, free: usize) {
        let mut larger = Buffer::new(self.arena, self.held + self.room);
        if matches!(larger, Buffer::Heap(_)) && matches!(self.buffer, Buffer::Protected(_)) && free >= ROOM_MIN / 2 {
            self.room = free;
            return;
        }
        larger.bytes_mut()[..self.held].copy_from_slice(&self.buffer.bytes()[..self.held]);
        self.buffer = larger;
    }
}

/// Memory that is wiped when dropped: protected, or the heap's where the limit on locked memory is too small.
enum Buffer {
    Protected(Block),
    Heap(WipedBytes),
}

struct WipedBytes(Box<[u8]>);

impl Drop for WipedBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Buffer {
    fn new(arena: &'static Arena, len: usize) -> Buffer {
        match arena.block(len) {
            Ok(block) => Buffer::Protected(block),
            Err(_) => Buffer::Heap(WipedBytes(vec![0; len].into_boxed_slice())),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Buffer::Protected(block) => block,
            Buffer::Heap(bytes) => &bytes.0,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Protected(block) => block,
            Buffer::Heap(bytes) => &mut bytes.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Protection, protect};

    fn redactor() -> Redactor {
        Redactor::new(protect(Protection::Locked).expect("locked memory").arena, Arc::new(Patterns::none()))
    }

    fn print(redactor: &mut Redactor, count: usize) {
        redactor.space()[..count].fill(b'x');
        redactor.advance(count, &mut |_| {});
    }

    #[test]
    fn what_was_dealt_with_is_wiped_on_the_heap_too() {
        let mut redactor = redactor();
        print(&mut redactor, 100);
        assert!(redactor.buffer.bytes().iter().all(|&byte| byte == 0));
        redactor.buffer = Buffer::Heap(WipedBytes(vec![0; ROOM_MIN].into()));
        print(&mut redactor, 100);
        assert!(redactor.buffer.bytes().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_buffer_grows_when_output_is_heavy_and_shrinks_when_it_is_not() {
        let mut redactor = redactor();
        assert_eq!(redactor.space().len(), ROOM_MIN);
        for _ in 0..10 {
            let all = redactor.space().len();
            print(&mut redactor, all);
        }
        assert_eq!(redactor.space().len(), ROOM_MAX);
        for _ in 0..QUIET_READS {
            print(&mut redactor, 80);
        }
        assert_eq!(redactor.space().len(), ROOM_MIN);
    }
}
