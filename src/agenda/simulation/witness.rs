//! Looks at all that a simulated daemon does, and fails where it breaks its word.
//!
//! At each start: no slot starts twice and slots keep their order; nothing starts that is not on disk, nor for what
//! came before its task was written; ids are never reused; locks and turns are respected; one run makes up for all
//! that was missed; a second cut is final; a period of `@every` lies between two starts; a timeout counts waking time
//! alone. And now and then: whoever was awake and undisturbed for long enough after a slot has run for it, or has
//! said why not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Counts;
use super::machine::Clock;
use crate::agenda::{Agenda, Ended, Try};
use crate::clock::Now;
use crate::ledger::{Cause, Record, State};
use crate::outcome::{Outcome, RunId, SkipReason};
use crate::plan::{LockRequest, Missed, Plan, Task, TaskId};
use crate::schedule::Schedule;

/// A task that nothing holds must have run for its slot when the daemon was up and awake for this long after it:
/// `missed_delay` and a moment.
const PATIENCE: TimeDelta = TimeDelta::seconds(200);

/// How inexactly the moments of a start and an end are told.
const MOMENT: Duration = Duration::from_secs(2);

pub struct Witness {
    /// How often what was seen, so that a test can tell that it saw anything.
    pub counts: Counts,
    clock: Clock,
    plan: Arc<Plan>,
    /// All that ever started.
    runs: BTreeSet<RunId>,
    /// From the start of their first try to their end, with the awake clock at that start.
    active: BTreeMap<TaskId, (RunId, Duration)>,
    trying: BTreeSet<RunId>,
    last_slot: BTreeMap<TaskId, DateTime<Utc>>,
    /// Tasks whose repetition was cut, after which no other may follow.
    cut_for_good: BTreeSet<String>,
    /// The last slot of a start for whatever cause: a repetition makes up for a slot too.
    served: BTreeMap<TaskId, DateTime<Utc>>,
    /// The last slot of which it was said what came of it.
    told: BTreeMap<TaskId, DateTime<Utc>>,
    /// When a task last lost a slot by right: it still ran, was told to stop, or its repetition was cut.
    excused: BTreeMap<TaskId, DateTime<Utc>>,
    /// Tasks that are new or changed at the next start of the daemon, and since when the others of them count.
    changed: BTreeSet<TaskId>,
    written: BTreeMap<TaskId, DateTime<Utc>>,
    /// When the task on a grid last started, on the boot clock.
    every: Option<Duration>,
    /// The wall clock before the last disturbance, and who has caught up with slots since.
    disturbed: DateTime<Utc>,
    caught_up: BTreeSet<TaskId>,
    /// Since when nothing has disturbed the daemon, on the boot clock.
    calm_since: Duration,
}

