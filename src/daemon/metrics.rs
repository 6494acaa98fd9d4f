//! Keeps the metrics file up to date from a thread of its own, so that a slow disk holds up nobody.

use std::path::PathBuf;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::log_warning;
use crate::error::Error;
use crate::metrics::{self, OUTCOMES};
use crate::outcome::Outcome;
use crate::plan::TaskId;

/// However much happens, the file is written once in this time at most.
const PAUSE: Duration = Duration::from_secs(1);

/// The metrics file, if there is to be one.
pub struct MetricsFile {
    file: PathBuf,
    texts: SyncSender<String>,
    writer: JoinHandle<()>,
    last: String,
    not_before: Instant,
    is_behind: bool,
}

impl MetricsFile {
    pub fn start(file: PathBuf) -> Result<MetricsFile, Error> {
        let (texts, inbox) = mpsc::sync_channel::<String>(1);
        let to = file.clone();
        let write = move || {
            let mut is_told = false;
            for text in inbox {
                let written = metrics::write(&to, &text);
                // Once, not each second for as long as a disk is full.
                if let Err(error) = &written
                    && !is_told
                {
                    log_warning(error);
                }
                is_told = written.is_err();
            }
        };
        let writer = thread::Builder::new().name("metrics".to_owned()).spawn(write);
        let writer = writer.map_err(|error| Error::new("metrics", error))?;
        Ok(MetricsFile { file, texts, writer, last: String::new(), not_before: Instant::now(), is_behind: true })
    }

    /// Something may have changed.
    pub fn touch(&mut self) {
        self.is_behind = true;
    }

    /// How long until it wants to be written.
    pub fn wakes_in(&self) -> Option<Duration> {
        self.is_behind.then(|| self.not_before.saturating_duration_since(Instant::now()))
    }

    /// Whether it is time to write it.
    pub fn is_due(&self) -> bool {
        self.wakes_in().is_some_and(|time| time.is_zero())
    }

    /// Writes `text`, which is how things stand now, if it has changed.
    pub fn update(&mut self, text: String) {
        self.not_before = Instant::now() + PAUSE;
        self.is_behind = false;
        if text == self.last {
            return;
        }
        match self.texts.try_send(text.clone()) {
            Ok(()) => self.last = text,
            // The disk is slow: the next text has it all.
            Err(TrySendError::Full(_)) => self.is_behind = true,
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Writes the last text, at the end of the daemon.
    pub fn finish(self, text: &str) {
        drop(self.texts);
        if self.writer.join().is_ok() {
            let _ = metrics::write(&self.file, text).inspect_err(log_warning);
        }
    }
}

/// Runs that ended since the daemon started, by task and outcome.
#[derive(Default)]
pub struct RunCounts(Vec<[u64; OUTCOMES.len()]>);

impl RunCounts {
    pub fn new(tasks: usize) -> RunCounts {
        RunCounts(vec![[0; OUTCOMES.len()]; tasks])
    }

    pub fn count(&mut self, task: TaskId, outcome: Outcome) {
        if let Some(at) = OUTCOMES.iter().position(|name| *name == outcome.name()) {
            self.0[task.index()][at] += 1;
        }
    }

    pub fn of(&self, task: TaskId) -> [u64; OUTCOMES.len()] {
        self.0[task.index()]
    }
}
