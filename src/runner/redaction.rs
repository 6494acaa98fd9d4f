//! What to keep out of output at present, and how those who keep it out hear that it has changed.
//!
//! Each state of things has a pipe whose writing end is closed when its time is over, so that a
//! command's thread, which waits for output anyway, hears of it at once.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::{Arc, PoisonError, RwLock};

use crate::output::Patterns;

pub struct Redaction(RwLock<Now>);

struct Now {
    valid: Arc<Valid>,
    /// Closed when `valid` is not so any more.
    _end: PipeWriter,
    /// Made ahead, because `wipe` must not fail.
    next: Option<(PipeReader, PipeWriter)>,
}

/// What is to be looked for until `over` is at its end.
pub struct Valid {
    pub patterns: Arc<Patterns>,
    pub over: PipeReader,
    /// How often all secrets have been wiped so far.
    pub wipes: u64,
}

impl Redaction {
    /// Of nothing yet.
    pub fn new() -> io::Result<Redaction> {
        let (over, end) = io::pipe()?;
        let valid = Arc::new(Valid { patterns: Arc::new(Patterns::none()), over, wipes: 0 });
        Ok(Redaction(RwLock::new(Now { valid, _end: end, next: Some(io::pipe()?) })))
    }

    pub fn valid(&self) -> Arc<Valid> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).valid.clone()
    }

    /// From now on looks for `patterns`.
    pub fn renew(&self, patterns: Patterns) -> io::Result<()> {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let pipe = io::pipe()?;
        if now.next.is_none() {
            now.next = Some(io::pipe()?);
        }
        let wipes = now.valid.wipes;
        now.replace(patterns, wipes, pipe);
        Ok(())
    }

    /// There are no secrets any more, so there is nothing to look for.
    pub fn wipe(&self) {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let wipes = now.valid.wipes + 1;
        // Without a pipe there is nothing to look for anyway: `renew` makes sure of one.
        if let Some(pipe) = now.next.take() {
            now.replace(Patterns::none(), wipes, pipe);
            now.next = io::pipe().ok();
        }
    }
}

impl Now {
    fn replace(&mut self, patterns: Patterns, wipes: u64, (over, end): (PipeReader, PipeWriter)) {
        self.valid = Arc::new(Valid { patterns: Arc::new(patterns), over, wipes });
        self._end = end;
    }
}
