//! The scheduler as a pure function: time and event in, actions out. It reads no clock, does no
//! I/O, starts no thread and throws no dice, so years of it pass in a test in milliseconds.
//!
//! Each task has at most one *due* run, which has not started, and one *active* run, which has.
//! A slot (`slots`) makes a run due; a due run goes through the steps of `due`: its delay, the
//! run before it, secrets, condition, locks, its turn; then it is recorded and becomes active,
//! which is the subject of `run`. `begin` is what a new daemon makes of the ledger.
//!
//! The rules, by the name of the code that keeps them:
//!
//! - *on time or missed*: `Slots::notice` tells, once; `Agenda::slot_came` acts on it.
//! - *ends are told once they are on disk*: `Book::note_end`.
//! - *nothing starts twice*: a slot is taken by `Slots::notice` and never given again; `Book` lets
//!   no run start before the ledger has it. If it cannot be written, the run waits and writing is
//!   tried again every 10 s: a run that is late and loudly so is better than one that may run
//!   twice at once after a crash.
//! - *one sync, up to 1 s ahead*: `AHEAD`; runs that need not wait are recorded before their slot.
//! - *next slot takes its place*: `slot_came` keeps the place in line and replaces the slot.
//! - *one run makes up for all that was missed*: `Agenda::delayed`, and `delay_again` after each suspend.
//! - *a new or changed task starts from now*: `Entry::new`, `Agenda::greet_task`.
//! - *cut once, repeated once*: `Cause::is_repeatable`, `Agenda::will_repeat`.
//! - *jitter moves starts, not slots*: `slots::offset`, which is added wherever a start is told from a slot.
//! - *overlap, retry ends at the next slot*: `Agenda::meet_active`.
//! - *locks and turns in order, nobody starves*: `queues`.
//! - *timeout, while awake*: `start_try` sets the deadline; the runner keeps it in a try, `step_active` between two.
//! - *order of conditions*: `Agenda::step_due`.
//! - *clock*: `Agenda::observe`; `Slots::correct` where a last slot lies in the future.

mod alarms;
mod begin;
mod book;
mod due;
mod queues;
mod rest;
mod run;
#[cfg(test)]
mod simulation;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::clock::{Now, Ticks, nanos};
use crate::ledger::{Cause, Record};
use crate::outcome::{Outcome, RunId};
use crate::plan::{LockRequest, Missed, Plan, SecretId, Task, TaskId};
use alarms::Alarms;
use book::Book;
use due::{Due, Stage};
use queues::{Locks, Turns};
use rest::departure;
use run::{Active, Phase};
use slots::{AHEAD, Boot, SECOND, Slots, between, shift};

pub use rest::Rest;

/// The wall clock was set if it departs from the boot clock by more than this between two looks at them.
const JUMP: Boot = 60 * SECOND;

/// The machine slept if the boot clock departs from the awake clock by more than this between two looks.
const SLEEP: Boot = 5 * SECOND;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The try of a run ended; `Stopped` if it was told to stop, `Timeout` if its deadline came.
    TryEnded { run: RunId, outcome: Outcome, exit_code: Option<i32>, fatal: bool },
    /// The answer to `AskCondition`, which must come; a check that cannot be made has not passed.
    ConditionAnswered { task: TaskId, passed: bool },
    /// All secrets that are there now: after start, `lock`, `refresh` and when a source was late.
    SecretsAvailable(Vec<SecretId>),
    /// Answers to `TakeFileLocks`: whether all of them were taken, or none. One event may answer several actions,
    /// so that one sync serves all.
    FileLocks(Vec<(TaskId, bool)>),
    /// Somebody let go of file locks: those that were busy are asked for again at once.
    FileLocksFreed,
    /// A `run` command.
    Manual { task: TaskId },
    /// A `stop` command: ends the task's run, also one that waits.
    StopTask { task: TaskId },
    /// Nothing starts any more; what runs is stopped and what is due stays so on disk.
    Shutdown,
    /// The answer to `Record`: whether all of it was written and synced.
    Recorded(bool),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write these and answer with `Recorded`. No other such action comes before the answer, and what must wait
    /// for the records comes only after it.
    Record(Vec<Record>),
    /// Run the task's `only_if` and answer with `ConditionAnswered`.
    AskCondition {
        task: TaskId,
    },
    /// Take these locks as file locks too, without waiting, all or none, and answer with `FileLocks`.
    TakeFileLocks {
        task: TaskId,
        locks: Vec<LockRequest>,
    },
    ReleaseFileLocks {
        task: TaskId,
    },
    /// A run starts in a moment, most likely: what takes time may be made ready.
    MakeReady,
    StartTry(Try),
    /// Stop the run's try; its end is told as ever.
    StopTry {
        run: RunId,
        why: StopWhy,
    },
    /// A run ended for good, and that is on disk if the disk can be written to.
    Ended(Ended),
    /// A slot or a due run came to nothing: `Skipped`, or `Stopped` by `stop TASK`; on disk as above.
    NotRun {
        task: TaskId,
        slot: DateTime<Utc>,
        cause: Cause,
        outcome: Outcome,
    },
    /// The answer to `Manual`, in the list that it returns.
    ManualAnswer {
        task: TaskId,
        answer: ManualAnswer,
    },
    /// The answer to `StopTask`, in the list that it returns: whether there was anything to stop.
    StopAnswer {
        task: TaskId,
        found: bool,
    },
    /// Something for the log.
    Notice(Notice),
}

