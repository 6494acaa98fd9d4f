//! What the records of a ledger add up to: the records themselves, and the state after them.
//!
//! `State::apply` is the only meaning that a record has; the daemon's live state and the one
//! read back after its death both come from it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::outcome::{Outcome, RunId};

/// How many ended runs are kept of all tasks together, and of one task at least and at most.
const PAST_OF_ALL: usize = 20_000;
const PAST_OF_ONE: (usize, usize) = (10, 100);

/// A last slot further in the future than this means that the clock was corrected.
pub const FUTURE_MAX: TimeDelta = TimeDelta::hours(3);

/// Why a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A slot, noticed on time.
    Slot,
    /// A slot that was missed, under `missed: run`.
    Missed,
    /// `@start`.
    Start,
    /// `@reboot`.
    Reboot,
    /// The task's last run was cut short by the daemon's death or shutdown.
    Repeat,
    /// Somebody asked for it.
    Manual,
}

impl Cause {
    const ALL: [Cause; 6] = [Cause::Slot, Cause::Missed, Cause::Start, Cause::Reboot, Cause::Repeat, Cause::Manual];

    pub fn name(self) -> &'static str {
        match self {
            Cause::Slot => "slot",
            Cause::Missed => "missed",
            Cause::Start => "start",
            Cause::Reboot => "reboot",
            Cause::Repeat => "repeat",
            Cause::Manual => "manual",
        }
    }

    /// The cause that `name` gives this name.
    pub fn named(name: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.name() == name)
    }

    /// Whether its slot is one of the schedule's, which then counts as handled.
    pub fn is_scheduled(self) -> bool {
        matches!(self, Cause::Slot | Cause::Missed)
    }

    /// Whether a run of this cause is repeated when it was cut: a second cut is final, and `@start` comes by itself.
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Cause::Repeat | Cause::Start)
    }
}

/// One thing that happened, as it is written down.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A daemon took over: this boot's `@reboot` is handled, sessions of former daemons are no more.
    Begun { boot: String, wall: DateTime<Utc> },
    /// A task is new or its schedule changed (its fingerprint is `schedule`): its slots count from now.
    Task { task: String, schedule: u64, wall: DateTime<Utc> },
    /// A task is no longer in the configuration.
    Gone { task: String },
    /// A run became due, was judged, and waits. Its slot is handled.
    Due { task: String, due: Due },
    /// A slot was handled, or a due run ended, without a run: `Skipped`, or `Stopped` by `stop TASK`.
    NotRun { task: String, slot: DateTime<Utc>, cause: Cause, wall: DateTime<Utc>, outcome: Outcome },
    /// A run starts. Its slot is handled, and the task's due run is this one.
    Started { run: RunId, started: Started },
    /// A run that was recorded ahead of its start will not start; it is due again.
    Withdrawn { run: RunId },
    /// The alarm was raised that the task's last success is too long ago.
    Stale { task: String },
    /// A command was spawned as leader of a session of its own, before its program began.
    Session(Session),
    /// That session's leader ended and was reaped.
    SessionEnded { pid: i32, start: u64 },
    /// A run ended. `took` is unknown of a run that crashed; `cut`: by the daemon's death or shutdown.
    Ended {
        run: RunId,
        outcome: Outcome,
        exit_code: Option<i32>,
        wall: DateTime<Utc>,
        took: Option<Duration>,
        attempts: u32,
        cut: bool,
    },
}

/// A run that is due and has not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    /// Since when it waits, for `max_wait`; in the future while its start is delayed.
    pub since: DateTime<Utc>,
}

/// A run that has started and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub task: String,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    pub wall: DateTime<Utc>,
}

/// A session that a command leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `None` for hooks and conditions.
    pub run: Option<RunId>,
    pub task: String,
    pub pid: i32,
    /// The start time of the process, in the kernel's unit, against a reused pid.
    pub start: u64,
    pub boot: String,
}

