//! What to look for in output, and a search fast enough for commands that print gigabytes.
//!
//! A pattern is a place in a secret, never a copy of it. The search looks at every fourth
//! three-byte piece of the text: any pattern has at least six bytes, so one such piece lies wholly
//! in its first six, and a small table tells whether and where. Those that begin alike stand side by
//! side in order of their texts, so that very many take hardly longer than one. The tables are derived
//! from the secrets and therefore lie in protected memory too.

use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroize;

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
            let mut tables = Tables::new(arena, all.patterns.len())?;
            all.fill(&mut tables);
            all.tables = Some(tables);
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
        if at_end { Hit::Nothing } else { self.begun_in_tail(tables, text, from) }
    }

    /// The longest pattern at `start`, once no longer one can follow.
    fn hit_at(&self, tables: &Tables, text: &[u8], start: usize, at_end: bool) -> Hit {
        let rest = &text[start..];
        let Some(prefix) = rest.first_chunk() else { return Hit::Nothing };
        let Some(first) = tables.candidates(prefix).find(|&place| self.text_at(tables, place).starts_with(prefix))
        else {
            return Hit::Nothing;
        };
        let after = tables.place_of_first(first, |pattern| self.text_of(pattern) > rest);
        if !at_end && after < tables.places && self.text_at(tables, after).starts_with(rest) {
            return Hit::Begun { start };
        }
        // What begins `rest` stands before it in the order, a longer one behind a shorter one.
        let mut place = after.checked_sub(1).filter(|&place| place >= first);
        while let Some(at) = place {
            let value = self.text_at(tables, at);
            if rest.starts_with(value) {
                let secret = self.patterns[tables.pattern(at)].secret;
                return Hit::Match { start, end: start + value.len(), secret };
            }
            place = tables.outer(at);
        }
        Hit::Nothing
    }

    /// The last bytes are fewer than the filter needs: a pattern that they begin is looked for in the order.
    fn begun_in_tail(&self, tables: &Tables, text: &[u8], from: usize) -> Hit {
        let first = text.len().saturating_sub(PATTERN_MIN - 1).max(from);
        let begun = |start: &usize| {
            let tail = &text[*start..];
            let place = tables.place_of_first(0, |pattern| self.text_of(pattern) >= tail);
            place < tables.places && self.text_at(tables, place).starts_with(tail)
        };
        match (first..text.len()).find(begun) {
            Some(start) => Hit::Begun { start },
            None => Hit::Nothing,
        }
    }

    fn text_of(&self, pattern: usize) -> &[u8] {
        let Pattern { secret, start, len } = self.patterns[pattern];
        &self.secrets[secret].1.expose()[start..start + len]
    }

    fn text_at(&self, tables: &Tables, place: usize) -> &[u8] {
        self.text_of(tables.pattern(place))
    }

    /// Enters every pattern but those whose text is there already.
    fn fill(&self, tables: &mut Tables) {
        let text = |pattern: u32| self.text_of(pattern as usize);
        let mut order: Vec<u32> = (0..self.patterns.len() as u32).collect();
        // Of the same texts the first one's comes first, and stays. Sorted in place, without copies elsewhere.
        order.sort_unstable_by(|&one, &other| text(one).cmp(text(other)).then(one.cmp(&other)));
        let all = order.len();
        order.dedup_by(|later, kept| text(*later) == text(*kept));
        // Those that begin the one at hand, and each other.
        let mut outer: Vec<usize> = Vec::new();
        for (place, &pattern) in order.iter().enumerate() {
            while outer.pop_if(|outer| !text(pattern).starts_with(text(order[*outer]))).is_some() {}
            tables.push(pattern as usize, outer.last().copied());
            outer.push(place);
            let Some(prefix) = text(pattern).first_chunk() else { continue };
            if place == 0 || !text(order[place - 1]).starts_with(prefix) {
                tables.enter(prefix, place);
            }
        }
        order.resize(all, 0);
        order.zeroize();
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
    /// By hash of a pattern's first six bytes, with open addressing: 1 + the place in `order` of the first that begins
    /// with them, 0 where free.
    index: Block,
    index_shift: u32,
    /// The patterns in order of their texts, each with 1 + the place of the longest other that it begins with, or 0.
    order: Block,
    /// How many stand in `order`.
    places: usize,
}

const NUMBER: usize = size_of::<u32>();
/// An entry of `order`.
const ENTRY: usize = 2 * NUMBER;

