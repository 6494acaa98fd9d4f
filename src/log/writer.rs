//! Where lines go: straight to stderr, or in a daemon through a queue and a thread of its own.
//!
//! Whoever reads the daemon's stderr may stop reading; then its lines wait here, and beyond a
//! bound they are dropped and counted. A backup never waits for its log. A line is written at once,
//! unless many come in a row: those are gathered, so that they cost few writes.

use std::io::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Some ten thousand lines of the daemon's own, and as many of output: what a command prints never costs the line
/// of its end.
const QUEUE_MAX: usize = 1 << 20;

/// So many writes in a row, each close upon the one before, and lines are gathered from then on: a start or a run
/// says less than that.
const ROW: u32 = 16;

/// For how long they are gathered.
const GATHERING: Duration = Duration::from_millis(5);

/// So much is written without gathering more.
const GATHERED_MAX: usize = 64 << 10;

/// How long output of a command may wait for room; the command itself waits with it, as it would
/// for any slow reader of a pipe.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of the process waits for a reader of its last lines.
const END_PATIENCE: Duration = Duration::from_secs(2);

static QUEUE: Queue = Queue {
    state: Mutex::new(State {
        text: String::new(),
        own: 0,
        writing: false,
        wakes_writer: usize::MAX,
        dropped: 0,
        runs: false,
    }),
    changed: Condvar::new(),
};

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    text: String,
    /// How many bytes of it are lines of the daemon's own.
    own: usize,
    /// A part is on its way to stderr.
    writing: bool,
    /// How much text it takes to wake the thread that writes; it looks by itself after it has written.
    wakes_writer: usize,
    /// Lines that found no room.
    dropped: usize,
    /// There is a thread that writes.
    runs: bool,
}

/// From now on lines are written by a thread of their own.
pub fn start() -> std::io::Result<()> {
    thread::Builder::new().name("log".to_owned()).spawn(|| QUEUE.write_forever())?;
    QUEUE.state().runs = true;
    Ok(())
}

/// Waits until all lines are written, for a while.
pub fn finish() {
    drop(QUEUE.wait_while(END_PATIENCE, |state| state.runs && (state.writing || !state.text.is_empty())));
}

/// Lines of the daemon's own, which wait for nobody.
pub fn write(lines: String) {
    QUEUE.push(lines, Whose::Own, Duration::ZERO);
}

/// Lines of output, which wait for room.
pub fn write_output(lines: String) {
    QUEUE.push(lines, Whose::Command, OUTPUT_PATIENCE);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Command,
}

fn to_stderr(text: &str) {
    // What cannot be written is lost: losing stderr must never stop a backup.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl State {
    /// One text finds room where there is none yet, however long it is.
    fn has_room(&self, len: usize, whose: Whose) -> bool {
        let waiting = if whose == Whose::Own { self.own } else { self.text.len() - self.own };
        waiting == 0 || waiting + len <= QUEUE_MAX
    }
}

/// Appends `more` to `text`, without a copy where it can.
fn append(text: &mut String, more: String) {
    if text.is_empty() {
        *text = more;
    } else {
        text.push_str(&more);
    }
}

impl Queue {
    fn push(&self, text: String, whose: Whose, patience: Duration) {
        let has_room = |state: &State| state.has_room(text.len(), whose);
        let mut state = self.wait_while(patience, |state| state.runs && !has_room(state));
        if !state.runs {
            drop(state);
            return to_stderr(&text);
        }
        if has_room(&state) {
            state.own += if whose == Whose::Own { text.len() } else { 0 };
            append(&mut state.text, text);
            if state.text.len() >= state.wakes_writer {
                state.wakes_writer = usize::MAX;
                drop(state);
                self.changed.notify_all();
            }
        } else {
            state.dropped += text.lines().count();
        }
    }

    fn write_forever(&self) {
        let mut pace = Pace { in_a_row: 0, last: Instant::now() };
        loop {
            let (mut text, dropped) = self.next_lines(pace.gather_until());
            if dropped > 0 {
                text.push_str(&super::line(
                    super::Level::Warn,
                    "lines of this log were dropped, its reader was too slow",
                    &[("lines", &dropped)],
                ));
            }
            to_stderr(&text);
            pace.wrote(Instant::now());
            self.state().writing = false;
            self.changed.notify_all();
        }
    }

    /// Gathers lines until `gather_until`, and waits for the next one if there is none; with them, how many were
    /// dropped.
    fn next_lines(&self, gather_until: Instant) -> (String, usize) {
        let mut state = self.state();
        while state.text.len() < GATHERED_MAX {
            let left = gather_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Nobody else has to wake the thread then.
            state.wakes_writer = GATHERED_MAX;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.text.is_empty() && state.dropped == 0 {
            state.wakes_writer = 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.wakes_writer = usize::MAX;
        state.writing = true;
        state.own = 0;
        (std::mem::take(&mut state.text), std::mem::take(&mut state.dropped))
    }

    /// Waits for `patience` at most.
    fn wait_while(&self, patience: Duration, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let until = Instant::now() + patience;
        let mut state = self.state();
        while condition(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How close upon one another lines are written.
struct Pace {
    in_a_row: u32,
    last: Instant,
}

impl Pace {
    fn wrote(&mut self, now: Instant) {
        // Those that were gathered for a while are close upon the ones before, too.
        let is_close = now.duration_since(self.last) < 2 * GATHERING;
        self.in_a_row = if is_close { self.in_a_row.saturating_add(1) } else { 0 };
        self.last = now;
    }

    fn gather_until(&self) -> Instant {
        if self.in_a_row < ROW { self.last } else { self.last + GATHERING }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_takes_no_room_from_the_daemons_own_lines_nor_they_from_it() {
        let state = |own, output| State {
            text: "x".repeat(own + output),
            own,
            writing: true,
            wakes_writer: usize::MAX,
            dropped: 0,
            runs: true,
        };
        for (own, output, own_fits, output_fits) in [
            (0, 0, true, true),
            (0, 3 * QUEUE_MAX, true, false),
            (QUEUE_MAX, 0, false, true),
            (QUEUE_MAX - 1, QUEUE_MAX - 1, true, true),
        ] {
            let state = state(own, output);
            assert_eq!(state.has_room(1, Whose::Own), own_fits, "{own} and {output}");
            assert_eq!(state.has_room(1, Whose::Command), output_fits, "{own} and {output}");
        }
    }

    #[test]
    fn only_many_lines_in_a_row_are_gathered_and_only_for_as_long_as_they_come() {
        let mut now = Instant::now();
        let mut pace = Pace { in_a_row: 0, last: now };
        for _ in 0..ROW {
            assert_eq!(pace.gather_until(), now);
            now += GATHERING / 2;
            pace.wrote(now);
        }
        for _ in 0..3 {
            assert_eq!(pace.gather_until(), now + GATHERING);
            now += GATHERING;
            pace.wrote(now);
        }
        now += 2 * GATHERING;
        pace.wrote(now);
        assert_eq!(pace.gather_until(), now);
    }
}
