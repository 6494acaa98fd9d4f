//! The records on their way to the ledger, and what has to wait until they are there: the starts of
//! runs, and that anybody is told of an end.
//!
//! One batch is under way at a time, so that one sync covers all that came together. A batch that
//! could not be written is written again, together with all that has come since, in order.

use std::mem;

use super::Action;
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
pub struct Batch {
    records: Vec<Record>,
    /// Runs that may start once this is written.
    pub starts: Vec<(TaskId, RunId)>,
    /// Ends that are told once this is written.
    pub ends: Vec<Action>,
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

    /// Notes an end, which `told` tells. Returns it if it is to be told at once: nobody waits for a disk that
    /// cannot be written to before he hears of an end.
    pub fn note_end(&mut self, record: Record, told: Action) -> Option<Action> {
        self.note(record);
        if self.is_failing() {
            return Some(told);
        }
        self.queued.ends.push(told);
        None
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

    /// The batch under way was written, and is returned.
    pub fn written(&mut self) -> Batch {
        self.failures = 0;
        self.sent.take().unwrap_or_default()
    }

    /// The batch under way could not be written. Returns the ends that are to be told all the same.
    pub fn failed(&mut self, now: Boot) -> Vec<Action> {
        let mut batch = self.sent.take().unwrap_or_default();
        batch.records.append(&mut self.queued.records);
        batch.starts.append(&mut self.queued.starts);
        batch.ends.append(&mut self.queued.ends);
        let ends = mem::take(&mut batch.ends);
        self.queued = batch;
        self.again_at = Some(now + AGAIN_AFTER);
        self.failures += 1;
        ends
    }

    /// How often in a row nothing could be written.
    pub fn failures(&self) -> u32 {
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
    use crate::agenda::Notice;

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
        assert_eq!(book.failed(0), vec![]);
        assert_eq!(book.failures(), 1);
        assert_eq!(book.send(AGAIN_AFTER - 1), None);
        assert_eq!(book.wakes_at(), Some(AGAIN_AFTER));
        assert_eq!(book.send(AGAIN_AFTER), Some(vec![record(1), record(2)]));
        book.written();
        assert!(book.is_done() && !book.is_failing());
    }

    #[test]
    fn an_end_is_told_once_it_is_written_or_could_not_be() {
        let mut book = Book::default();
        let told = || Action::Notice(Notice::RecordedAgain);
        assert_eq!(book.note_end(record(1), told()), None);
        book.send(0);
        assert_eq!(book.note_end(record(2), told()), None, "behind the batch that is under way");
        assert_eq!(book.written().ends, vec![told()]);
        book.send(0);
        assert_eq!(book.failed(0), vec![told()]);
        assert_eq!(book.note_end(record(3), told()), Some(told()), "nothing can be written now");
        assert_eq!(book.send(AGAIN_AFTER).map(|records| records.len()), Some(2));
        assert_eq!(book.written().ends, vec![], "nothing is told twice");
    }
}
