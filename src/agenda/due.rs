//! Runs that are due: from the slot to the start, or to the reason why there is none.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::queues::Ticket;
use super::run::{Active, Phase};
use super::slots::{AHEAD, Boot, SECOND, between, shift};
use super::{Action, Agenda, Entry, FileLocks, ManualAnswer, Notice, Refusal, Wait};
use crate::clock::{Now, nanos};
use crate::ledger::{Cause, Due as RecordedDue, Record, Started};
use crate::outcome::{Outcome, SkipReason};
use crate::plan::{Missed, Overlap, SecretId, Step, Task, TaskId};

/// How long until file locks that another process holds are asked for again.
const FILE_LOCKS_AGAIN: Boot = 10 * SECOND;

/// A run that has not started.
#[derive(Debug)]
pub struct Due {
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    /// When it starts if nothing holds it; from then on it waits.
    pub start_at: Boot,
    /// Somebody asked for it: no delay, no condition.
    pub hurried: bool,
    /// The ledger has it.
    pub recorded: bool,
    pub stage: Stage,
}

/// How far a due run has come, in the order in which it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until `start_at`.
    Start,
    /// Behind the task's active run.
    Behind,
    Secrets,
    Condition {
        ask_at: Boot,
    },
    Lock {
        ticket: Ticket,
    },
    /// It has its locks.
    Turn {
        ticket: Ticket,
    },
    /// It has its turn; file locks are asked for too, as `once` respects no others. Not before, since each of them
    /// is an open file, and any number of runs may wait for their turn.
    FileLocks,
    /// Another process holds them; it has given up its turn until they are asked for again.
    FileLocksBusy {
        again_at: Boot,
    },
}

impl Due {
    pub fn new(slot: DateTime<Utc>, cause: Cause, start_at: Boot) -> Self {
        Due { slot, cause, start_at, hurried: cause == Cause::Manual, recorded: false, stage: Stage::Start }
    }

    /// Why it came to nothing, if it does now.
    fn reason(&self) -> SkipReason {
        match self.stage {
            Stage::Start => match self.cause {
                Cause::Missed | Cause::Repeat => SkipReason::Missed,
                Cause::Slot | Cause::Start | Cause::Reboot | Cause::Manual => SkipReason::Overlap,
            },
            Stage::Behind => SkipReason::Overlap,
            Stage::Secrets => SkipReason::Secrets,
            Stage::Condition { .. } => SkipReason::Condition,
            Stage::Lock { .. } | Stage::Turn { .. } | Stage::FileLocks | Stage::FileLocksBusy { .. } => {
                SkipReason::Lock
            }
        }
    }

    /// Whether it waits for `missed_delay`.
    fn makes_up(&self) -> bool {
        self.stage == Stage::Start && matches!(self.cause, Cause::Missed | Cause::Repeat)
    }

    fn has_passed_secrets(&self) -> bool {
        !matches!(self.stage, Stage::Start | Stage::Behind | Stage::Secrets)
    }
}

impl Entry {
    /// From when on the task counts as long without success.
    fn run_anyway_at(&self, task: &Task) -> Option<DateTime<Utc>> {
        let after = task.policy.run_anyway_after?;
        Some(shift(self.last_success.unwrap_or(self.first_seen), nanos(after)))
    }

    /// When its due run wants to be looked at.
    pub fn due_alarms(&self, task: &Task, now: Now) -> (Option<DateTime<Utc>>, Option<Boot>) {
        let Some(due) = &self.due else {
            return (None, None);
        };
        let (by_wall, by_boot) = match due.stage {
            Stage::Start if self.active.is_none() => (None, Some(due.start_at - AHEAD)),
            Stage::Start => (None, Some(due.start_at)),
            Stage::Condition { ask_at } => (self.run_anyway_at(task), Some(ask_at).filter(|_| !self.asking)),
            Stage::FileLocksBusy { again_at } => (None, Some(again_at)),
            Stage::Behind | Stage::Secrets | Stage::Lock { .. } | Stage::Turn { .. } | Stage::FileLocks => (None, None),
        };
        let given_up = self.gives_up_at(task).filter(|at| *at > nanos(now.boot));
        (by_wall, by_boot.into_iter().chain(given_up).min())
    }

    /// When `max_wait` is over for its due run.
    fn gives_up_at(&self, task: &Task) -> Option<Boot> {
        let due = self.due.as_ref()?;
        Some(due.start_at.saturating_add(nanos(task.policy.max_wait?)))
    }
}

