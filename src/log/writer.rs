//! Where lines go: straight to stderr, or in a daemon through a queue and a thread of its own.
//!
//! Whoever reads the daemon's stderr may stop reading; then its lines wait here, and beyond a
//! bound they are dropped and counted. A backup never waits for its log. The first line is written
//! at once; those that follow close upon it are gathered, so that many cost few writes.

use std::io::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Some ten thousand lines.
const QUEUE_MAX: usize = 1 << 20;

/// For how long lines are gathered that come right behind others.
const GATHERING: Duration = Duration::from_millis(5);

/// So much is written without gathering more.
const GATHERED_MAX: usize = 64 << 10;

/// How long output of a command may wait for room; the command itself waits with it, as it would
/// for any slow reader of a pipe.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of the process waits for a reader of its last lines.
const END_PATIENCE: Duration = Duration::from_secs(2);

static QUEUE: Queue = Queue {
    state: Mutex::new(State { text: String::new(), writing: false, wakes_writer: usize::MAX, dropped: 0, runs: false }),
    changed: Condvar::new(),
};

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    text: String,
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

/// A line that nobody waits for.
pub fn write(line: &str) {
    QUEUE.push(line, Duration::ZERO);
}

/// Lines of output, which wait for room.
pub fn write_output(lines: &str) {
    QUEUE.push(lines, OUTPUT_PATIENCE);
}

fn to_stderr(text: &str) {
    // What cannot be written is lost: losing stderr must never stop a backup.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl Queue {
    fn push(&self, text: &str, patience: Duration) {
        let has_room = |state: &State| state.text.is_empty() || state.text.len() + text.len() <= QUEUE_MAX;
        let mut state = self.wait_while(patience, |state| state.runs && !has_room(state));
        if !state.runs {
            drop(state);
            return to_stderr(text);
        }
        if has_room(&state) {
            state.text.push_str(text);
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
        let mut gather_until = Instant::now();
        loop {
            let (mut text, dropped) = self.next_lines(gather_until);
            if dropped > 0 {
                text.push_str(&super::line(
                    super::Level::Warn,
                    "lines of this log were dropped, its reader was too slow",
                    &[("lines", &dropped)],
                ));
            }
            to_stderr(&text);
            gather_until = Instant::now() + GATHERING;
            self.state().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines, and until `gather_until` for more of them; with them, how many were dropped.
    fn next_lines(&self, gather_until: Instant) -> (String, usize) {
        let mut state = self.state();
        while state.text.is_empty() && state.dropped == 0 {
            state.wakes_writer = 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        while state.text.len() < GATHERED_MAX {
            let left = gather_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.wakes_writer = GATHERED_MAX;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.wakes_writer = usize::MAX;
        state.writing = true;
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