/// One try of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    pub run: RunId,
    pub task: TaskId,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    /// From 1.
    pub attempt: u32,
    /// When the run's `timeout` is over, on the awake clock.
    pub deadline: Option<Duration>,
}

/// Who wants a run to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopWhy {
    /// `stop TASK`.
    Task,
    Shutdown,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub run: RunId,
    pub task: TaskId,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    pub outcome: Outcome,
    /// Of its last try.
    pub exit_code: Option<i32>,
    /// From its start, retries included, a suspend counted; unknown of a run that crashed.
    pub took: Option<Duration>,
    pub attempts: u32,
    /// It was cut by the daemon's death or shutdown, and whether it will be repeated for that.
    pub cut: bool,
    pub repeats: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManualAnswer {
    /// It starts as soon as it may.
    Starting,
    /// Under `overlap: queue` it starts after the run that is active.
    Queued {
        behind: RunId,
    },
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Disabled,
    /// Under `overlap: skip`, by this run of the task.
    Running(RunId),
    ShuttingDown,
}

/// A run that waits, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub task: TaskId,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    /// How long it has been waiting.
    pub waited: Duration,
    pub what: Wait,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its start: `missed_delay`, `jitter`, or the last second before its slot.
    Start,
    /// The task's active run, under `overlap: queue`.
    Behind(RunId),
    Secrets,
    Condition,
    /// A lock that another run of this daemon holds or stands in line for.
    Lock,
    /// A lock that another process holds: `once`.
    FileLock,
    /// Its turn among `max_concurrent_runs`.
    Turn,
    /// The ledger.
    Record,
    /// Its next try.
    Retry {
        run: RunId,
        attempt: u32,
    },
}

/// A task's run that has not started, with an `attempt` of 0, or that is between its tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unstarted {
    pub run: RunId,
    pub attempt: u32,
}

/// A run whose try is under way, for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    pub run: RunId,
    pub task: TaskId,
    pub slot: DateTime<Utc>,
    pub cause: Cause,
    pub attempt: u32,
    pub running_for: Duration,
}

/// Something that a reader of the log wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The wall clock was set, by this many seconds.
    ClockJumped { seconds: i64 },
    /// The last slots of this many tasks lay more than 3 h in the future; they go on from now.
    ClockCorrected { tasks: usize },
    /// The machine slept.
    Slept { seconds: u64 },
    /// The task was not in the ledger: it starts from now.
    NewTask { task: TaskId },
    /// Its schedule is another than in the ledger: it starts from now.
    ScheduleChanged { task: TaskId },
    /// Slots were missed, this one last; a run for all of them starts after `delay`.
    Missed { task: TaskId, slot: DateTime<Utc>, delay: Duration },
    /// A due run has to wait.
    Waits { task: TaskId, slot: DateTime<Utc>, what: Wait },
    /// A try failed; the next one comes after `delay`.
    Retries { task: TaskId, run: RunId, attempt: u32, delay: Duration },
    /// A run ends without its next try, because the task's next slot has come, or because somebody asked for a run.
    RetryReplaced { task: TaskId, run: RunId, by_hand: bool },
    /// A run that was cut is repeated after `delay`.
    Repeats { task: TaskId, delay: Duration },
    /// A run that was a repetition itself was cut: it is not repeated.
    CutAgain { task: TaskId, run: RunId },
    /// Records could not be written for this many times in a row; runs wait for them.
    NotRecorded { failures: u32 },
    /// They are written now.
    RecordedAgain,
}

