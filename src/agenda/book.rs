//! The records on their way to the ledger, and the runs that may not start before theirs is there.
//!
//! One batch is under way at a time, so that one sync covers all that came together. A batch that
//! could not be written is written again, together with all that has come since, in order.

use std::mem;

use super::slots::{Boot, SECOND};
use crate::ledger::Record;
use crate::outcome::RunId;
use crate::plan::TaskId;

/// How long to wait before records that could not be written are tried again.
const AGAIN_AFTER: Boot = 10 * SECOND;

/// While nothing can be written, this many records are kept; of what is merely history none beyond.
const RECORDS_MAX: usize = 50_000;

#[derive(Debug, Default)]
pub struct Book {
    queued: Batch,
    sent: Option<Batch>,
    again_at: Option<Boot>,
    failures: u32,
}

#[derive(Debug, Default)]
struct Batch {
    records: Vec<Record>,
    starts: Vec<(TaskId, RunId)>,
}

impl Book {
    pub fn note(&mut self, record: Record) {
        let is_history = matches!(record, Record::NotRun { .. });
        if !(is_history && self.queued.records.len() >= RECORDS_MAX) {
            self.queued.records.push(record);
        }
    }

    /// Notes the start of a run; `recorded` tells when it may happen.
    pub fn note_start(&mut self, task: TaskId, run: RunId, record: Record) {
        self.note(record);
        self.queued.starts.push((task, run));
    }

    /// The records that are to be written now, if any.
    pub fn send(&mut self, now: Boot) -> Option<Vec<Record>> {
        let must_wait = self.sent.is_some() || self.again_at.is_some_and(|at| now < at);
        if must_wait || self.queued.records.is_empty() {
            return None;
        }
        self.again_at = None;
        let batch = mem::take(&mut self.queued);
        let records = batch.records.clone();
        self.sent = Some(batch);
        Some(records)
    }

    /// The batch under way was written; returns the runs whose start is on disk now.
    pub fn written(&mut self) -> Vec<(TaskId, RunId)> {
        self.failures = 0;
        self.sent.take().unwrap_or_default().starts
    }

    /// The batch under way could not be written. Returns how often that has happened in a row.
    pub fn failed(&mut self, now: Boot) -> u32 {
        let mut batch = self.sent.take().unwrap_or_default();
        batch.records.append(&mut self.queued.records);
        batch.starts.append(&mut self.queued.starts);
        self.queued = batch;
        self.again_at = Some(now + AGAIN_AFTER);
        self.failures += 1;
        self.failures
    }

    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When `send` will have something that it holds back now.
    pub fn wakes_at(&self) -> Option<Boot> {
        self.again_at.filter(|_| self.sent.is_none() && !self.queued.records.is_empty())
    }

    /// Whether nothing is left that could be written.
    pub fn is_done(&self) -> bool {
        self.sent.is_none() && (self.queued.records.is_empty() || self.is_failing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(run: u64) -> Record {
        Record::Withdrawn { run: RunId(run) }
    }

    #[test]
    fn records_that_could_not_be_written_come_again_before_later_ones() {
        let mut book = Book::default();
        book.note(record(1));
        assert_eq!(book.send(0), Some(vec![record(1)]));
        book.note(record(2));
        assert_eq!(book.send(0), None, "one batch at a time");
        assert_eq!(book.failed(0), 1);
        assert_eq!(book.send(AGAIN_AFTER - 1), None);
        assert_eq!(book.wakes_at(), Some(AGAIN_AFTER));
        assert_eq!(book.send(AGAIN_AFTER), Some(vec![record(1), record(2)]));
        book.written();
        assert!(book.is_done() && !book.is_failing());
    }
}
