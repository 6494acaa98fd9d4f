//! What runs wait in line for: the locks of the configuration, and their turn among `max_concurrent_runs`.
//!
//! Both serve in the order of arrival. A run takes all its locks or none, and stands in the line
//! of each until then; nobody overtakes a run whose wish conflicts with his own, so a run that
//! wants a lock for itself is not starved by those that share it, and no two wait for each other.

use std::collections::BTreeMap;

use crate::plan::{LockRequest, TaskId};

/// A place in line: the lower, the earlier.
pub type Ticket = u64;

#[derive(Debug, Default)]
pub struct Locks {
    locks: Vec<Lock>,
    last_ticket: Ticket,
}

#[derive(Debug, Default)]
struct Lock {
    exclusive: bool,
    shared: usize,
    line: BTreeMap<Ticket, (TaskId, bool)>,
}

impl Lock {
    /// Whether the one with `ticket` need not wait for anybody: not for a holder, nor for an earlier one in line.
    fn is_open_to(&self, ticket: Ticket, shared: bool) -> bool {
        let held = self.exclusive || (!shared && self.shared > 0);
        !held && self.line.range(..ticket).all(|(_, (_, other))| shared && *other)
    }
}

impl Locks {
    /// Stands in line for all of `requests`.
    pub fn join(&mut self, task: TaskId, requests: &[LockRequest]) -> Ticket {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for request in requests {
            self.lock(request).line.insert(ticket, (task, request.shared));
        }
        ticket
    }

    fn lock(&mut self, request: &LockRequest) -> &mut Lock {
        let index = request.lock.index();
        if self.locks.len() <= index {
            self.locks.resize_with(index + 1, Lock::default);
        }
        &mut self.locks[index]
    }

    /// Takes all of `requests` if none of them has to wait, and leaves the line.
    pub fn take(&mut self, ticket: Ticket, requests: &[LockRequest]) -> bool {
        let open = requests.iter().all(|request| self.lock(request).is_open_to(ticket, request.shared));
        if open {
            for request in requests {
                let lock = self.lock(request);
                lock.line.remove(&ticket);
                if request.shared {
                    lock.shared += 1;
                } else {
                    lock.exclusive = true;
                }
            }
        }
        open
    }

    /// Leaves the line without a lock; returns those who may go now.
    pub fn leave(&mut self, ticket: Ticket, requests: &[LockRequest]) -> Vec<TaskId> {
        for request in requests {
            self.lock(request).line.remove(&ticket);
        }
        self.next_in_line(requests)
    }

    /// Gives back all of `requests`; returns those who may go now.
    pub fn release(&mut self, requests: &[LockRequest]) -> Vec<TaskId> {
        for request in requests {
            let lock = self.lock(request);
            if request.shared {
                lock.shared = lock.shared.saturating_sub(1);
            } else {
                lock.exclusive = false;
            }
        }
        self.next_in_line(requests)
    }

    /// Who stands first in the lines of `requests`: one, or all that share up to the first who does not.
    fn next_in_line(&mut self, requests: &[LockRequest]) -> Vec<TaskId> {
        let mut next: Vec<(Ticket, TaskId)> = Vec::new();
        for request in requests {
            let line = &self.lock(request).line;
            let first = line.first_key_value().map(|(ticket, (task, _))| (*ticket, *task));
            let sharing =
                line.iter().take_while(|(_, (_, shared))| *shared).map(|(ticket, (task, _))| (*ticket, *task));
            next.extend(first.into_iter().chain(sharing));
        }
        next.sort_unstable();
        next.dedup();
        next.into_iter().map(|(_, task)| task).collect()
    }
}

#[derive(Debug)]
pub struct Turns {
    free: usize,
    line: BTreeMap<Ticket, TaskId>,
    last_ticket: Ticket,
}

impl Turns {
    pub fn new(max: usize) -> Self {
        Turns { free: max, line: BTreeMap::new(), last_ticket: 0 }
    }

    pub fn join(&mut self, task: TaskId) -> Ticket {
        self.last_ticket += 1;
        self.line.insert(self.last_ticket, task);
        self.last_ticket
    }

    /// Takes a turn if one is free and nobody stands before `ticket`.
    pub fn take(&mut self, ticket: Ticket) -> bool {
        let open = self.free > 0 && self.line.first_key_value().is_some_and(|(first, _)| *first == ticket);
        if open {
            self.line.remove(&ticket);
            self.free -= 1;
        }
        open
    }

    pub fn leave(&mut self, ticket: Ticket) {
        self.line.remove(&ticket);
    }

    pub fn release(&mut self) {
        self.free += 1;
    }

    /// Who may go now.
    pub fn next(&self) -> Option<TaskId> {
        self.line.first_key_value().map(|(_, task)| *task).filter(|_| self.free > 0)
    }
}