impl Agenda {
    /// A slot of the schedule came. On time it is due at `start_at`; one that was missed is due after its delay, or
    /// skipped. A run that is due already makes place for it, but not its place in line.
    pub(super) fn slot_came(&mut self, id: TaskId, slot: DateTime<Utc>, cause: Cause, start_at: Boot, now: Now) {
        let plan = self.plan.clone();
        let policy = &plan.task(id).policy;
        let mut start_at = start_at;
        if cause == Cause::Missed {
            if policy.missed == Missed::Skip {
                return self.not_run(id, slot, cause, Outcome::Skipped(SkipReason::Missed), now);
            }
            start_at = self.delayed(id, now);
            let delay = Duration::from_nanos((start_at - nanos(now.boot)) as u64);
            self.say(Notice::Missed { task: id, slot, delay });
        }
        let Some(mut due) = self.tasks[id.index()].due.take() else {
            self.tasks[id.index()].due = Some(Due::new(slot, cause, start_at));
            return;
        };
        self.not_run(id, due.slot, due.cause, Outcome::Skipped(due.reason()), now);
        let delayed = due.stage == Stage::Start && !due.hurried;
        due.start_at = if delayed { start_at } else { start_at.min(nanos(now.boot) + AHEAD) };
        (due.slot, due.cause, due.recorded) = (slot, cause, false);
        self.tasks[id.index()].due = Some(due);
    }

    /// When a run starts that makes up for something, noticed now.
    pub(super) fn delayed(&self, id: TaskId, now: Now) -> Boot {
        let delay = nanos(self.plan.task(id).policy.missed_delay);
        nanos(now.boot) + delay + self.tasks[id.index()].slots.offset
    }

    /// The machine slept: the network is gone again, so what waits for `missed_delay` waits for it from now.
    pub(super) fn delay_again(&mut self, now: Now) {
        let plan = self.plan.clone();
        for (id, _) in plan.tasks() {
            let start_at = self.delayed(id, now);
            if let Some(due) = self.tasks[id.index()].due.as_mut().filter(|due| due.makes_up() && !due.hurried) {
                due.start_at = start_at;
                self.work.push_back(id);
            }
        }
    }

    /// Leads the due run as far as it gets.
    pub(super) fn step_due(&mut self, id: TaskId, now: Now) {
        if self.closing {
            return;
        }
        let plan = self.plan.clone();
        let task = plan.task(id);
        if self.has_waited_too_long(id, task, now) {
            return self.drop_due(id, None, now);
        }
        while let Some(stage) = self.tasks[id.index()].due.as_ref().map(|due| due.stage) {
            let next = match stage {
                Stage::Start => self.leave_start(id, task, now),
                Stage::Behind => self.tasks[id.index()].active.is_none().then_some(Stage::Secrets),
                Stage::Secrets => self.has_secrets(id).then_some(Stage::Condition { ask_at: nanos(now.boot) }),
                Stage::Condition { ask_at } => self.leave_condition(id, task, ask_at, now),
                Stage::Lock { ticket } => {
                    let taken = self.locks.take(ticket, &task.policy.locks);
                    taken.then(|| self.join_turns(id, now))
                }
                Stage::Turn { ticket } => self.leave_turn(ticket),
                Stage::FileLocks if self.has_file_locks(id, task) => return self.begin_run(id, now),
                Stage::FileLocks => None,
                Stage::FileLocksBusy { again_at } => {
                    (nanos(now.boot) >= again_at).then(|| Stage::Turn { ticket: self.turns.join(id) })
                }
            };
            let Some(due) = &mut self.tasks[id.index()].due else { return };
            match next {
                Some(stage) => due.stage = stage,
                None => break,
            }
        }
        self.record_waiting(id, now);
    }

    fn has_waited_too_long(&self, id: TaskId, task: &Task, now: Now) -> bool {
        let entry = &self.tasks[id.index()];
        let waits = entry.due.as_ref().is_some_and(|due| due.stage != Stage::Start);
        waits && entry.gives_up_at(task).is_some_and(|at| at <= nanos(now.boot))
    }