/// The scheduler.
#[derive(Debug)]
pub struct Agenda {
    plan: Arc<Plan>,
    tasks: Vec<Entry>,
    locks: Locks,
    turns: Turns,
    secrets: Vec<bool>,
    active_runs: BTreeMap<RunId, TaskId>,
    next_run: u64,
    book: Book,
    wall_alarms: Alarms<DateTime<Utc>>,
    boot_alarms: Alarms<Boot>,
    /// As they read at the last look.
    clocks: Ticks,
    closing: bool,
    /// Tasks to look at before the present event is done with.
    work: VecDeque<TaskId>,
    actions: Vec<Action>,
}

/// What the scheduler knows of one task.
#[derive(Debug)]
struct Entry {
    slots: Slots,
    first_seen: DateTime<Utc>,
    last_success: Option<DateTime<Utc>>,
    due: Option<Due>,
    /// Boxed, as few tasks have one at a time.
    active: Option<Box<Active>>,
    /// Its condition is being asked.
    asking: bool,
    file_locks: FileLocks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileLocks {
    None,
    Asked,
    Held,
}

impl Agenda {
    /// Takes in an event, and all that time has brought since the last one.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.observe(now);
        self.take_in(event, now);
        while let Some(task) = self.wall_alarms.pop(now.wall) {
            self.work.push_back(task);
        }
        while let Some(task) = self.boot_alarms.pop(nanos(now.boot)) {
            self.work.push_back(task);
        }
        self.finish(now)
    }

    /// How long until it wants a `Tick`; `None` if only an event can bring anything. The wall clock may be set in
    /// the meantime, so the caller looks again after 30 s at the latest.
    pub fn next_wake(&self, now: Now) -> Option<Duration> {
        let by_wall = self.wall_alarms.first().map(|time| between(now.wall, time));
        let by_boot = self.boot_alarm().map(|time| time - nanos(now.boot));
        let wake = by_wall.into_iter().chain(by_boot).min()?;
        Some(Duration::from_nanos(wake.max(0) as u64))
    }

    /// The earliest point of the boot clock at which a task or the book wants a `Tick`.
    fn boot_alarm(&self) -> Option<Boot> {
        self.boot_alarms.first().into_iter().chain(self.book.wakes_at()).min()
    }

    /// To rest as long as no event comes, and at most `longest`; see `Rest::look`.
    pub fn rest(&self, now: Now, longest: Option<Duration>) -> Rest {
        let wall_alarm = self.wall_alarms.first().and_then(|time| time.timestamp_nanos_opt());
        let end = longest.map(|longest| nanos(now.boot).saturating_add(nanos(longest)));
        Rest::new(self.clocks, wall_alarm, self.boot_alarm().into_iter().chain(end).min())
    }

    /// An event has come, or `Rest::look` has found that one must.
    pub fn end_rest(&mut self, rest: &Rest) {
        self.clocks = rest.last();
    }

    /// After `Shutdown`: whether nothing runs any more and all that could be recorded is.
    pub fn is_idle(&self) -> bool {
        self.active_runs.is_empty() && self.book.is_done()
    }

    /// Whether a run of `other` would have to wait for a run of `task`.
    pub fn conflict(&self, task: TaskId, other: TaskId) -> bool {
        let locks = |id| &self.plan.task(id).policy.locks;
        let shares = |a: &LockRequest, b: &LockRequest| a.lock == b.lock && !(a.shared && b.shared);
        task == other || locks(task).iter().any(|a| locks(other).iter().any(|b| shares(a, b)))
    }

    /// Whether a run of the task is on its way to its start.
    pub fn is_due(&self, task: TaskId) -> bool {
        let entry = &self.tasks[task.index()];
        entry.due.is_some() || entry.active.as_ref().is_some_and(|active| active.attempt == 0)
    }

