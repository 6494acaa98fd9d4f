//! Years of a machine that sleeps, crashes, reboots, loses its disk and has its clock set, in a moment.
//!
//! The dice are seeded, so a run of the simulation that breaks a promise breaks it again. The
//! promises are checked at each step: no slot starts twice and slots keep their order, nothing
//! starts that is not on disk, ids are never reused, locks and turns are respected, a second cut is
//! final; and none is lost: whoever was awake long enough after a slot has run for it, and once the
//! machine comes to rest, nothing is stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::slots::between;
use super::*;
use crate::ledger::State;
use crate::outcome::SkipReason;
use crate::plan::testing::{exclusive, plan, secret, shared, step, task};
use crate::plan::{Condition, Overlap, Retry};
use crate::schedule::Schedule;

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A task that nothing holds must have run for its slot when the daemon was up and awake for this long after it:
/// `missed_delay` and a moment.
const PATIENCE: u64 = 200;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// True once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What the clocks of a simulated machine go through.
#[derive(Clone, Copy, PartialEq)]
enum Clock {
    /// Never set.
    Steady,
    /// Set back and forth within an hour and a half.
    Wobbling,
    /// Set by years: slots may come again after a correction, the rest holds.
    Wild,
}

struct Machine {
    dice: Dice,
    clock: Clock,
    plan: Arc<Plan>,
    /// What is on disk.
    disk: State,
    disk_works: bool,
    agenda: Option<Agenda>,
    now: Now,
    boots: u64,
    /// How far the wall clock is from the truth, in seconds.
    error: i64,
    /// Answers that the world will give, by the time at which it does.
    coming: Vec<(Duration, Event)>,
    /// Since when nothing has disturbed the daemon.
    calm_since: Duration,
    checked: Duration,
    resting: bool,
    seen: Seen,
}

/// What was seen to happen.
#[derive(Default)]
struct Seen {
    runs: BTreeSet<RunId>,
    /// From the start of their first try to their end.
    active: BTreeMap<TaskId, RunId>,
    trying: BTreeSet<RunId>,
    last_slot: BTreeMap<TaskId, DateTime<Utc>>,
    /// Tasks whose repetition was cut, after which no other may follow.
    cut_for_good: BTreeSet<String>,
    /// The last slot of a start for whatever cause: a repetition makes up for a slot too.
    last_start: BTreeMap<TaskId, DateTime<Utc>>,
    /// When a task last lost a slot by right: it still ran, was told to stop, or its repetition was cut.
    excused: BTreeMap<TaskId, DateTime<Utc>>,
    /// How often what was seen, so that a test can tell that it saw anything.
    counts: BTreeMap<String, u64>,
}

fn tasks() -> Vec<Task> {
    let with = |name: &str, schedules: &[&str], change: &dyn Fn(&mut Task)| {
        let mut task = task(name, schedules);
        change(&mut task);
        task
    };
    let condition = || Some(Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) }));
    let retry = Retry { times: 2, delay: Duration::from_secs(60) };
    vec![
        with("plain", &["30 2 * * *"], &|_| {}),
        with("plain-often", &["*/20 * * * *"], &|task| task.policy.overlap = Overlap::Queue),
        with("plain-jitter", &["15 */4 * * *"], &|task| task.policy.jitter = Duration::from_secs(1_800)),
        with("every", &["@every 7h"], &|task| task.policy.retry = retry),
        with("skipping", &["5 */2 * * *"], &|task| task.policy.missed = Missed::Skip),
        with("locked", &["0 * * * *", "30 3 * * *"], &|task| {
            task.policy.locks = vec![exclusive(0)];
            task.policy.retry = retry;
            task.policy.overlap = Overlap::Queue;
        }),
        with("sharing", &["0 */3 * * *"], &|task| task.policy.locks = vec![shared(0), exclusive(1)]),
        with("sharing-too", &["0 */3 * * *"], &|task| task.policy.locks = vec![shared(0), shared(1)]),
        with("picky", &["0 6 * * *"], &|task| {
            task.policy.only_if = condition();
            task.policy.run_anyway_after = Some(Duration::from_secs(3 * DAY));
            task.policy.locks = vec![exclusive(1)];
        }),
        with("patient", &["10 */5 * * *"], &|task| {
            task.policy.only_if = condition();
            task.policy.max_wait = Some(Duration::from_secs(HOUR));
            task.policy.timeout = Some(Duration::from_secs(2 * HOUR));
            task.policy.retry = retry;
        }),
        with("needy", &["0 5 * * 1-5"], &|task| task.steps = vec![step(Some(secret(0)))]),
        with("start", &["@start", "0 12 * * *"], &|_| {}),
        with("reboot", &["@reboot"], &|task| task.policy.locks = vec![exclusive(2)]),
    ]
}

