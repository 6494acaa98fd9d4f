//! What to look for in output, and a search fast enough for commands that print gigabytes.
//!
//! A pattern is a place in a secret, never a copy of it. The search looks at every fourth
//! three-byte piece of the text: any pattern has at least six bytes, so one such piece lies wholly
//! in its first six, and a small table tells whether and where. The tables are derived from the
//! secrets and therefore lie in protected memory too.

use std::ops::Range;
use std::sync::Arc;

use crate::secret::Secret;
use crate::sys::{Arena, Block, MemoryError};

/// The shortest text that counts as a secret. Shorter ones occur by chance.
pub const PATTERN_MIN: usize = 6;

/// Length of the pieces that the filter knows, and the distance between those looked at.
const PIECE: usize = 3;
const STRIDE: usize = PATTERN_MIN - PIECE + 1;

/// Sizes of the filter: it fits the first-level cache for a few secrets, and stays sparse for the
/// thousand lines of a long one.
const FILTER_MIN: usize = 4 * 1024;
const FILTER_MAX: usize = 64 * 1024;

/// The secrets of which output is kept clean. One for all that run at a time.
pub struct Patterns {
    secrets: Vec<(Arc<str>, Arc<Secret>)>,
    patterns: Vec<Pattern>,
    tables: Option<Tables>,
}

/// A part of a secret: all of it, or one of its lines.
#[derive(Clone, Copy)]
struct Pattern {
    secret: usize,
    start: usize,
    len: usize,
}

/// What the search found first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    Nothing,
    /// A pattern ends in the text; of those that begin here it is the longest.
    Match {
        start: usize,
        end: usize,
        secret: usize,
    },
    /// From here to its end the text is the beginning of a pattern; what follows decides.
    Begun {
        start: usize,
    },
}

impl Patterns {
    /// Looks for these secrets under these names, as a whole and line by line. Where two have the same
    /// text, the first one's name is used.
    pub fn new(arena: &'static Arena, secrets: Vec<(Arc<str>, Arc<Secret>)>) -> Result<Patterns, MemoryError> {
        let mut patterns = Vec::new();
        for (secret, (_, value)) in secrets.iter().enumerate() {
            let parts = parts(value.expose());
            patterns.extend(parts.into_iter().map(|part| Pattern { secret, start: part.start, len: part.len() }));
        }
        let mut all = Patterns { secrets, patterns, tables: None };
        if !all.patterns.is_empty() {
            all.fill_tables(Tables::new(arena, all.patterns.len())?);
        }
        Ok(all)
    }

    /// For when there are no secrets.
    pub fn none() -> Patterns {
        Patterns { secrets: Vec::new(), patterns: Vec::new(), tables: None }
    }

    /// The name to which `Hit::Match::secret` refers.
    pub fn name(&self, secret: usize) -> &str {
        &self.secrets[secret].0
    }

    /// The first hit in `text` that begins at `from` or later. `at_end` says that nothing follows
    /// the text; then nothing is left begun.
    pub fn find(&self, text: &[u8], from: usize, at_end: bool) -> Hit {
        let Some(tables) = &self.tables else { return Hit::Nothing };
        let mut sample = from + STRIDE - 1;
        while let Some((at, offsets)) = tables.next_sample(text, sample) {
            for offset in (0..STRIDE).rev().filter(|offset| offsets & (1 << offset) != 0) {
                let hit = self.hit_at(tables, text, at - offset, at_end);
                if hit != Hit::Nothing {
                    return hit;
                }
            }
            sample = at + STRIDE;
        }
        if at_end { Hit::Nothing } else { self.begun_in_tail(text, from) }
    }

    /// The longest pattern at `start`, once no longer one can follow.
    fn hit_at(&self, tables: &Tables, text: &[u8], start: usize, at_end: bool) -> Hit {
        let rest = &text[start..];
        let Some(prefix) = rest.first_chunk() else { return Hit::Nothing };
        let mut found = Hit::Nothing;
        let mut longest = 0;
        for pattern in tables.candidates(prefix).map(|index| self.patterns[index]) {
            let value = self.text_of(pattern);
            if rest.len() < value.len() {
                if !at_end && value.starts_with(rest) {
                    return Hit::Begun { start };
                }
            } else if value.len() > longest && rest.starts_with(value) {
                longest = value.len();
                found = Hit::Match { start, end: start + longest, secret: pattern.secret };
            }
        }
        found
    }

    /// The last bytes are fewer than the filter needs: they are compared with every pattern.
    fn begun_in_tail(&self, text: &[u8], from: usize) -> Hit {
        let first = text.len().saturating_sub(PATTERN_MIN - 1).max(from);
        let begun = |start: &usize| self.patterns.iter().any(|&part| self.text_of(part).starts_with(&text[*start..]));
        match (first..text.len()).find(begun) {
            Some(start) => Hit::Begun { start },
            None => Hit::Nothing,
        }
    }

    fn text_of(&self, pattern: Pattern) -> &[u8] {
        &self.secrets[pattern.secret].1.expose()[pattern.start..pattern.start + pattern.len]
    }

