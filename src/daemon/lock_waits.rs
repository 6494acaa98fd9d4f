//! Hearing at once that another process (`once`) has let go of a file lock.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Report, guarded, locked};
use crate::agenda::Event;
use crate::file_locks::{self, Wanted};
use crate::log;
use crate::plan::{LockRequest, Plan};

/// The locks that are waited for, each by one thread at most.
#[derive(Default)]
pub struct LockWaits(Arc<Mutex<BTreeSet<LockRequest>>>);

impl LockWaits {
    /// Reports once `request` can be had, unless that is on its way already.
    pub fn begin(&self, plan: &Arc<Plan>, request: LockRequest, reports: &Sender<Report>) {
        if !locked(&self.0).insert(request) {
            return;
        }
        let (plan, waits, reports) = (plan.clone(), self.0.clone(), reports.clone());
        let work = move || {
            let wanted = Wanted { name: plan.lock_name(request.lock), shared: request.shared };
            let waited = guarded("lock", || file_locks::wait_for(&plan.state_dir, &wanted));
            locked(&waits).remove(&request);
            match waited {
                Some(Ok(())) => drop(reports.send(Report::Agenda(Event::FileLocksFreed))),
                // The agenda asks again by itself, if later.
                Some(Err(error)) => log::warn("cannot wait for a lock", &[("lock", &wanted.name), ("error", &error)]),
                None => {}
            }
        };
        if let Err(error) = thread::Builder::new().name("lock".to_owned()).spawn(work) {
            locked(&self.0).remove(&request);
            log::error("cannot start a thread", &[("error", &error)]);
        }
    }
}
