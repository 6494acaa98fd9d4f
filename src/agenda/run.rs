//! Runs that have started, or are recorded so that they may: tries, retries, and their end.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::due::{Due, Stage};
use super::queues::Ticket;
use super::slots::{Boot, SECOND};
use super::{Action, Agenda, Ended, Notice, StopWhy, Try, Wait};
use crate::clock::{Now, nanos};
use crate::ledger::{Cause, Record};
use crate::outcome::{Outcome, RunId};
use crate::plan::TaskId;

/// A run from the record of its start to the record of its end. It holds the task's locks.
#[derive(Debug)]
pub struct Active {
    pub run: RunId,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    pub hurried: bool,
    pub phase: Phase,
    /// Of the try that is under way or was the last.
    pub attempt: u32,
    /// When its first try is to start.
    pub start_at: Boot,
    /// When its first try started.
    pub started: Boot,
    pub waits_since: Boot,
    deadline: Option<Duration>,
    last: Option<(Outcome, Option<i32>)>,
    stopping: Option<StopWhy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the ledger has its start. It has its turn.
    Recording,
    /// Until its slot, less than a second. It has its turn.
    Ready,
    /// It has its turn.
    Trying,
    /// Until the next try; it has given up its turn.
    Pausing { until: Boot },
    /// The next try lacks secrets.
    Secrets,
    /// The next try waits for its turn.
    Turn { ticket: Ticket },
}

impl Active {
    pub fn new(run: RunId, due: &Due, now: Now) -> Self {
        let boot = nanos(now.boot);
        Active {
            run,
            slot: due.slot,
            cause: due.cause,
            hurried: due.hurried,
            phase: Phase::Recording,
            attempt: 0,
            start_at: due.start_at.max(boot),
            started: boot,
            waits_since: boot,
            deadline: None,
            last: None,
            stopping: None,
        }
    }

    pub fn phase_recorded(&mut self) {
        if self.phase == Phase::Recording {
            self.phase = Phase::Ready;
        }
    }

    pub fn waits_to_retry(&self) -> bool {
        matches!(self.phase, Phase::Pausing { .. } | Phase::Secrets | Phase::Turn { .. })
    }

    pub fn waits_for(&self) -> Option<Wait> {
        match self.phase {
            Phase::Recording => Some(Wait::Record),
            Phase::Ready => Some(Wait::Start),
            Phase::Trying => None,
            Phase::Pausing { .. } => Some(Wait::Retry { run: self.run, attempt: self.attempt + 1 }),
            Phase::Secrets => Some(Wait::Secrets),
            Phase::Turn { .. } => Some(Wait::Turn),
        }
    }

    /// When it wants to be looked at. The deadline is on the awake clock, which is never ahead of the boot clock.
    pub fn alarm(&self, now: Now) -> Option<Boot> {
        let by_phase = match self.phase {
            Phase::Ready => Some(self.start_at),
            Phase::Pausing { until } => Some(until),
            _ => None,
        };
        let left = self.deadline.map(|deadline| deadline.saturating_sub(now.awake));
        let by_deadline = left.map(|left| nanos(now.boot).saturating_add(nanos(left)));
        by_phase.into_iter().chain(by_deadline.filter(|_| self.waits_to_retry())).min()
    }
}

impl Agenda {
    pub(super) fn next_run_id(&mut self) -> RunId {
        let run = RunId(self.next_run);
        self.next_run += 1;
        run
    }

    /// Leads the active run as far as it gets.
    pub(super) fn step_active(&mut self, id: TaskId, now: Now) {
        if self.closing {
            return;
        }
        while let Some(active) = &self.tasks[id.index()].active {
            let late = active.deadline.is_some_and(|deadline| now.awake >= deadline);
            if late && active.waits_to_retry() {
                let exit_code = active.last.and_then(|(_, code)| code);
                return self.end_run(id, Outcome::Timeout, exit_code, false, now);
            }
            let next = match active.phase {
                Phase::Ready if nanos(now.boot) >= active.start_at => return self.start_try(id, now),
                Phase::Pausing { until } if nanos(now.boot) >= until => Phase::Secrets,
                Phase::Secrets if self.has_secrets(id) => Phase::Turn { ticket: self.turns.join(id) },
                Phase::Turn { ticket } if self.turns.take(ticket) => {
                    self.pass_on_turn();
                    return self.start_try(id, now);
                }
                _ => return,
            };
            if let Some(active) = &mut self.tasks[id.index()].active {
                active.phase = next;
            }
        }
    }

    fn start_try(&mut self, id: TaskId, now: Now) {
        let timeout = self.plan.task(id).policy.timeout;
        let entry = &mut self.tasks[id.index()];
        let Some(active) = &mut entry.active else { return };
        let boot = nanos(now.boot);
        if active.attempt == 0 {
            active.started = boot;
            active.deadline = timeout.map(|timeout| now.awake.saturating_add(timeout));
            // What starts on time keeps the grid of `@every` free of drift.
            let on_time = boot - active.start_at < SECOND;
            entry.slots.started(if on_time { active.start_at } else { boot });
        }
        active.attempt += 1;
        active.phase = Phase::Trying;
        self.actions.push(Action::StartTry(Try {
            run: active.run,
            task: id,
            slot: active.slot,
            cause: active.cause,
            attempt: active.attempt,
            deadline: active.deadline,
        }));
    }