/// A line of the history: a run that ended, or a due run that never started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// `None` if it never started.
    pub run: Option<RunId>,
    pub task: String,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    pub started: Option<DateTime<Utc>>,
    pub ended: DateTime<Utc>,
    pub outcome: Outcome,
    pub exit_code: Option<i32>,
    pub took: Option<Duration>,
    pub attempts: u32,
    pub cut: bool,
}

/// What is known of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// Fingerprint of its schedule; `None` if it was not in the last configuration.
    pub schedule: Option<u64>,
    pub first_seen: DateTime<Utc>,
    /// Since when this schedule holds.
    pub from: DateTime<Utc>,
    /// The last slot handled: none up to it is ever started again.
    pub last_slot: DateTime<Utc>,
    /// The last slot handled before the clock was set back by more than `FUTURE_MAX`, until slots are past it.
    pub before_correction: Option<DateTime<Utc>>,
    pub due: Option<Due>,
    /// Its last run was cut and may be repeated.
    pub cut: bool,
    pub last_start: Option<DateTime<Utc>>,
    pub last_success: Option<DateTime<Utc>>,
    /// Of its last run that started.
    pub last_outcome: Option<Outcome>,
    /// Whether the last run that came to a result of its own failed.
    pub failing: bool,
    /// The alarm was raised that its last success is too long ago.
    pub stale: bool,
    /// Oldest first.
    pub past: VecDeque<Past>,
}

/// All that the records say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub tasks: BTreeMap<String, TaskState>,
    /// The id of the next run.
    pub next_run: u64,
    /// The boot in which the last daemon began.
    pub boot: Option<String>,
    /// Runs without an end; for a new daemon: interrupted ones.
    pub running: BTreeMap<RunId, Started>,
    pub sessions: Vec<Session>,
}

impl Default for State {
    fn default() -> Self {
        State { tasks: BTreeMap::new(), next_run: 1, boot: None, running: BTreeMap::new(), sessions: Vec::new() }
    }
}

impl TaskState {
    pub(super) fn new(wall: DateTime<Utc>) -> Self {
        TaskState {
            schedule: None,
            first_seen: wall,
            from: wall,
            last_slot: wall,
            before_correction: None,
            due: None,
            cut: false,
            last_start: None,
            last_success: None,
            last_outcome: None,
            failing: false,
            stale: false,
            past: VecDeque::new(),
        }
    }

    /// Counts slots from `wall` on.
    fn begin(&mut self, schedule: u64, wall: DateTime<Utc>) {
        self.schedule = Some(schedule);
        self.from = wall;
        self.last_slot = wall;
        self.before_correction = None;
        self.due = None;
    }

    /// Forgets all about slots, and so counts as new when it is seen again.
    fn forget_slots(&mut self) {
        self.schedule = None;
        self.due = None;
        self.cut = false;
    }

    /// A due run got its end or its start; a slot that was never recorded as due is handled with it.
    fn settle(&mut self, slot: DateTime<Utc>, cause: Cause) {
        match &self.due {
            Some(due) if due.slot == slot && due.cause == cause => self.due = None,
            _ if cause.is_scheduled() => self.handle(slot),
            _ => {}
        }
    }

    fn handle(&mut self, slot: DateTime<Utc>) {
        if slot < self.last_slot - FUTURE_MAX {
            self.before_correction = self.before_correction.max(Some(self.last_slot));
            self.last_slot = slot;
        }
        self.last_slot = self.last_slot.max(slot);
        self.before_correction = self.before_correction.filter(|mark| *mark > self.last_slot);
    }
}

