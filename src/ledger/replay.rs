//! From the bytes of a ledger to its state, telling a torn end from damage.
//!
//! Lines of the last epoch were perhaps never synced: a power cut may leave any of them broken,
//! also before whole ones, since a disk writes pages in any order. Nobody relied on them. Every
//! other broken line was synced once, so the file is damaged and no slot in it is trusted.

use std::io::BufRead;

use super::line::{Entry, Line};
use super::state::State;

/// What a ledger's bytes say.
pub struct Replay {
    pub state: State,
    /// Of the whole lines at the beginning, in bytes.
    pub length: u64,
    /// The epoch of the last of them.
    pub epoch: u64,
    pub damage: Option<Damage>,
}

pub enum Damage {
    /// Cut off in the middle of the last write; nothing whole follows.
    Torn { bytes: u64 },
    /// `kept`: only what was never synced is lost.
    Damaged { why: String, kept: bool },
}

impl Replay {
    /// A file that says nothing.
    pub fn nothing(why: String) -> Replay {
        let damage = Some(Damage::Damaged { why, kept: false });
        Replay { state: State::default(), length: 0, epoch: 0, damage }
    }
}

/// Reads a ledger from its first byte to its last.
pub fn replay(bytes: &[u8]) -> Replay {
    let mut good = Good::default();
    let mut rest = bytes;
    while let Some((line, after)) = next_line(rest) {
        if !good.take(line) {
            break;
        }
        rest = after;
    }
    let length = (bytes.len() - rest.len()) as u64;
    if rest.is_empty() && good.ready {
        return Replay { state: good.state, length, epoch: good.epoch, damage: None };
    }
    judge(good, rest, length)
}

/// The whole lines at the beginning.
#[derive(Default)]
struct Good {
    state: State,
    epoch: u64,
    /// Of the epoch, so far.
    lines_of_epoch: u64,
    lines: u64,
    ready: bool,
}

impl Good {
    /// Whether `line` is whole and stands where it belongs; then it counts.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some(Line { epoch, index, entry }) = Line::read(line) else {
            return false;
        };
        let goes_on = epoch == self.epoch && index == self.lines_of_epoch;
        let begins_epoch = self.epoch.checked_add(1) == Some(epoch) && index == 0;
        if (self.lines == 0) != (entry == Entry::Header) || !goes_on && !begins_epoch {
            return false;
        }
        self.lines += 1;
        self.lines_of_epoch = index + 1;
        self.epoch = epoch;
        self.ready |= entry == Entry::Ready;
        apply(&mut self.state, entry);
        true
    }
}

/// What the broken part `rest`, behind `length` whole bytes, means.
fn judge(good: Good, rest: &[u8], length: u64) -> Replay {
    let later = whole_lines(rest);
    let (state, epoch, damage) = if later.is_empty() && good.ready {
        (good.state, good.epoch, Damage::Torn { bytes: rest.len() as u64 })
    } else if good.ready && never_synced(good.epoch, &later) {
        let why = "its end was written in part".to_string();
        (good.state, good.epoch, Damage::Damaged { why, kept: true })
    } else {
        let why = if good.lines == 0 { "it does not begin as a ledger" } else { "a record in its middle is broken" };
        let mut state = good.state;
        later.into_iter().for_each(|line| apply(&mut state, line.entry));
        state.salvage(rest.len() as u64);
        (state, good.epoch, Damage::Damaged { why: why.to_string(), kept: false })
    };
    Replay { state, length, epoch, damage: Some(damage) }
}

/// Whether all that is broken after a whole line of `epoch`, before and among the whole lines `later`, was of
/// the last epoch.
fn never_synced(epoch: u64, later: &[Line]) -> bool {
    let Some((first, last)) = later.first().zip(later.last()) else {
        return true;
    };
    let follows = first.epoch == epoch || (first.epoch == epoch + 1 && first.index > 0);
    follows && first.epoch == last.epoch
}

fn whole_lines(mut rest: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    while let Some((line, after)) = next_line(rest) {
        lines.extend(Line::read(line));
        rest = after;
    }
    lines
}

/// The first line of `bytes` without its end, and what follows; a last line without an end is none.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').ok()?;
    Some((bytes[..length].strip_suffix(b"\n")?, rest))
}

fn apply(state: &mut State, entry: Entry) {
    match entry {
        Entry::Header | Entry::Ready => {}
        Entry::Next(run) => state.next_run = state.next_run.max(run),
        Entry::Boot(boot) => state.boot = Some(boot),
        Entry::Kept(name, task) => {
            state.tasks.insert(name, *task);
        }
        Entry::Pending(name, due) => {
            if let Some(task) = state.tasks.get_mut(&name) {
                task.due = Some(due);
            }
        }
        Entry::Running(run, started) => {
            state.running.insert(run, started);
        }
        Entry::Survivor(session) => state.sessions.push(session),
        Entry::Past(past) => state.remember(past),
        Entry::Record(record) => state.apply(&record),
    }
}
