//! What becomes of finished lines: `output: log | on_failure | discard`, and the last ones for hooks.

use std::mem;

use super::words::count_line_feeds;
use crate::plan::OutputMode;

/// What hooks get on standard input: so many lines, in so many bytes.
const TAIL_LINES: usize = 100;
const TAIL_BYTES: usize = 64 * 1024;

/// Among so many last lines one that speaks of an error is looked for.
const TELLING_LINES: usize = 10;

/// What is kept for them at least, in bytes: more than the longest line, of 16 KiB, has when all of it is escaped.
const KEPT_BYTES: usize = 128 * 1024;

/// What `on_failure` holds at least until the outcome is known, in bytes: the end of a long story.
const HELD_BYTES: usize = 1024 * 1024;

/// Gets lines as they come, each with its line feed, and must not wait; false: it wants no more.
pub type Follower = Box<dyn FnMut(&str) -> bool + Send>;

/// The output of a run, or of one of its steps.
pub struct Record {
    mode: OutputMode,
    followers: Vec<Follower>,
    /// The last lines, each with its line feed.
    newer: String,
    /// Those before them, dropped all at once when `newer` has enough, so that no line is ever moved.
    older: String,
    /// How much is enough, in bytes.
    enough: usize,
    /// How many lines `on_failure` could not hold.
    dropped: usize,
}

impl Record {
    pub fn new(mode: OutputMode) -> Record {
        let enough = match mode {
            OutputMode::OnFailure => HELD_BYTES,
            OutputMode::Log | OutputMode::Discard => KEPT_BYTES,
        };
        Record { mode, followers: Vec::new(), newer: String::new(), older: String::new(), enough, dropped: 0 }
    }

    /// Shows `follower` all lines that come from now on, whatever `output:` says.
    pub fn follow(&mut self, follower: Follower) {
        self.followers.push(follower);
    }

    /// Takes in whole lines; `log` gets them if they are to be logged at once.
    pub fn lines(&mut self, lines: &str, log: &mut impl FnMut(&str)) {
        self.followers.retain_mut(|follower| follower(lines));
        if self.newer.len() >= self.enough {
            self.drop_older();
        }
        self.newer.push_str(lines);
        if self.mode == OutputMode::Log {
            log(lines);
        }
    }

    fn drop_older(&mut self) {
        if self.mode == OutputMode::OnFailure {
            self.dropped += count_line_feeds(self.older.as_bytes());
        }
        mem::swap(&mut self.older, &mut self.newer);
        self.newer.clear();
    }

    /// The outcome is known: `log` gets the lines that were held back for it.
    pub fn settle(&self, success: bool, log: &mut impl FnMut(&str)) {
        if self.mode != OutputMode::OnFailure || success {
            return;
        }
        if self.dropped > 0 {
            log(&format!("… [{} earlier lines dropped]\n", self.dropped));
        }
        let kept = [&*self.older, &*self.newer].concat();
        if !kept.is_empty() {
            log(&kept);
        }
    }

    /// The last 100 lines, or fewer if they have over 64 KiB together, each with its line feed.
    pub fn tail(&self) -> String {
        let mut len = 0;
        for line in self.last_lines().take(TAIL_LINES) {
            if len > 0 && len + line.len() > TAIL_BYTES {
                break;
            }
            len += line.len();
        }
        let from_newer = len.min(self.newer.len());
        let from_older = len - from_newer;
        [&self.older[self.older.len() - from_older..], &self.newer[self.newer.len() - from_newer..]].concat()
    }

    /// The line that tells most of a failure, without its line feed: of the last few the last one that speaks of an
    /// error, since advice may follow it; else the last.
    pub fn last_line(&self) -> Option<&str> {
        let mut last = self.last_lines().map(|line| line.trim_end_matches('\n'));
        last.clone().take(TELLING_LINES).find(|line| tells_of_error(line)).or_else(|| last.next())
    }

    /// The last one first, each with its line feed.
    fn last_lines(&self) -> impl Iterator<Item = &str> + Clone {
        self.older.split_inclusive('\n').chain(self.newer.split_inclusive('\n')).rev()
    }
}

fn tells_of_error(line: &str) -> bool {
    line.contains("Fatal:") || line.as_bytes().windows(5).any(|part| part.eq_ignore_ascii_case(b"error"))
}