    /// Goes ahead a moment early if the task is free, so that all is ready at the slot; meets an active run on time.
    fn leave_start(&mut self, id: TaskId, task: &Task, now: Now) -> Option<Stage> {
        let entry = &self.tasks[id.index()];
        let due = entry.due.as_ref()?;
        match &entry.active {
            None => (nanos(now.boot) >= due.start_at - AHEAD).then_some(Stage::Secrets),
            Some(_) if nanos(now.boot) < due.start_at => None,
            Some(_) => self.meet_active(id, task, now),
        }
    }

    /// The task's last run has not ended. One that waits to retry makes place; otherwise `overlap` decides.
    fn meet_active(&mut self, id: TaskId, task: &Task, now: Now) -> Option<Stage> {
        let active = self.tasks[id.index()].active.as_ref()?;
        if active.waits_to_retry() {
            let run = active.run;
            let by_hand = self.tasks[id.index()].due.as_ref().is_some_and(|due| due.hurried);
            self.say(Notice::RetryReplaced { task: id, run, by_hand });
            self.end_as_it_is(id, now);
            return Some(Stage::Secrets);
        }
        match task.policy.overlap {
            Overlap::Queue => Some(Stage::Behind),
            Overlap::Skip => {
                self.drop_due(id, Some(Outcome::Skipped(SkipReason::Overlap)), now);
                None
            }
        }
    }

    fn leave_condition(&mut self, id: TaskId, task: &Task, ask_at: Boot, now: Now) -> Option<Stage> {
        let entry = &mut self.tasks[id.index()];
        let hurried = entry.due.as_ref().is_some_and(|due| due.hurried);
        let anyway = entry.run_anyway_at(task).is_some_and(|at| at <= now.wall);
        if task.policy.only_if.is_none() || hurried || anyway {
            return Some(Stage::Lock { ticket: self.locks.join(id, &task.policy.locks) });
        }
        if !entry.asking && nanos(now.boot) >= ask_at {
            entry.asking = true;
            self.actions.push(Action::AskCondition { task: id });
        }
        None
    }

    pub(super) fn condition_answered(&mut self, id: TaskId, passed: bool, now: Now) {
        let plan = self.plan.clone();
        let policy = &plan.task(id).policy;
        let entry = &mut self.tasks[id.index()];
        entry.asking = false;
        self.work.push_back(id);
        let Some(due) = entry.due.as_mut().filter(|due| matches!(due.stage, Stage::Condition { .. })) else {
            return;
        };
        if passed {
            due.stage = Stage::Lock { ticket: self.locks.join(id, &policy.locks) };
        } else {
            let recheck = policy.only_if.as_ref().map_or(0, |condition| nanos(condition.recheck));
            due.stage = Stage::Condition { ask_at: nanos(now.boot) + recheck.max(SECOND) };
        }
    }

    /// Ahead of its slot, what its start takes may be made ready, also where it will have to wait for its turn: those
    /// before it may be quick.
    fn join_turns(&mut self, id: TaskId, now: Now) -> Stage {
        if self.tasks[id.index()].due.as_ref().is_some_and(|due| due.start_at > nanos(now.boot)) {
            self.actions.push(Action::MakeReady);
        }
        Stage::Turn { ticket: self.turns.join(id) }
    }

    fn leave_turn(&mut self, ticket: Ticket) -> Option<Stage> {
        let taken = self.turns.take(ticket);
        if taken {
            self.pass_on_turn();
        }
        taken.then_some(Stage::FileLocks)
    }

    /// Whether the task has its file locks; asks for them if it has not.
    fn has_file_locks(&mut self, id: TaskId, task: &Task) -> bool {
        let entry = &mut self.tasks[id.index()];
        if task.policy.locks.is_empty() || entry.file_locks == FileLocks::Held {
            return true;
        }
        if entry.file_locks == FileLocks::None {
            entry.file_locks = FileLocks::Asked;
            self.actions.push(Action::TakeFileLocks { task: id, locks: task.policy.locks.clone() });
        }
        false
    }

    pub(super) fn file_locks(&mut self, id: TaskId, taken: bool, now: Now) {
        let entry = &mut self.tasks[id.index()];
        if entry.file_locks != FileLocks::Asked {
            return;
        }
        entry.file_locks = if taken { FileLocks::Held } else { FileLocks::None };
        self.work.push_back(id);
        match &mut entry.due {
            Some(Due { stage: Stage::FileLocks, .. }) if taken => {}
            Some(Due { stage: stage @ Stage::FileLocks, .. }) => {
                *stage = Stage::FileLocksBusy { again_at: nanos(now.boot) + FILE_LOCKS_AGAIN };
                self.turns.release();
                self.pass_on_turn();
            }
            // Nobody waits for them any more.
            _ => self.release_file_locks(id),
        }
    }