impl Machine {
    fn new(seed: u64, clock: Clock) -> Machine {
        let wall = "2026-01-01T00:00:00Z".parse().expect("a time");
        let boot = Duration::from_secs(10);
        Machine {
            dice: Dice(seed),
            clock,
            plan: Arc::new(plan(tasks(), 3)),
            disk: State::default(),
            disk_works: true,
            agenda: None,
            now: Now { wall, boot, awake: boot },
            boots: 0,
            error: 0,
            coming: Vec::new(),
            calm_since: boot,
            checked: boot,
            resting: false,
            seen: Seen::default(),
        }
    }

    fn start_daemon(&mut self) {
        self.coming.clear();
        self.seen.active.clear();
        self.seen.trying.clear();
        self.calm_since = self.now.boot;
        let boot_id = self.boots.to_string();
        let (agenda, actions) = Agenda::new(self.plan.clone(), &self.disk, &[], self.now, &boot_id, "machine");
        self.agenda = Some(agenda);
        self.perform(actions);
        let late = if self.resting { 0 } else { self.dice.below(600) };
        self.come(late, Event::SecretsAvailable(vec![secret(0)]));
    }

    fn come(&mut self, seconds: u64, event: Event) {
        self.coming.push((self.now.boot + Duration::from_secs(seconds), event));
    }

    fn event(&mut self, event: Event) {
        if let Some(agenda) = &mut self.agenda {
            let actions = agenda.handle(self.now, event);
            self.perform(actions);
        }
    }

    /// Does what is asked for; now and then the daemon dies in the middle of it.
    fn perform(&mut self, actions: Vec<Action>) {
        let mut locks = Vec::new();
        for action in actions {
            if !self.resting && self.dice.once_in(3_000) {
                self.die(&action);
            }
            if self.agenda.is_none() {
                return;
            }
            match action {
                Action::Record(records) => self.write(&records),
                Action::AskCondition { task } => {
                    let passed = self.resting || self.dice.once_in(5);
                    let takes = self.dice.below(70);
                    self.come(takes, Event::ConditionAnswered { task, passed });
                }
                Action::TakeFileLocks { task, .. } => locks.push((task, self.resting || !self.dice.once_in(10))),
                Action::StartTry(start) => self.start_try(start),
                Action::StopTry { run, .. } => {
                    let takes = self.dice.below(30);
                    self.come(takes, Event::TryEnded { run, outcome: Outcome::Stopped, exit_code: None, fatal: false });
                }
                Action::Ended(ended) => self.ended(ended),
                Action::NotRun { task, outcome, .. } => {
                    self.count(outcome.to_string());
                    if outcome == Outcome::Skipped(SkipReason::Overlap) {
                        self.seen.excused.insert(task, self.now.wall);
                    }
                }
                _ => {}
            }
        }
        if !locks.is_empty() {
            self.event(Event::FileLocks(locks));
        }
    }

    fn write(&mut self, records: &[Record]) {
        if self.disk_works {
            self.keep(records);
        }
        self.event(Event::Recorded(self.disk_works));
    }

