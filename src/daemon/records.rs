//! Writes records to the ledger from a thread of its own, so that a slow disk holds up neither the
//! scheduler nor those who ask it something.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use super::{Report, guarded};
use crate::agenda::Event;
use crate::error::Error;
use crate::ledger::{Ledger, Record};
use crate::log;

/// The way to the thread that writes.
pub struct Records {
    batches: Sender<Batch>,
    writer: JoinHandle<()>,
}

struct Batch {
    records: Vec<Record>,
    /// Whether the agenda waits for the answer.
    is_asked_for: bool,
}

impl Records {
    /// Starts the thread. What the agenda asked for is answered in `reports`.
    pub fn start(ledger: Arc<Ledger>, reports: Sender<Report>) -> Result<Records, Error> {
        let (batches, inbox) = mpsc::channel();
        let write = move || {
            compact(&ledger);
            inbox.into_iter().for_each(|batch| write(&ledger, &batch, &reports));
        };
        let writer = thread::Builder::new().name("ledger".to_owned()).spawn(write);
        Ok(Records { batches, writer: writer.map_err(|error| Error::new("the ledger", error))? })
    }

    /// Has `records` written and answered with `Event::Recorded`.
    pub fn write_for_agenda(&self, records: Vec<Record>) {
        let _ = self.batches.send(Batch { records, is_asked_for: true });
    }

    /// Has `record` written; should that fail, it is lost.
    pub fn write(&self, record: Record) {
        let _ = self.batches.send(Batch { records: vec![record], is_asked_for: false });
    }

    /// Waits until all is written.
    pub fn finish(self) {
        drop(self.batches);
        let _ = self.writer.join();
    }
}

fn compact(ledger: &Ledger) {
    if let Some(Err(error)) = guarded("ledger", || ledger.compact()) {
        log::warn("the ledger could not be compacted", &[("error", &error)]);
    }
}

fn write(ledger: &Ledger, batch: &Batch, reports: &Sender<Report>) {
    let written = guarded("ledger", || ledger.append(&batch.records));
    if let Some(Err(error)) = &written {
        log::error("cannot write to the ledger", &[("error", error)]);
    }
    if batch.is_asked_for {
        let _ = reports.send(Report::Agenda(Event::Recorded(matches!(written, Some(Ok(()))))));
    }
}