    /// Enters every pattern, and drops those whose text is there already.
    fn fill_tables(&mut self, mut tables: Tables) {
        let patterns = std::mem::take(&mut self.patterns);
        for pattern in patterns {
            let text = self.text_of(pattern);
            let Some(prefix) = text.first_chunk() else { continue };
            if tables.candidates(prefix).any(|index| self.text_of(self.patterns[index]) == text) {
                continue;
            }
            tables.enter(prefix, self.patterns.len());
            self.patterns.push(pattern);
        }
        self.tables = Some(tables);
    }
}

/// The parts of a value to look for: all of it and, if there are several, each of its lines, without
/// the blanks around them, which programs trim or add.
fn parts(value: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = trimmed(value, 0..value.len()).into_iter().collect();
    let mut start = 0;
    for line in value.split(|&byte| byte == b'\n' || byte == b'\r') {
        let range = start..start + line.len();
        start = range.end + 1;
        if !line.trim_ascii().is_empty() {
            parts.extend(trimmed(value, range));
        }
    }
    parts
}

/// `range` of `value` without blanks at its ends, or with them where the rest would be too short to tell.
fn trimmed(value: &[u8], range: Range<usize>) -> Option<Range<usize>> {
    let text = &value[range.clone()];
    let start = range.start + text.len() - text.trim_ascii_start().len();
    let inner = start..start + text.trim_ascii().len();
    [inner, range].into_iter().find(|range| range.len() >= PATTERN_MIN)
}

/// The search's tables, in protected memory.
struct Tables {
    /// By hash of a piece: bit n is set if a pattern has such a piece at offset n.
    filter: Block,
    filter_shift: u32,
    /// By hash of a pattern's first six bytes, with open addressing: 1 + its index, 0 where free.
    index: Block,
    index_shift: u32,
}

const SLOT: usize = size_of::<u32>();

impl Tables {
    fn new(arena: &'static Arena, patterns: usize) -> Result<Tables, MemoryError> {
        // One entry in sixteen, so that most text passes without a second look.
        let filter = (patterns * STRIDE * 16).next_power_of_two().clamp(FILTER_MIN, FILTER_MAX);
        let slots = (patterns * 2).next_power_of_two().max(64);
        Ok(Tables {
            filter: arena.block(filter)?,
            filter_shift: u32::BITS - filter.ilog2(),
            index: arena.block(slots * SLOT)?,
            index_shift: u64::BITS - slots.ilog2(),
        })
    }

    fn enter(&mut self, prefix: &[u8; PATTERN_MIN], index: usize) {
        for (offset, piece) in prefix.windows(PIECE).enumerate() {
            let place = self.filter_place(u32::from_le_bytes([piece[0], piece[1], piece[2], 0]));
            self.filter[place] |= 1 << offset;
        }
        let mut slot = self.first_slot(prefix);
        while self.entry(slot) != 0 {
            slot = self.slot_after(slot);
        }
        let entry = index as u32 + 1;
        self.index[slot * SLOT..][..SLOT].copy_from_slice(&entry.to_le_bytes());
    }

    /// The patterns that may begin with `prefix`.
    fn candidates(&self, prefix: &[u8; PATTERN_MIN]) -> impl Iterator<Item = usize> {
        let mut slot = self.first_slot(prefix);
        std::iter::from_fn(move || {
            let entry = self.entry(slot);
            slot = self.slot_after(slot);
            (entry as usize).checked_sub(1)
        })
    }

    /// The first piece at `at`, `at + STRIDE`, … that a pattern may have, and at which offsets.
    fn next_sample(&self, text: &[u8], mut at: usize) -> Option<(usize, u8)> {
        // Four at a time while there is text for them.
        while let Some(block) = text.get(at..).and_then(|rest| rest.first_chunk::<{ 4 * STRIDE }>()) {
            let offsets = [0, 1, 2, 3].map(|n| {
                let piece = [block[n * STRIDE], block[n * STRIDE + 1], block[n * STRIDE + 2], block[n * STRIDE + 3]];
                self.filter[self.filter_place(u32::from_le_bytes(piece))]
            });
            if offsets != [0; 4] {
                let n = offsets.iter().position(|&mask| mask != 0)?;
                return Some((at + n * STRIDE, offsets[n]));
            }
            at += 4 * STRIDE;
        }
        while let Some([first, second, third]) = text.get(at..at + PIECE) {
            let offsets = self.filter[self.filter_place(u32::from_le_bytes([*first, *second, *third, 0]))];
            if offsets != 0 {
                return Some((at, offsets));
            }
            at += STRIDE;
        }
        None
    }

    /// Where the filter keeps a piece; a fourth byte is ignored.
    fn filter_place(&self, piece: u32) -> usize {
        ((piece << 8).wrapping_mul(0x9E37_79B1) >> self.filter_shift) as usize
    }

    fn first_slot(&self, prefix: &[u8; PATTERN_MIN]) -> usize {
        let [a, b, c, d, e, f] = *prefix;
        let number = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.index_shift) as usize
    }

    fn slot_after(&self, slot: usize) -> usize {
        (slot + 1) & (self.index.len() / SLOT - 1)
    }

    fn entry(&self, slot: usize) -> u32 {
        self.index[slot * SLOT..].first_chunk().map_or(0, |entry| u32::from_le_bytes(*entry))
    }
}