    /// These records reach the disk.
    fn keep(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Started { started, .. } if started.cause == Cause::Repeat => {
                    assert!(!self.seen.cut_for_good.contains(&started.task), "{} is repeated again", started.task);
                }
                Record::Started { started, .. } => {
                    self.seen.cut_for_good.remove(&started.task);
                }
                Record::Ended { run, cut: true, .. } if self.disk.running[run].cause == Cause::Repeat => {
                    self.seen.cut_for_good.insert(self.disk.running[run].task.clone());
                }
                _ => {}
            }
            self.disk.apply(record);
        }
    }

    /// The daemon is gone; what it was about to write is there in part.
    fn die(&mut self, last: &Action) {
        if let Action::Record(records) = last {
            let torn = self.dice.below(records.len() as u64 + 1) as usize;
            self.keep(&records[..torn]);
        }
        self.agenda = None;
        self.coming.clear();
        self.count("death".to_string());
    }

    fn count(&mut self, what: String) {
        *self.seen.counts.entry(what).or_default() += 1;
    }

    fn start_try(&mut self, start: Try) {
        let task = self.plan.clone();
        let task = task.task(start.task);
        self.seen.trying.insert(start.run);
        assert!(self.seen.trying.len() <= self.plan.max_concurrent_runs, "more runs than turns");
        assert!(self.disk.running.contains_key(&start.run), "{} starts before it is on disk", task.name);
        if start.attempt == 1 {
            assert!(self.seen.runs.insert(start.run), "run id {} was given twice", start.run);
            let other = self.seen.active.insert(start.task, start.run);
            assert_eq!(other, None, "{} runs twice at once", task.name);
            self.check_slot(start, &task.name);
        }
        self.check_locks();
        assert!(self.seen.active.get(&start.task) == Some(&start.run));
        self.count(format!("{:?}", start.cause));
        self.plan_end(start);
    }

    fn check_slot(&mut self, start: Try, name: &str) {
        if start.cause.is_scheduled() {
            let last = self.seen.last_slot.insert(start.task, start.slot);
            let again = last.is_some_and(|last| last >= start.slot);
            assert!(self.clock == Clock::Wild || !again, "{name} starts for {} again or late", start.slot);
        }
        // A repetition makes up for the slot of the run that was cut, even if the clock was set back since.
        let served = match start.cause {
            Cause::Repeat => self.disk.tasks[name].last_slot.max(start.slot),
            _ => start.slot,
        };
        let last = self.seen.last_start.entry(start.task).or_insert(served);
        *last = served.max(*last);
    }

    fn check_locks(&self) {
        let active: Vec<TaskId> = self.seen.active.keys().copied().collect();
        for (index, one) in active.iter().enumerate() {
            for other in &active[index + 1..] {
                let (one, other) = (self.plan.task(*one), self.plan.task(*other));
                let clash = |a: &LockRequest, b: &LockRequest| a.lock == b.lock && !(a.shared && b.shared);
                let clash = one.policy.locks.iter().any(|a| other.policy.locks.iter().any(|b| clash(a, b)));
                assert!(!clash, "{} and {} hold the same lock", one.name, other.name);
            }
        }
    }

    fn plan_end(&mut self, start: Try) {
        let run = start.run;
        let plain = self.plan.task(start.task).name.starts_with("plain");
        let takes = if self.resting || plain { self.dice.below(60) } else { self.dice.below(3 * HOUR) };
        let outcome = match self.dice.below(6) {
            0 if !self.resting => Outcome::Failure,
            1 if !self.resting => Outcome::Warning,
            _ => Outcome::Success,
        };
        let left = start.deadline.map(|deadline| deadline.saturating_sub(self.now.awake).as_secs());
        match left.filter(|left| *left < takes) {
            Some(left) => {
                self.come(left, Event::TryEnded { run, outcome: Outcome::Timeout, exit_code: None, fatal: false })
            }
            None => self.come(takes, Event::TryEnded { run, outcome, exit_code: Some(1), fatal: false }),
        }
    }

    fn ended(&mut self, ended: Ended) {
        self.count(ended.outcome.to_string());
        if ended.cut && ended.cause == Cause::Repeat {
            self.seen.excused.insert(ended.task, self.now.wall);
        }
        if ended.outcome != Outcome::Crashed && self.seen.active.get(&ended.task) == Some(&ended.run) {
            self.seen.active.remove(&ended.task);
        }
    }

    /// Time passes to the next moment at which anything happens, at most to `end`.
    fn advance(&mut self, end: Duration) {
        let wake =
            self.agenda.as_ref().and_then(|agenda| agenda.next_wake(self.now)).unwrap_or(Duration::from_secs(30));
        let event = self.coming.iter().map(|(at, _)| *at).min().unwrap_or(end);
        let step = wake.min(event.saturating_sub(self.now.boot)).min(end.saturating_sub(self.now.boot));
        self.now.boot += step;
        self.now.awake += step;
        self.now.wall += TimeDelta::from_std(step).expect("short");
        let (come, coming) = std::mem::take(&mut self.coming).into_iter().partition(|(at, _)| *at <= self.now.boot);
        self.coming = coming;
        let come: Vec<(Duration, Event)> = come;
        for (_, event) in come {
            if let Event::TryEnded { run, .. } = event {
                self.seen.trying.remove(&run);
            }
            self.event(event);
        }
        self.event(Event::Tick);
        if self.now.boot.abs_diff(self.checked) >= Duration::from_secs(300) {
            self.checked = self.now.boot;
            self.check_plain();
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let end = self.now.boot + Duration::from_secs(seconds);
        let (mut turns, mut at) = (0, self.now.boot);
        while self.now.boot < end && self.agenda.is_some() {
            self.advance(end);
            turns = if self.now.boot == at { turns + 1 } else { 0 };
            at = self.now.boot;
            assert!(turns < 100, "it wants to be woken at once for ever");
        }
    }

    /// None is lost: who was up, awake and undisturbed since long enough after a slot has run for it.
    fn check_plain(&self) {
        let calm = TimeDelta::from_std(self.now.boot.saturating_sub(self.calm_since)).expect("short");
        if !self.disk_works || self.agenda.is_none() {
            return;
        }
        for (id, task) in self.plan.tasks().filter(|(_, task)| task.name.starts_with("plain")) {
            let jitter = TimeDelta::from_std(task.policy.jitter).expect("short");
            let slack = TimeDelta::seconds(PATIENCE as i64) + jitter * 2;
            let last = self.seen.last_start.get(&id).max(self.seen.excused.get(&id)).copied();
            if let Some(slot) = self.unserved(task, last, self.now.wall - slack).filter(|_| calm >= slack) {
                let in_the_way = self.seen.active.contains_key(&id) || self.waits_for(id, slot);
                assert!(in_the_way, "{}: {slot} is lost, {last:?} was last", task.name);
            }
        }
    }

    /// The task's first slot after `last`, if it came before `until`.
    fn unserved(&self, task: &Task, last: Option<DateTime<Utc>>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let from = self.disk.tasks.get(&task.name)?.from;
        let next = |schedule: &Schedule| match schedule {
            Schedule::Crontab(crontab) => crontab.next_after(last.unwrap_or(from).max(from), self.plan.zone),
            _ => None,
        };
        task.schedules.iter().filter_map(next).min().filter(|slot| *slot <= until)
    }

    /// Whether a run for `slot` or a later one is under way.
    fn waits_for(&self, id: TaskId, slot: DateTime<Utc>) -> bool {
        let mut waiting = self.agenda.iter().flat_map(|agenda| agenda.waiting(self.now));
        waiting.any(|waiting| waiting.task == id && waiting.slot >= slot)
    }

    /// Something happens to the machine.
    fn disturb(&mut self) {
        match self.dice.below(12) {
            0..5 => self.sleep(),
            5 => self.agenda = None,
            6 => self.shut_down(),
            7 => self.set_clock(),
            8 => {
                self.disk_works = false;
                self.run_for(3 * HOUR);
                self.disk_works = true;
            }
            9 => {
                let task = self.any_task();
                self.seen.excused.insert(task, self.now.wall);
                self.event(Event::StopTask { task });
            }
            10 => {
                self.event(Event::SecretsAvailable(Vec::new()));
                let later = self.dice.below(2 * DAY);
                self.come(later, Event::SecretsAvailable(vec![secret(0)]));
            }
            _ => {
                let task = self.any_task();
                self.event(Event::Manual { task });
            }
        }
        if self.agenda.is_none() {
            self.restart();
        }
        self.calm_since = self.now.boot;
    }

    fn any_task(&mut self) -> TaskId {
        let index = self.dice.below(self.plan.tasks().len() as u64) as usize;
        self.plan.tasks().nth(index).expect("a task").0
    }

    fn sleep(&mut self) {
        let longest = if self.dice.once_in(10) { 9 * DAY } else { 14 * HOUR };
        let seconds = self.dice.below(longest);
        self.now.boot += Duration::from_secs(seconds);
        self.now.wall += TimeDelta::seconds(seconds as i64);
        self.count("sleep".to_string());
        self.calm_since = self.now.boot;
        self.event(Event::Tick);
    }

    fn shut_down(&mut self) {
        self.event(Event::Shutdown);
        let end = self.now.boot + Duration::from_secs(60);
        while self.now.boot < end && self.agenda.as_ref().is_some_and(|agenda| !agenda.is_idle()) {
            self.advance(end);
        }
        self.agenda = None;
    }

    fn restart(&mut self) {
        let off = match self.dice.below(3) {
            0 => self.dice.below(60),
            1 => self.dice.below(HOUR),
            _ => self.dice.below(3 * DAY),
        };
        self.now.wall += TimeDelta::seconds(off as i64);
        if self.dice.once_in(2) {
            self.boots += 1;
            self.now.boot = Duration::from_secs(10 + self.dice.below(100));
            self.now.awake = self.now.boot;
        } else {
            self.now.boot += Duration::from_secs(off);
            self.now.awake += Duration::from_secs(off);
        }
        self.start_daemon();
    }

    fn set_clock(&mut self) {
        let error = match self.clock {
            Clock::Steady => return,
            Clock::Wobbling => self.dice.below(10_800) as i64 - 5_400,
            Clock::Wild => self.dice.below(4 * 365 * DAY) as i64 - 2 * 365 * DAY as i64,
        };
        self.now.wall += TimeDelta::seconds(error - self.error);
        self.error = error;
        self.calm_since = self.now.boot;
        self.event(Event::Tick);
    }

    fn live(&mut self, days: u64) {
        self.start_daemon();
        let begin = self.now.wall;
        let mut lived = 0;
        while lived < days * DAY {
            let calm = self.dice.below(DAY);
            lived += calm;
            self.run_for(calm);
            self.disturb();
            if self.clock != Clock::Wild {
                lived = (between(begin, self.now.wall) / SECOND) as u64;
            }
        }
    }

    /// Nothing disturbs any more and everything succeeds: after two days nothing is stuck.
    fn rest(&mut self) {
        self.resting = true;
        self.agenda = None;
        self.restart();
        self.run_for(8 * DAY);
        let agenda = self.agenda.as_ref().expect("it lives");
        for waiting in agenda.waiting(self.now) {
            let name = &self.plan.task(waiting.task).name;
            assert!(waiting.waited < Duration::from_secs(HOUR), "{name} is stuck: {waiting:?}");
        }
        for (id, task) in self.plan.tasks() {
            let slack = TimeDelta::hours(1) + TimeDelta::from_std(task.policy.jitter).expect("short");
            let last = self.seen.last_start.get(&id).max(self.seen.excused.get(&id)).copied();
            let ahead = self.disk.tasks[&task.name].last_slot > self.now.wall;
            let lost = self.unserved(task, last, self.now.wall - slack).filter(|_| !ahead);
            assert_eq!(lost, None, "{}: lost, {last:?} was last", task.name);
        }
    }
}