    pub(super) fn file_locks_freed(&mut self, now: Now) {
        let plan = self.plan.clone();
        for (id, _) in plan.tasks() {
            let due = self.tasks[id.index()].due.as_mut();
            if let Some(Stage::FileLocksBusy { again_at }) = due.map(|due| &mut due.stage) {
                *again_at = nanos(now.boot);
                self.work.push_back(id);
            }
        }
    }

    pub(super) fn release_file_locks(&mut self, id: TaskId) {
        let entry = &mut self.tasks[id.index()];
        if entry.file_locks == FileLocks::Held {
            entry.file_locks = FileLocks::None;
            self.actions.push(Action::ReleaseFileLocks { task: id });
        }
    }

    /// It has all it needs: from here on it is an active run, whose start is recorded before it happens.
    fn begin_run(&mut self, id: TaskId, now: Now) {
        let Some(due) = self.tasks[id.index()].due.take() else { return };
        let active = Active::new(self.next_run_id(), &due, now);
        let task = self.plan.task(id).name.clone();
        let wall = shift(now.wall, active.start_at - nanos(now.boot));
        let started = Started { task, slot: due.slot, cause: due.cause, wall };
        self.book.note_start(id, active.run, Record::Started { run: active.run, started });
        self.active_runs.insert(active.run, id);
        self.tasks[id.index()].active = Some(Box::new(active));
    }

    pub(super) fn pass_on_turn(&mut self) {
        self.work.extend(self.turns.next());
    }

    pub(super) fn has_secrets(&self, id: TaskId) -> bool {
        let is_there = |secret: SecretId| self.secrets.get(secret.index()).copied().unwrap_or(false);
        self.plan.task(id).commands_of_run().flat_map(Step::secrets).all(is_there)
    }

    /// What was there may be gone: a run that has not started waits for it, and keeps nobody else waiting.
    pub(super) fn secrets_available(&mut self, secrets: &[SecretId], now: Now) {
        let plan = self.plan.clone();
        self.secrets = plan.secrets().map(|(id, _)| secrets.contains(&id)).collect();
        for (id, _) in plan.tasks() {
            if !self.closing && !self.has_secrets(id) {
                self.withdraw(id, Stage::Secrets, now);
                if self.tasks[id.index()].due.as_ref().is_some_and(Due::has_passed_secrets) {
                    self.leave_lines(id);
                    if let Some(due) = &mut self.tasks[id.index()].due {
                        due.stage = Stage::Secrets;
                    }
                }
            }
            self.work.push_back(id);
        }
    }

    /// Gives up all that the due run holds or stands in line for.
    pub(super) fn leave_lines(&mut self, id: TaskId) {
        let plan = self.plan.clone();
        let locks = &plan.task(id).policy.locks;
        match self.tasks[id.index()].due.as_ref().map(|due| due.stage) {
            Some(Stage::Lock { ticket }) => self.work.extend(self.locks.leave(ticket, locks)),
            Some(Stage::FileLocksBusy { .. }) => self.release_locks(id),
            Some(Stage::FileLocks) => {
                self.turns.release();
                self.pass_on_turn();
                self.release_locks(id);
            }
            Some(Stage::Turn { ticket }) => {
                self.turns.leave(ticket);
                self.pass_on_turn();
                self.release_locks(id);
            }
            _ => {}
        }
    }

    pub(super) fn release_locks(&mut self, id: TaskId) {
        let plan = self.plan.clone();
        self.work.extend(self.locks.release(&plan.task(id).policy.locks));
        self.release_file_locks(id);
    }

    /// The due run ends without a start, by default because it could not get past where it is.
    pub(super) fn drop_due(&mut self, id: TaskId, outcome: Option<Outcome>, now: Now) {
        self.leave_lines(id);
        if let Some(due) = self.tasks[id.index()].due.take() {
            let outcome = outcome.unwrap_or(Outcome::Skipped(due.reason()));
            self.not_run(id, due.slot, due.cause, outcome, now);
        }
        self.work.push_back(id);
    }