impl State {
    /// What ended, of `task` or of all, by the time of its end.
    pub fn history(&self, task: Option<&str>) -> Vec<&Past> {
        let mut past: Vec<&Past> = match task {
            Some(name) => self.tasks.get(name).into_iter().flat_map(|task| &task.past).collect(),
            None => self.tasks.values().flat_map(|task| &task.past).collect(),
        };
        past.sort_by_key(|past| past.ended);
        past
    }

    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Begun { boot, .. } => {
                self.boot = Some(boot.clone());
                self.sessions.clear();
            }
            Record::Task { task, schedule, wall } => {
                self.tasks.entry(task.clone()).or_insert_with(|| TaskState::new(*wall)).begin(*schedule, *wall);
            }
            Record::Gone { task } => self.on_task(task, TaskState::forget_slots),
            Record::Due { task, due } => self.on_task(task, |state| {
                state.settle(due.slot, due.cause);
                state.due = Some(due.clone());
                state.cut = false;
            }),
            Record::NotRun { task, slot, cause, wall, outcome } => self.not_run(task, *slot, *cause, *wall, *outcome),
            Record::Started { run, started } => self.started(*run, started),
            Record::Withdrawn { run } => self.withdrawn(*run),
            Record::Stale { task } => self.on_task(task, |task| task.stale = true),
            Record::Session(session) => self.sessions.push(session.clone()),
            Record::SessionEnded { pid, start } => {
                self.sessions.retain(|session| (session.pid, session.start) != (*pid, *start));
            }
            Record::Ended { run, outcome, exit_code, wall, took, attempts, cut } => {
                if let Some(started) = self.running.remove(run) {
                    self.ended(Past {
                        run: Some(*run),
                        task: started.task,
                        slot: started.slot,
                        cause: started.cause,
                        started: Some(started.wall),
                        ended: *wall,
                        outcome: *outcome,
                        exit_code: *exit_code,
                        took: *took,
                        attempts: *attempts,
                        cut: *cut,
                    });
                }
            }
        }
    }

    fn on_task(&mut self, name: &str, change: impl FnOnce(&mut TaskState)) {
        if let Some(task) = self.tasks.get_mut(name) {
            change(task);
        }
    }

    fn not_run(&mut self, name: &str, slot: DateTime<Utc>, cause: Cause, wall: DateTime<Utc>, outcome: Outcome) {
        self.on_task(name, |task| {
            task.settle(slot, cause);
            task.cut &= cause != Cause::Repeat;
        });
        self.remember(Past {
            run: None,
            task: name.to_string(),
            slot,
            cause,
            started: None,
            ended: wall,
            outcome,
            exit_code: None,
            took: None,
            attempts: 0,
            cut: false,
        });
    }

    fn started(&mut self, run: RunId, started: &Started) {
        self.next_run = self.next_run.max(run.0.saturating_add(1));
        self.running.insert(run, started.clone());
        self.on_task(&started.task, |task| {
            task.settle(started.slot, started.cause);
            task.due = None;
            task.cut = false;
            task.last_start = Some(started.wall);
        });
    }

    fn withdrawn(&mut self, run: RunId) {
        if let Some(started) = self.running.remove(&run) {
            let due = Due { slot: started.slot, cause: started.cause, since: started.wall };
            self.on_task(&started.task, |task| task.due = Some(due));
        }
    }

    fn ended(&mut self, past: Past) {
        self.on_task(&past.task, |task| {
            task.last_outcome = Some(past.outcome);
            task.cut = past.cut && past.cause.is_repeatable();
            match past.outcome {
                Outcome::Success => {
                    task.last_success = Some(past.ended);
                    task.failing = false;
                    task.stale = false;
                }
                Outcome::Warning => task.failing = false,
                Outcome::Failure | Outcome::Timeout | Outcome::Crashed => task.failing = true,
                Outcome::Stopped | Outcome::Skipped(_) => {}
            }
        });
        self.remember(past);
    }

    pub(super) fn remember(&mut self, past: Past) {
        let (least, most) = PAST_OF_ONE;
        let keep = (PAST_OF_ALL / self.tasks.len().max(1)).clamp(least, most);
        if let Some(task) = self.tasks.get_mut(&past.task) {
            task.past.push_back(past);
            let surplus = task.past.len().saturating_sub(keep);
            task.past.drain(..surplus);
        }
    }

    /// After damage: what is readable of the past stays, but no slot is taken on trust, so all tasks start from
    /// now, and ids go on behind all that the `lost` bytes may have held.
    pub(super) fn salvage(&mut self, lost: u64) {
        const LINE_MIN: u64 = 16;
        self.next_run = self.next_run.saturating_add(lost / LINE_MIN + 1);
        self.tasks.values_mut().for_each(TaskState::forget_slots);
    }
}
