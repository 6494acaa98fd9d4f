//! A simulated machine: its clocks, its disk, the daemon on it, and what happens to them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Counts;
use super::dice::Dice;
use super::tasks::{Edit, Version, tasks};
use super::witness::Witness;
use crate::agenda::slots::{SECOND, between};
use crate::agenda::{Action, Agenda, Event, Try};
use crate::clock::{Now, Zone};
use crate::ledger::{Record, State};
use crate::outcome::Outcome;
use crate::plan::testing::{plan, secret};
use crate::plan::{Plan, TaskId};

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Before how many actions the daemon dies once.
const ACTIONS_OF_A_LIFE: u64 = 1_500;

/// How often the promises that need no event are looked at.
const LOOK: Duration = Duration::from_secs(300);

/// What the wall clock of a simulated machine goes through.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Clock {
    /// Never set.
    Steady,
    /// Set back and forth within an hour and a half.
    Wobbling,
    /// Set by years: slots may come again after a correction, the rest holds.
    Wild,
}

pub struct Machine {
    dice: Dice,
    clock: Clock,
    zone: Zone,
    versions: Vec<Version>,
    plan: Arc<Plan>,
    /// What is on disk.
    disk: State,
    disk_works: bool,
    agenda: Option<Agenda>,
    now: Now,
    boots: u64,
    /// How far the wall clock is from the truth, in seconds.
    error: i64,
    /// Answers that the world will give, by the time at which it does. A suspend delays them: nothing else runs either.
    coming: Vec<(Duration, Event)>,
    looked: Duration,
    /// Nothing disturbs any more.
    resting: bool,
    witness: Witness,
}

impl Machine {
    /// A new machine, on which no daemon ever ran.
    pub fn new(seed: u64, clock: Clock, zone: Zone, wall: DateTime<Utc>) -> Machine {
        let boot = Duration::from_secs(10);
        let versions = vec![Version::default(); tasks(&[]).len()];
        let plan = plan_of(&versions, zone);
        Machine {
            dice: Dice(seed),
            clock,
            zone,
            witness: Witness::new(clock, plan.clone()),
            versions,
            plan,
            disk: State::default(),
            disk_works: true,
            agenda: None,
            now: Now { wall, boot, awake: boot },
            boots: 0,
            error: 0,
            coming: Vec::new(),
            looked: boot,
            resting: false,
        }
    }

    pub fn counts(self) -> Counts {
        self.witness.counts
    }

    fn start_daemon(&mut self) {
        self.coming.clear();
        self.witness.daemon_starts(self.now);
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
            if !self.resting && self.dice.once_in(ACTIONS_OF_A_LIFE) {
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
                Action::StartTry(start) => {
                    self.witness.try_starts(start, self.now, &self.disk);
                    self.plan_end(start);
                }
                Action::StopTry { run, .. } => {
                    let takes = self.dice.below(30);
                    self.come(takes, Event::TryEnded { run, outcome: Outcome::Stopped, exit_code: None, fatal: false });
                }
                Action::Ended(ended) => self.witness.run_ended(&ended, self.now),
                Action::NotRun { task, slot, outcome, .. } => self.witness.not_run(task, slot, outcome, self.now),
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
            self.witness.record(record, &self.disk);
            self.disk.apply(record);
        }
    }

    /// The daemon is gone; what it was about to write is there in part.
    fn die(&mut self, last: &Action) {
        if let Action::Record(records) = last {
            let torn = self.dice.below(records.len() as u64 + 1) as usize;
            self.keep(&records[..torn]);
            self.witness.count("torn");
        }
        self.agenda = None;
        self.coming.clear();
        self.witness.count("death");
    }

    /// What will come of a try.
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
                self.witness.try_ended(run);
            }
            self.event(event);
        }
        self.event(Event::Tick);
        if self.now.boot.abs_diff(self.looked) >= LOOK {
            self.looked = self.now.boot;
            self.look();
        }
    }

    fn look(&self) {
        if let Some(agenda) = self.agenda.as_ref().filter(|_| self.disk_works) {
            self.witness.look(agenda, self.now, &self.disk);
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

    /// Something happens to the machine.
    fn disturb(&mut self) {
        self.witness.disturbed(self.now);
        match self.dice.below(13) {
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
                self.witness.excuse(task, self.now);
                self.event(Event::StopTask { task });
            }
            10 => {
                self.event(Event::SecretsAvailable(Vec::new()));
                let later = self.dice.below(2 * DAY);
                self.come(later, Event::SecretsAvailable(vec![secret(0)]));
            }
            11 => {
                self.shut_down();
                self.edit_plan();
            }
            _ => {
                let task = self.any_task();
                self.event(Event::Manual { task });
            }
        }
        if self.agenda.is_none() {
            self.restart();
        }
        self.witness.calm_from(self.now);
    }

    fn any_task(&mut self) -> TaskId {
        let index = self.dice.below(self.plan.tasks().len() as u64) as usize;
        self.plan.tasks().nth(index).expect("a task").0
    }

    fn sleep(&mut self) {
        let longest = if self.dice.once_in(10) { 9 * DAY } else { 14 * HOUR };
        let slept = Duration::from_secs(self.dice.below(longest));
        self.now.boot += slept;
        self.now.wall += TimeDelta::from_std(slept).expect("short");
        self.coming.iter_mut().for_each(|(at, _)| *at += slept);
        self.witness.count("sleep");
        self.witness.calm_from(self.now);
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

    /// Somebody changes a task in the configuration file.
    fn edit_plan(&mut self) {
        let task = self.any_task();
        let edit = self.versions[task.index()].edit(&mut self.dice);
        self.take_plan(&[task]);
        self.witness.count(match edit {
            Edit::Renamed => "renamed",
            Edit::Rescheduled => "rescheduled",
            Edit::Toggled => "toggled",
        });
    }

    fn take_plan(&mut self, changed: &[TaskId]) {
        self.plan = plan_of(&self.versions, self.zone);
        self.witness.plan_changed(self.plan.clone(), changed);
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
        let until_every = self.time_until_every();
        self.now.wall += TimeDelta::seconds(error - self.error);
        self.error = error;
        self.witness.calm_from(self.now);
        self.event(Event::Tick);
        let unmoved = self.agenda.is_none() || self.time_until_every() == until_every;
        assert!(unmoved, "@every comes at another time because the clock was set");
        self.witness.count("clock");
    }

    /// How long until the task on a grid starts next.
    fn time_until_every(&self) -> Option<TimeDelta> {
        let (id, _) = self.plan.tasks().find(|(_, task)| task.name.starts_with("every"))?;
        Some(self.agenda.as_ref()?.next_start(id, self.now)? - self.now.wall)
    }

    /// So many days pass, by the truth; under a wild clock half a day for each disturbance.
    pub fn live(&mut self, days: u64) {
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

    /// Nothing disturbs any more and everything succeeds: after eight days nothing is stuck and nothing lost.
    pub fn rest(&mut self) {
        self.resting = true;
        self.shut_down();
        self.versions.iter_mut().for_each(Version::enable);
        let disabled: Vec<TaskId> = self.plan.tasks().filter(|(_, task)| !task.enabled).map(|(id, _)| id).collect();
        self.take_plan(&disabled);
        self.restart();
        self.run_for(8 * DAY);
        let agenda = self.agenda.as_ref().expect("it lives");
        self.witness.judge(agenda, self.now, &self.disk);
    }
}

fn plan_of(versions: &[Version], zone: Zone) -> Arc<Plan> {
    let mut plan = plan(tasks(versions), 3);
    plan.zone = zone;
    Arc::new(plan)
}