    pub(super) fn not_run(&mut self, id: TaskId, slot: DateTime<Utc>, cause: Cause, outcome: Outcome, now: Now) {
        let task = self.plan.task(id).name.clone();
        let record = Record::NotRun { task, slot, cause, wall: now.wall, outcome };
        self.actions.extend(self.book.note_end(record, Action::NotRun { task: id, slot, cause, outcome }));
    }

    /// Records the due run if it has to wait: not in the last second before its slot, nor while it is unknown
    /// whether it has to, so that most runs need no record but that of their start.
    fn record_waiting(&mut self, id: TaskId, now: Now) {
        let entry = &self.tasks[id.index()];
        let Some(due) = &entry.due else { return };
        let brief = match due.stage {
            Stage::Start => matches!(due.cause, Cause::Slot | Cause::Start | Cause::Manual),
            Stage::FileLocks => true,
            _ => false,
        };
        if !brief && !due.recorded {
            let what = entry.what_due_waits_for(due);
            if what != Wait::Start {
                let slot = due.slot;
                self.say(Notice::Waits { task: id, slot, what });
            }
            self.record_due(id, now);
        }
    }

    /// Records the due run, if there is one and it is not on its way to the ledger yet.
    pub(super) fn record_due(&mut self, id: TaskId, now: Now) {
        let name = &self.plan.task(id).name;
        if let Some(due) = self.tasks[id.index()].due.as_mut().filter(|due| !due.recorded) {
            due.recorded = true;
            let since = shift(now.wall, due.start_at - nanos(now.boot));
            let recorded = RecordedDue { slot: due.slot, cause: due.cause, since };
            self.book.note(Record::Due { task: name.clone(), due: recorded });
        }
    }

    /// A due run as the ledger has it.
    pub(super) fn due_again(recorded: &RecordedDue, latest: Boot, now: Now) -> Due {
        let start_at = nanos(now.boot) + between(now.wall, recorded.since);
        let mut due = Due::new(recorded.slot, recorded.cause, start_at.min(latest));
        if due.makes_up() {
            // At each start anew, as the network is to come up again.
            due.start_at = latest;
        }
        due.recorded = true;
        due
    }

    /// A `run` command: starts the due run if there is one, else makes one due; obeys `overlap`.
    pub(super) fn manual(&mut self, id: TaskId, now: Now) {
        let answer = self.answer_manual(id);
        if !matches!(answer, ManualAnswer::Refused(_)) {
            let entry = &mut self.tasks[id.index()];
            let due = entry.due.get_or_insert_with(|| Due::new(now.wall, Cause::Manual, nanos(now.boot)));
            due.hurried = true;
            due.start_at = due.start_at.min(nanos(now.boot));
            self.work.push_back(id);
        }
        self.actions.push(Action::ManualAnswer { task: id, answer });
    }

    fn answer_manual(&self, id: TaskId) -> ManualAnswer {
        let task = self.plan.task(id);
        let in_the_way = self.tasks[id.index()].active.as_ref().filter(|active| !active.waits_to_retry());
        match in_the_way {
            _ if self.closing => ManualAnswer::Refused(Refusal::ShuttingDown),
            _ if !task.enabled => ManualAnswer::Refused(Refusal::Disabled),
            None => ManualAnswer::Starting,
            Some(active) if task.policy.overlap == Overlap::Queue => ManualAnswer::Queued { behind: active.run },
            Some(active) => ManualAnswer::Refused(Refusal::Running(active.run)),
        }
    }

    /// Takes back a start that was recorded or is about to be: the run is due again, at `stage`.
    pub(super) fn withdraw(&mut self, id: TaskId, stage: Stage, now: Now) {
        let recorded_ahead = |active: &mut Box<Active>| matches!(active.phase, Phase::Recording | Phase::Ready);
        let Some(active) = self.tasks[id.index()].active.take_if(recorded_ahead) else { return };
        self.active_runs.remove(&active.run);
        self.book.note(Record::Withdrawn { run: active.run });
        self.turns.release();
        self.pass_on_turn();
        self.release_locks(id);
        let mut due = Due::new(active.slot, active.cause, active.start_at);
        (due.hurried, due.recorded, due.stage) = (active.hurried, true, stage);
        if let Some(newer) = self.tasks[id.index()].due.take() {
            self.not_run(id, due.slot, due.cause, Outcome::Skipped(SkipReason::Overlap), now);
            due = Due { recorded: false, ..newer };
        }
        self.tasks[id.index()].due = Some(due);
        self.work.push_back(id);
    }
}