    /// When the task's next slot starts its run (jitter included), on the wall clock as it is now.
    pub fn next_start(&self, task: TaskId, now: Now) -> Option<DateTime<Utc>> {
        if !self.plan.task(task).enabled {
            return None;
        }
        let (crontab, every) = self.tasks[task.index()].slots.next_starts();
        let every = every.map(|start| shift(now.wall, start - nanos(now.boot)));
        crontab.into_iter().chain(every).min()
    }

    /// The task's run whose try is yet to start.
    pub fn unstarted(&self, task: TaskId) -> Option<Unstarted> {
        let active = self.tasks[task.index()].active.as_ref().filter(|active| active.phase != Phase::Trying)?;
        Some(Unstarted { run: active.run, attempt: active.attempt })
    }

    /// All runs whose try is under way.
    pub fn running(&self, now: Now) -> impl Iterator<Item = Running> {
        self.active_runs.values().filter_map(move |task| {
            let active = self.tasks[task.index()].active.as_ref()?;
            (active.phase == Phase::Trying).then_some(Running {
                run: active.run,
                task: *task,
                slot: active.slot,
                cause: active.cause,
                attempt: active.attempt,
                running_for: now.boot.saturating_sub(Duration::from_nanos(active.started.max(0) as u64)),
            })
        })
    }

    /// All runs that wait, and for what.
    pub fn waiting(&self, now: Now) -> impl Iterator<Item = Waiting> {
        self.plan.tasks().flat_map(move |(task, _)| self.waiting_of(task, now))
    }

    /// The runs of one task that wait: first the due one, then the active one.
    pub fn waiting_of(&self, task: TaskId, now: Now) -> impl Iterator<Item = Waiting> {
        let entry = &self.tasks[task.index()];
        let waited = move |since: Boot| Duration::from_nanos((nanos(now.boot) - since).max(0) as u64);
        let due = entry.due.as_ref().map(|due| Waiting {
            task,
            slot: due.slot,
            cause: due.cause,
            waited: waited(due.start_at),
            what: entry.what_due_waits_for(due),
        });
        let active = entry.active.as_ref().and_then(|active| {
            let (slot, cause) = (active.slot, active.cause);
            Some(Waiting { task, slot, cause, waited: waited(active.waits_since), what: active.waits_for()? })
        });
        due.into_iter().chain(active)
    }

    fn take_in(&mut self, event: Event, now: Now) {
        match event {
            Event::Tick => {}
            Event::TryEnded { run, outcome, exit_code, fatal } => self.try_ended(run, outcome, exit_code, fatal, now),
            Event::ConditionAnswered { task, passed } => self.condition_answered(task, passed, now),
            Event::SecretsAvailable(secrets) => self.secrets_available(&secrets, now),
            Event::FileLocks(answers) => {
                answers.into_iter().for_each(|(task, taken)| self.file_locks(task, taken, now))
            }
            Event::FileLocksFreed => self.file_locks_freed(now),
            Event::Manual { task } => self.manual(task, now),
            Event::StopTask { task } => self.stop_task(task, now),
            Event::Shutdown => self.shutdown(now),
            Event::Recorded(true) => self.recorded(),
            Event::Recorded(false) => {
                let ends = self.book.failed(nanos(now.boot));
                self.actions.extend(ends);
                self.say(Notice::NotRecorded { failures: self.book.failures() });
            }
        }
    }

    /// Looks at all tasks that have something to do, and returns what came of it.
    fn finish(&mut self, now: Now) -> Vec<Action> {
        while let Some(task) = self.work.pop_front() {
            self.visit(task, now);
        }
        if let Some(records) = self.book.send(nanos(now.boot)) {
            self.actions.push(Action::Record(records));
        }
        mem::take(&mut self.actions)
    }

    fn visit(&mut self, task: TaskId, now: Now) {
        if self.is_scheduled(task) {
            let plan = &self.plan;
            let entry = &mut self.tasks[task.index()];
            let ahead = entry.ahead();
            let noticed = entry.slots.notice(&plan.task(task).schedules, plan.zone, now, ahead);
            if let Some(noticed) = noticed {
                let cause = if noticed.on_time { Cause::Slot } else { Cause::Missed };
                self.slot_came(task, noticed.slot, cause, noticed.start_at, now);
            }
        }
        self.step_active(task, now);
        self.step_due(task, now);
        self.set_alarms(task, now);
    }