fn simulate(seed: u64, clock: Clock, days: u64) -> Seen {
    let mut machine = Machine::new(seed, clock);
    machine.live(days);
    machine.rest();
    machine.seen
}

#[test]
fn years_pass_and_every_promise_is_kept() {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..4 {
        let seen = simulate(seed, Clock::Steady, 365);
        seen.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    for what in ["Slot", "Missed", "Start", "Reboot", "Repeat", "Manual", "death", "sleep", "success", "warning"] {
        assert!(counts.get(what).is_some_and(|count| *count > 20), "{what} was hardly seen: {counts:?}");
    }
    for what in ["failure", "timeout", "stopped", "crashed", "overlap", "condition", "secrets", "lock", "missed"] {
        let name = if counts.contains_key(what) { what.to_string() } else { format!("skipped ({what})") };
        assert!(counts.get(&name).is_some_and(|count| *count > 5), "{what} was hardly seen: {counts:?}");
    }
}

#[test]
fn years_pass_with_a_clock_that_wobbles() {
    for seed in 100..102 {
        simulate(seed, Clock::Wobbling, 120);
    }
}

#[test]
fn years_pass_with_a_clock_that_is_set_by_years() {
    for seed in 200..202 {
        simulate(seed, Clock::Wild, 120);
    }
}