impl Witness {
    pub fn new(clock: Clock, plan: Arc<Plan>) -> Witness {
        Witness {
            counts: Counts::new(),
            clock,
            changed: plan.tasks().map(|(id, _)| id).collect(),
            plan,
            runs: BTreeSet::new(),
            active: BTreeMap::new(),
            trying: BTreeSet::new(),
            last_slot: BTreeMap::new(),
            cut_for_good: BTreeSet::new(),
            served: BTreeMap::new(),
            told: BTreeMap::new(),
            excused: BTreeMap::new(),
            written: BTreeMap::new(),
            every: None,
            disturbed: DateTime::UNIX_EPOCH,
            caught_up: BTreeSet::new(),
            calm_since: Duration::ZERO,
        }
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_string()).or_default() += 1;
    }

    pub fn daemon_starts(&mut self, now: Now) {
        self.active.clear();
        self.trying.clear();
        self.every = None;
        self.calm_from(now);
        for task in std::mem::take(&mut self.changed) {
            self.last_slot.remove(&task);
            self.served.remove(&task);
            self.told.remove(&task);
            self.written.insert(task, now.wall);
        }
    }

    pub fn plan_changed(&mut self, plan: Arc<Plan>, changed: &[TaskId]) {
        self.plan = plan;
        self.changed.extend(changed);
    }

    pub fn disturbed(&mut self, now: Now) {
        self.disturbed = now.wall;
        self.caught_up.clear();
    }

    pub fn calm_from(&mut self, now: Now) {
        self.calm_since = now.boot;
    }

    pub fn excuse(&mut self, task: TaskId, now: Now) {
        self.excused.insert(task, now.wall);
    }

    /// A record is about to be on disk.
    pub fn record(&mut self, record: &Record, disk: &State) {
        match record {
            Record::Started { started, .. } if started.cause == Cause::Repeat => {
                assert!(!self.cut_for_good.contains(&started.task), "{} is repeated again", started.task);
            }
            Record::Started { started, .. } => {
                self.cut_for_good.remove(&started.task);
            }
            Record::Ended { run, cut: true, .. } if disk.running[run].cause == Cause::Repeat => {
                self.cut_for_good.insert(disk.running[run].task.clone());
            }
            _ => {}
        }
    }

    pub fn try_starts(&mut self, start: Try, now: Now, disk: &State) {
        let plan = self.plan.clone();
        let task = plan.task(start.task);
        self.trying.insert(start.run);
        assert!(self.trying.len() <= plan.max_concurrent_runs, "more runs than turns");
        assert!(disk.running.contains_key(&start.run), "{} starts before it is on disk", task.name);
        if start.attempt == 1 {
            assert!(self.runs.insert(start.run), "run id {} was given twice", start.run);
            let other = self.active.insert(start.task, (start.run, now.awake));
            assert_eq!(other, None, "{} runs twice at once", task.name);
            self.run_starts(start, task, now, disk);
        }
        self.check_locks();
        let (active, first) = self.active[&start.task];
        assert_eq!(active, start.run, "{} tries again what has ended", task.name);
        assert_eq!(start.deadline, task.policy.timeout.map(|timeout| first + timeout), "{}", task.name);
        self.count(&format!("{:?}", start.cause));
    }

    pub fn try_ended(&mut self, run: RunId) {
        self.trying.remove(&run);
    }

    fn run_starts(&mut self, start: Try, task: &Task, now: Now, disk: &State) {
        let Try { task: id, slot, cause, .. } = start;
        let name = &task.name;
        assert!(task.enabled || cause == Cause::Manual, "{name} is disabled");
        assert!(
            task.policy.missed == Missed::Run || !matches!(cause, Cause::Missed | Cause::Repeat),
            "{name} makes up for something: {cause:?}"
        );
        if cause.is_scheduled() {
            let last = self.last_slot.insert(id, slot);
            let again = last.is_some_and(|last| last >= slot);
            assert!(self.clock == Clock::Wild || !again, "{name} starts for {slot} again or late");
            let surprise = self.written.get(&id).is_some_and(|written| slot <= *written);
            assert!(self.clock != Clock::Steady || !surprise, "{name} starts for {slot}, before it was written");
            self.check_every(name, task, now);
        }
        if cause == Cause::Missed && slot > self.disturbed {
            assert!(self.caught_up.insert(id), "{name} catches up twice, with {slot}");
        }
        // A repetition makes up for the slot of the run that was cut, even if the clock was set back since.
        let serves = match cause {
            Cause::Repeat => disk.tasks[name].last_slot.max(slot),
            _ => slot,
        };
        let last = self.served.entry(id).or_insert(serves);
        *last = serves.max(*last);
    }

    fn check_every(&mut self, name: &str, task: &Task, now: Now) {
        let Some(Schedule::Every(period)) = task.schedules.first() else { return };
        let since = self.every.replace(now.boot).map(|last| now.boot - last);
        assert!(since.is_none_or(|since| since + MOMENT >= *period), "{name} starts after {since:?}");
    }

    fn check_locks(&self) {
        let active: Vec<TaskId> = self.active.keys().copied().collect();
        for (index, one) in active.iter().enumerate() {
            for other in &active[index + 1..] {
                let (one, other) = (self.plan.task(*one), self.plan.task(*other));
                let clash = |a: &LockRequest, b: &LockRequest| a.lock == b.lock && !(a.shared && b.shared);
                let clash = one.policy.locks.iter().any(|a| other.policy.locks.iter().any(|b| clash(a, b)));
                assert!(!clash, "{} and {} hold the same lock", one.name, other.name);
            }
        }
    }

    pub fn run_ended(&mut self, ended: &Ended, now: Now) {
        self.count(&ended.outcome.to_string());
        self.tell_of(ended.task, ended.slot);
        if ended.cut && ended.cause == Cause::Repeat {
            self.excuse(ended.task, now);
        }
        let Some((run, first)) = self.active.get(&ended.task).copied() else { return };
        if ended.outcome != Outcome::Crashed && run == ended.run {
            self.active.remove(&ended.task);
            let timeout = self.plan.task(ended.task).policy.timeout.filter(|_| ended.outcome == Outcome::Timeout);
            let early = timeout.is_some_and(|timeout| now.awake + MOMENT < first + timeout);
            assert!(!early, "run {run} was ended before its time, the machine slept");
        }
    }

    pub fn not_run(&mut self, task: TaskId, slot: DateTime<Utc>, outcome: Outcome, now: Now) {
        self.count(&outcome.to_string());
        if outcome == Outcome::Skipped(SkipReason::Overlap) {
            self.excuse(task, now);
        }
        self.tell_of(task, slot);
    }

    fn tell_of(&mut self, task: TaskId, slot: DateTime<Utc>) {
        let last = self.told.entry(task).or_insert(slot);
        *last = slot.max(*last);
    }

    /// None is lost: who was up, awake and undisturbed since long enough after a slot has run for it.
    pub fn look(&self, agenda: &Agenda, now: Now, disk: &State) {
        let calm = TimeDelta::from_std(now.boot.saturating_sub(self.calm_since)).expect("short");
        for (id, task) in self.plan.tasks().filter(|(_, task)| task.enabled) {
            self.check_timeout(id, task, now);
            let last = match task.policy.missed {
                Missed::Run if task.name.starts_with("plain") => self.last_served(id),
                Missed::Skip => self.last_served(id).max(self.told.get(&id).copied()),
                Missed::Run => continue,
            };
            let slack = PATIENCE + TimeDelta::from_std(task.policy.jitter).expect("short") * 2;
            if let Some(slot) = self.unserved(task, last, now.wall - slack, disk).filter(|_| calm >= slack) {
                let waits = agenda.waiting(now).any(|waiting| waiting.task == id && waiting.slot >= slot);
                let in_the_way = self.active.contains_key(&id) || waits;
                assert!(in_the_way, "{}: {slot} is lost, {last:?} was last", task.name);
            }
        }
    }

    fn last_served(&self, id: TaskId) -> Option<DateTime<Utc>> {
        self.served.get(&id).max(self.excused.get(&id)).copied()
    }

    /// Whatever a run is doing, it does not outlive its timeout while the machine is awake.
    fn check_timeout(&self, id: TaskId, task: &Task, now: Now) {
        let Some((run, first)) = self.active.get(&id) else { return };
        let late = task.policy.timeout.is_some_and(|timeout| now.awake > *first + timeout + MOMENT);
        assert!(!late, "run {run} of {} has outlived its timeout", task.name);
    }

    /// The task's first slot after `last`, if it came before `until`.
    fn unserved(
        &self,
        task: &Task,
        last: Option<DateTime<Utc>>,
        until: DateTime<Utc>,
        disk: &State,
    ) -> Option<DateTime<Utc>> {
        let from = disk.tasks.get(&task.name)?.from;
        let next = |schedule: &Schedule| match schedule {
            Schedule::Crontab(crontab) => crontab.next_after(last.unwrap_or(from).max(from), self.plan.zone),
            _ => None,
        };
        task.schedules.iter().filter_map(next).min().filter(|slot| *slot <= until)
    }

    /// After a long rest nothing is stuck and nothing lost.
    pub fn judge(&self, agenda: &Agenda, now: Now, disk: &State) {
        for waiting in agenda.waiting(now) {
            let name = &self.plan.task(waiting.task).name;
            assert!(waiting.waited < Duration::from_secs(3_600), "{name} is stuck: {waiting:?}");
        }
        for (id, task) in self.plan.tasks() {
            let slack = TimeDelta::hours(1) + TimeDelta::from_std(task.policy.jitter).expect("short");
            let last = self.last_served(id);
            let ahead = disk.tasks[&task.name].last_slot > now.wall;
            let lost = self.unserved(task, last, now.wall - slack, disk).filter(|_| !ahead);
            assert_eq!(lost, None, "{}: lost, {last:?} was last", task.name);
        }
    }
}