    /// Compares the clocks with each other and with the last look at them.
    fn observe(&mut self, now: Now) {
        let last = mem::replace(&mut self.clocks, now.into());
        let (slept, jumped) = departure(last, self.clocks);
        if slept >= SLEEP {
            self.say(Notice::Slept { seconds: (slept / SECOND) as u64 });
            self.delay_again(now);
        }
        if jumped.unsigned_abs() >= JUMP.unsigned_abs() {
            self.say(Notice::ClockJumped { seconds: jumped / SECOND });
            self.clock_was_set(now, jumped > 0);
        }
    }

    fn clock_was_set(&mut self, now: Now, forward: bool) {
        let plan = self.plan.clone();
        let mut corrected = 0;
        for (id, task) in plan.tasks() {
            let slots = &mut self.tasks[id.index()].slots;
            if forward {
                slots.return_from_correction(&task.schedules, plan.zone, now);
            }
            corrected += usize::from(slots.correct(&task.schedules, plan.zone, now) && task.enabled);
            self.work.push_back(id);
        }
        if corrected > 0 {
            self.say(Notice::ClockCorrected { tasks: corrected });
        }
    }

    /// Sets when to look at the task again if nothing happens until then.
    fn set_alarms(&mut self, id: TaskId, now: Now) {
        if self.closing {
            self.wall_alarms.set(id, None);
            self.boot_alarms.set(id, None);
            return;
        }
        let entry = &self.tasks[id.index()];
        let task = self.plan.task(id);
        let (crontab, every) = if task.enabled { entry.slots.next_starts() } else { (None, None) };
        let ahead = entry.ahead();
        let crontab = crontab.map(|start| shift(start, -ahead));
        let every = every.map(|start| start - ahead);
        let (due_by_wall, due_by_boot) = entry.due_alarms(task, now);
        let active = entry.active.as_ref().and_then(|active| active.alarm(now));
        self.wall_alarms.set(id, crontab.into_iter().chain(due_by_wall).min());
        self.boot_alarms.set(id, [every, due_by_boot, active].into_iter().flatten().min());
    }

    fn is_scheduled(&self, task: TaskId) -> bool {
        !self.closing && self.plan.task(task).enabled
    }

    fn say(&mut self, notice: Notice) {
        self.actions.push(Action::Notice(notice));
    }

    fn recorded(&mut self) {
        if self.book.is_failing() {
            self.say(Notice::RecordedAgain);
        }
        let written = self.book.written();
        self.actions.extend(written.ends);
        for (task, run) in written.starts {
            let active = self.tasks[task.index()].active.as_mut().filter(|active| active.run == run);
            if let Some(active) = active {
                active.phase_recorded();
                self.work.push_back(task);
            }
        }
    }

    fn shutdown(&mut self, now: Now) {
        self.closing = true;
        let plan = self.plan.clone();
        for (id, _) in plan.tasks() {
            self.shut_down_active(id, now);
            self.record_due(id, now);
            self.work.push_back(id);
        }
    }

    fn will_repeat(task: &Task, cut: bool, cause: Cause) -> bool {
        cut && cause.is_repeatable() && task.enabled && task.policy.missed == Missed::Run
    }
}

impl Entry {
    /// How early its slots are noticed. What a slot does to a run that is there already is decided
    /// when it comes: until then that run may have ended or started.
    fn ahead(&self) -> Boot {
        if self.active.is_none() && self.due.is_none() { AHEAD } else { 0 }
    }

    fn what_due_waits_for(&self, due: &Due) -> Wait {
        match due.stage {
            Stage::Start => Wait::Start,
            Stage::Behind => self.active.as_ref().map_or(Wait::Start, |active| Wait::Behind(active.run)),
            Stage::Secrets => Wait::Secrets,
            Stage::Condition { .. } => Wait::Condition,
            Stage::Lock { .. } => Wait::Lock,
            Stage::FileLocks | Stage::FileLocksBusy { .. } => Wait::FileLock,
            Stage::Turn { .. } => Wait::Turn,
        }
    }
}
