//! A test for each rule of the scheduler, by the name of the rule, in a world of one machine whose clocks are moved by
//! hand.

mod asked;
mod begin;
mod due;
mod lines;
mod run;
mod slots;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::ledger::State;
use crate::outcome::SkipReason;
use crate::plan::testing::{exclusive, plan, policy, secret, shared, step, task};
use crate::plan::{Condition, Missed, Overlap, Retry};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// A machine with a daemon, whose clocks are moved by hand.
struct World {
    plan: Arc<Plan>,
    agenda: Agenda,
    ledger: State,
    now: Now,
    boot_id: String,
    /// How `Record` is answered.
    disk_works: bool,
    /// How `TakeFileLocks` is answered.
    file_locks_free: bool,
    syncs: usize,
    /// For how many starts something was made ready.
    made_ready: usize,
    /// What is left to look at, without records and their answers.
    seen: Vec<(DateTime<Utc>, Action)>,
}

impl World {
    fn new(begin: &str, tasks: Vec<Task>) -> World {
        World::with_turns(begin, tasks, 16)
    }

    fn with_turns(begin: &str, tasks: Vec<Task>, turns: usize) -> World {
        let now = Now { wall: at(begin), boot: Duration::from_secs(100), awake: Duration::from_secs(100) };
        World::on(State::default(), now, "boot", plan(tasks, turns))
    }

    fn on(ledger: State, now: Now, boot_id: &str, plan: Plan) -> World {
        let plan = Arc::new(plan);
        let (agenda, actions) = Agenda::new(plan.clone(), &ledger, &[], now, boot_id, "machine");
        let mut world = World {
            plan,
            agenda,
            ledger,
            now,
            boot_id: boot_id.to_string(),
            disk_works: true,
            file_locks_free: true,
            syncs: 0,
            made_ready: 0,
            seen: Vec::new(),
        };
        world.perform(actions);
        world
    }

    /// The daemon is gone at once, and a new one starts after `seconds` with these tasks.
    fn restart(self, seconds: u64, tasks: Vec<Task>) -> World {
        let mut now = self.now;
        now.wall += TimeDelta::seconds(seconds as i64);
        now.boot += Duration::from_secs(seconds);
        now.awake += Duration::from_secs(seconds);
        World::on(self.ledger, now, &self.boot_id, plan(tasks, self.plan.max_concurrent_runs))
    }

    fn event(&mut self, event: Event) {
        let actions = self.agenda.handle(self.now, event);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        let mut locks = Vec::new();
        for action in actions {
            match &action {
                Action::Record(records) => {
                    if self.disk_works {
                        self.syncs += 1;
                        records.iter().for_each(|record| self.ledger.apply(record));
                    }
                    self.event(Event::Recorded(self.disk_works));
                    continue;
                }
                Action::TakeFileLocks { task, .. } => locks.push((*task, self.file_locks_free)),
                Action::MakeReady => {
                    self.made_ready += 1;
                    continue;
                }
                _ => {}
            }
            self.seen.push((self.now.wall, action));
        }
        if !locks.is_empty() {
            self.event(Event::FileLocks(locks));
        }
    }

    /// Time passes as it does for a daemon that waits as it is told to.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.boot + Duration::from_secs(seconds);
        let mut idle_wakes = 0;
        while self.now.boot < end {
            let wake = self.agenda.next_wake(self.now).unwrap_or(Duration::MAX);
            let mut rest = self.agenda.rest(self.now, None);
            idle_wakes = if wake.is_zero() { idle_wakes + 1 } else { 0 };
            assert!(idle_wakes < 3, "it wants to be woken at once for ever");
            let step = wake.min(Duration::from_secs(30)).min(end - self.now.boot);
            self.now.boot += step;
            self.now.awake += step;
            self.now.wall += TimeDelta::from_std(step).expect("short");
            let goes_on = rest.look(self.now.into()).is_some();
            self.agenda.end_rest(&rest);
            if !goes_on {
                self.event(Event::Tick);
            }
        }
    }

    fn sleep(&mut self, seconds: u64) {
        self.now.boot += Duration::from_secs(seconds);
        self.set_wall(seconds as i64);
    }

    fn set_wall(&mut self, by: i64) {
        self.now.wall += TimeDelta::seconds(by);
        self.event(Event::Tick);
    }

    fn id(&self, name: &str) -> TaskId {
        self.plan.task_named(name).expect("a task of the plan")
    }

    /// The run of the task whose try is under way.
    fn run(&self, name: &str) -> Option<RunId> {
        let id = self.id(name);
        self.agenda.running(self.now).find(|running| running.task == id).map(|running| running.run)
    }

    fn end(&mut self, name: &str, outcome: Outcome) {
        let run = self.run(name).expect("a running task");
        self.event(Event::TryEnded { run, outcome, exit_code: Some(0), fatal: false });
    }

    /// All tries that started since the last call: when, of what, and for which slot.
    fn starts(&mut self) -> Vec<String> {
        let seen = std::mem::take(&mut self.seen);
        let start = |(when, action): &(DateTime<Utc>, Action)| match action {
            Action::StartTry(start) => Some(format!(
                "{} {} {} {}",
                when.format("%dT%H:%M:%S"),
                self.plan.task(start.task).name,
                start.slot.format("%dT%H:%M:%S"),
                start.cause.name()
            )),
            _ => None,
        };
        let starts = seen.iter().filter_map(start).collect();
        self.seen = seen.into_iter().filter(|(_, action)| !matches!(action, Action::StartTry(_))).collect();
        starts
    }

    /// Everything that ended or was skipped since the last call.
    fn ends(&mut self) -> Vec<String> {
        let seen = std::mem::take(&mut self.seen);
        let name = |id: &TaskId| &self.plan.task(*id).name;
        let end = |action: &Action| match action {
            Action::Ended(ended) => Some(format!("{} {}", name(&ended.task), ended.outcome)),
            Action::NotRun { task, outcome, .. } => Some(format!("{} {outcome}", name(task))),
            _ => None,
        };
        seen.iter().filter_map(|(_, action)| end(action)).collect()
    }

    fn waits(&self, name: &str) -> Option<Wait> {
        let id = self.id(name);
        self.agenda.waiting(self.now).find(|waiting| waiting.task == id).map(|waiting| waiting.what)
    }

    fn has_seen(&self, action: &Action) -> bool {
        self.seen.iter().any(|(_, seen)| seen == action)
    }

    fn manual(&mut self, name: &str) -> ManualAnswer {
        let id = self.id(name);
        self.event(Event::Manual { task: id });
        let answer = |(_, action): &(DateTime<Utc>, Action)| match action {
            Action::ManualAnswer { answer, .. } => Some(*answer),
            _ => None,
        };
        self.seen.iter().rev().find_map(answer).expect("an answer")
    }
}

fn with(mut task: Task, change: impl FnOnce(&mut Task)) -> Task {
    change(&mut task);
    task
}

fn nightly() -> Task {
    task("nightly", &["30 2 * * *"])
}

const EVENING: &str = "2026-01-01T20:00:00Z";

fn conditional(name: &str) -> Task {
    with(task(name, &["@hourly"]), |task| {
        policy(task).only_if = Some(Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) }));
    })
}

fn retrying() -> Task {
    with(task("retrying", &["@hourly"]), |task| {
        policy(task).retry = Retry { times: 3, delay: Duration::from_secs(60) };
        policy(task).locks = vec![exclusive(0)];
    })
}