impl Tables {
    fn new(arena: &'static Arena, patterns: usize) -> Result<Tables, MemoryError> {
        // One entry in sixteen, so that most text passes without a second look.
        let filter = (patterns * STRIDE * 16).next_power_of_two().clamp(FILTER_MIN, FILTER_MAX);
        let slots = (patterns * 2).next_power_of_two().max(64);
        Ok(Tables {
            filter: arena.block(filter)?,
            filter_shift: u32::BITS - filter.ilog2(),
            index: arena.block(slots * NUMBER)?,
            index_shift: u64::BITS - slots.ilog2(),
            order: arena.block(patterns * ENTRY)?,
            places: 0,
        })
    }

    /// Puts a pattern behind those that are there.
    fn push(&mut self, pattern: usize, outer: Option<usize>) {
        let outer = outer.map_or(0, |outer| outer + 1);
        write_number(&mut self.order, 2 * self.places, pattern);
        write_number(&mut self.order, 2 * self.places + 1, outer);
        self.places += 1;
    }

    fn pattern(&self, place: usize) -> usize {
        number(&self.order, 2 * place)
    }

    /// The place of the longest other pattern that begins the one at `place`.
    fn outer(&self, place: usize) -> Option<usize> {
        number(&self.order, 2 * place + 1).checked_sub(1)
    }

    /// The first place from `from` on whose pattern is `beyond`, as all behind it must be too; most often it is near.
    fn place_of_first(&self, from: usize, beyond: impl Fn(usize) -> bool) -> usize {
        let (entries, _) = self.order.as_chunks::<ENTRY>();
        let entries = &entries[from..self.places];
        let is_before = |entry: &[u8; ENTRY]| !beyond(number(entry, 0));
        let mut end = 1;
        while entries.get(end).is_some_and(is_before) {
            end *= 2;
        }
        from + entries[..end.min(entries.len())].partition_point(is_before)
    }

    /// The first of the patterns that begin with `prefix` is at `place`.
    fn enter(&mut self, prefix: &[u8; PATTERN_MIN], place: usize) {
        for (offset, piece) in prefix.windows(PIECE).enumerate() {
            let place = self.filter_place(u32::from_le_bytes([piece[0], piece[1], piece[2], 0]));
            self.filter[place] |= 1 << offset;
        }
        let mut slot = self.first_slot(prefix);
        while number(&self.index, slot) != 0 {
            slot = self.slot_after(slot);
        }
        write_number(&mut self.index, slot, place + 1);
    }

    /// The places of patterns that may begin with `prefix`, each the first with its beginning.
    fn candidates(&self, prefix: &[u8; PATTERN_MIN]) -> impl Iterator<Item = usize> {
        let mut slot = self.first_slot(prefix);
        std::iter::from_fn(move || {
            let entry = number(&self.index, slot);
            slot = self.slot_after(slot);
            entry.checked_sub(1)
        })
    }

    /// The first piece at `at`, `at + STRIDE`, … that a pattern may have, and at which offsets.
    fn next_sample(&self, text: &[u8], mut at: usize) -> Option<(usize, u8)> {
        // Four at a time while there is text for them.
        while let Some(block) = text.get(at..).and_then(|rest| rest.first_chunk::<{ 4 * STRIDE }>()) {
            let (pieces, _) = block.as_chunks::<STRIDE>();
            let offsets = |n: usize| self.filter[self.filter_place(u32::from_le_bytes(pieces[n]))];
            if offsets(0) | offsets(1) | offsets(2) | offsets(3) != 0 {
                let n = (0..4).find(|&n| offsets(n) != 0)?;
                return Some((at + n * STRIDE, offsets(n)));
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
    #[inline(always)]
    fn filter_place(&self, piece: u32) -> usize {
        ((piece << 8).wrapping_mul(0x9E37_79B1) >> self.filter_shift) as usize
    }

    fn first_slot(&self, prefix: &[u8; PATTERN_MIN]) -> usize {
        let [a, b, c, d, e, f] = *prefix;
        let number = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.index_shift) as usize
    }

    fn slot_after(&self, slot: usize) -> usize {
        (slot + 1) & (self.index.len() / NUMBER - 1)
    }
}

fn number(table: &[u8], index: usize) -> usize {
    table[index * NUMBER..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

fn write_number(table: &mut [u8], index: usize, value: usize) {
    table[index * NUMBER..][..NUMBER].copy_from_slice(&(value as u32).to_le_bytes());
}
