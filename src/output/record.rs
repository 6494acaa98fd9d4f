//! What becomes of finished lines: `output: log | on_failure | discard`, and the last ones for hooks.

use super::words::count_line_feeds;
use crate::plan::OutputMode;

/// What hooks get on standard input: so many lines, in so many bytes.
const TAIL_LINES: usize = 100;
const TAIL_BYTES: usize = 64 * 1024;

/// Among so many last lines one that speaks of an error is looked for.
const TELLING_LINES: usize = 10;

/// What is kept for them, in bytes: more than the longest line, of 16 KiB, has when all of it is escaped.
const KEPT_BYTES: usize = 128 * 1024;

/// What `on_failure` holds until the outcome is known, in bytes: the end of a long story.
const HELD_BYTES: usize = 1024 * 1024;

/// Gets lines as they come, each with its line feed, and must not wait; false: it wants no more.
pub type Follower = Box<dyn FnMut(&str) -> bool + Send>;

/// The output of a run, or of one of its steps.
pub struct Record {
    mode: OutputMode,
    followers: Vec<Follower>,
    /// The last lines, each with its line feed; up to twice the limit, so that dropping is seldom.
    kept: String,
    kept_max: usize,
    /// How many lines `on_failure` could not hold.
    dropped: usize,
}

impl Record {
    pub fn new(mode: OutputMode) -> Record {
        let kept_max = match mode {
            OutputMode::OnFailure => HELD_BYTES,
            OutputMode::Log | OutputMode::Discard => KEPT_BYTES,
        };
        Record { mode, followers: Vec::new(), kept: String::new(), kept_max, dropped: 0 }
    }

    /// Shows `follower` all lines that come from now on, whatever `output:` says.
    pub fn follow(&mut self, follower: Follower) {
        self.followers.push(follower);
    }

    /// Takes in whole lines; `log` gets them if they are to be logged at once.
    pub fn lines(&mut self, lines: &str, log: &mut impl FnMut(&str)) {
        self.followers.retain_mut(|follower| follower(lines));
        self.kept.push_str(lines);
        if self.kept.len() > 2 * self.kept_max {
            self.drop_first();
        }
        if self.mode == OutputMode::Log {
            log(lines);
        }
    }

    fn drop_first(&mut self) {
        let bytes = self.kept.as_bytes();
        let too_many = bytes.len() - self.kept_max;
        let Some(end) = bytes[too_many..].iter().position(|&byte| byte == b'\n') else { return };
        let from = too_many + end + 1;
        if self.mode == OutputMode::OnFailure {
            self.dropped += count_line_feeds(&bytes[..from]);
        }
        self.kept.drain(..from);
    }

    /// The outcome is known: `log` gets the lines that were held back for it.
    pub fn settle(&self, success: bool, log: &mut impl FnMut(&str)) {
        if self.mode != OutputMode::OnFailure || success {
            return;
        }
        if self.dropped > 0 {
            log(&format!("… [{} earlier lines dropped]\n", self.dropped));
        }
        if !self.kept.is_empty() {
            log(&self.kept);
        }
    }

    /// The last 100 lines, or fewer if they have over 64 KiB together, each with its line feed.
    pub fn tail(&self) -> &str {
        &self.kept[last_lines(&self.kept, TAIL_LINES, TAIL_BYTES)..]
    }

    /// The line that tells most of a failure, without its line feed: of the last few the last one that speaks of an
    /// error, since advice may follow it; else the last.
    pub fn last_line(&self) -> Option<&str> {
        let mut last = self.kept.lines().rev();
        last.clone().take(TELLING_LINES).find(|line| tells_of_error(line)).or_else(|| last.next())
    }
}

fn tells_of_error(line: &str) -> bool {
    line.contains("Fatal:") || line.as_bytes().windows(5).any(|part| part.eq_ignore_ascii_case(b"error"))
}

/// Where the last lines of `text` begin: at most `lines` of them in at most `bytes`, but at least one.
fn last_lines(text: &str, lines: usize, bytes: usize) -> usize {
    let mut from = text.len();
    for line in text.split_inclusive('\n').rev().take(lines) {
        let start = from - line.len();
        if from < text.len() && text.len() - start > bytes {
            break;
        }
        from = start;
    }
    from
}