    /// A try ended: the run does too, or pauses for its next try.
    pub(super) fn try_ended(&mut self, run: RunId, outcome: Outcome, exit_code: Option<i32>, fatal: bool, now: Now) {
        let Some(id) = self.active_runs.get(&run).copied() else { return };
        let plan = self.plan.clone();
        let entry = &mut self.tasks[id.index()];
        let Some(active) = entry.active.as_mut().filter(|active| active.phase == Phase::Trying) else { return };
        self.work.push_back(id);
        active.last = Some((outcome, exit_code));
        let is_replaced = entry.due.as_ref().is_some_and(|due| due.stage == Stage::Behind);
        let retry = plan.task(id).policy.retry;
        let again = outcome == Outcome::Failure
            && !fatal
            && !is_replaced
            && !self.closing
            && active.stopping.is_none()
            && active.attempt <= retry.times;
        if !again {
            let cut = outcome == Outcome::Stopped && active.stopping == Some(StopWhy::Shutdown);
            return self.end_run(id, outcome, exit_code, cut, now);
        }
        let delay = retry.delay.saturating_mul(2_u32.saturating_pow(active.attempt - 1));
        active.waits_since = nanos(now.boot);
        active.phase = Phase::Pausing { until: nanos(now.boot).saturating_add(nanos(delay)) };
        let attempt = active.attempt + 1;
        self.turns.release();
        self.pass_on_turn();
        self.say(Notice::Retries { task: id, run, attempt, delay });
    }

    /// A run that waits to retry ends with what its last try came to.
    pub(super) fn end_as_it_is(&mut self, id: TaskId, now: Now) {
        let last = self.tasks[id.index()].active.as_ref().and_then(|active| active.last);
        let (outcome, exit_code) = last.unwrap_or((Outcome::Failure, None));
        self.end_run(id, outcome, exit_code, false, now);
    }

    /// The run is over, whatever it is doing: it is recorded, told, and gives back all that it held.
    fn end_run(&mut self, id: TaskId, outcome: Outcome, exit_code: Option<i32>, cut: bool, now: Now) {
        let plan = self.plan.clone();
        let task = plan.task(id);
        let entry = &mut self.tasks[id.index()];
        let Some(active) = entry.active.take() else { return };
        if outcome == Outcome::Success {
            entry.last_success = Some(now.wall);
        }
        let took = Duration::from_nanos((nanos(now.boot) - active.started).max(0) as u64);
        let (run, attempts, cause) = (active.run, active.attempt, active.cause);
        let record = Record::Ended { run, outcome, exit_code, wall: now.wall, took: Some(took), attempts, cut };
        let repeats = Agenda::will_repeat(task, cut, cause) && self.tasks[id.index()].due.is_none();
        let (slot, took) = (active.slot, Some(took));
        let ended = Ended { run, task: id, slot, cause, outcome, exit_code, took, attempts, cut, repeats };
        self.actions.extend(self.book.note_end(record, Action::Ended(ended)));
        self.active_runs.remove(&run);
        match active.phase {
            Phase::Recording | Phase::Ready | Phase::Trying => self.turns.release(),
            Phase::Turn { ticket } => self.turns.leave(ticket),
            Phase::Pausing { .. } | Phase::Secrets => {}
        }
        self.pass_on_turn();
        self.release_locks(id);
        self.work.push_back(id);
        if cut && cause == Cause::Repeat {
            self.say(Notice::CutAgain { task: id, run });
        }
    }

    /// A `stop` command: a try is asked to stop, all that waits ends at once.
    pub(super) fn stop_task(&mut self, id: TaskId, now: Now) {
        let entry = &mut self.tasks[id.index()];
        let found = entry.due.is_some() || entry.active.is_some();
        match &mut entry.active {
            Some(active) if active.phase == Phase::Trying => {
                active.stopping = active.stopping.or(Some(StopWhy::Task));
                let run = active.run;
                self.actions.push(Action::StopTry { run, why: StopWhy::Task });
            }
            Some(active) => {
                let exit_code = active.last.and_then(|(_, code)| code);
                self.end_run(id, Outcome::Stopped, exit_code, false, now);
            }
            None => {}
        }
        if !self.closing && self.tasks[id.index()].due.is_some() {
            self.drop_due(id, Some(Outcome::Stopped), now);
        }
        self.actions.push(Action::StopAnswer { task: id, found });
    }

    /// What runs is stopped, what waits to retry ends, and what has not started is due again.
    pub(super) fn shut_down_active(&mut self, id: TaskId, now: Now) {
        let Some(active) = &mut self.tasks[id.index()].active else { return };
        match active.phase {
            Phase::Recording | Phase::Ready => self.withdraw(id, Stage::Start, now),
            Phase::Trying => {
                let run = active.run;
                active.stopping = active.stopping.or(Some(StopWhy::Shutdown));
                self.actions.push(Action::StopTry { run, why: StopWhy::Shutdown });
            }
            Phase::Pausing { .. } | Phase::Secrets | Phase::Turn { .. } => {
                let exit_code = active.last.and_then(|(_, code)| code);
                self.end_run(id, Outcome::Stopped, exit_code, true, now);
            }
        }
    }
}
