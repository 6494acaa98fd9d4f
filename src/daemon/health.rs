//! Which tasks are in trouble: their last run failed, or their last success is too long ago.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::State;
use crate::outcome::Outcome;
use crate::plan::{MaxAge, Plan, Task, TaskId};
use crate::schedule::Calendars;

/// What is known of each task's health, and when it will be stale.
pub struct Health {
    tasks: Vec<TaskHealth>,
    /// When a task becomes stale unless it succeeds before.
    alarms: BTreeSet<(DateTime<Utc>, TaskId)>,
}

struct TaskHealth {
    max_age: Option<TimeDelta>,
    /// Of its last success; of a task that never had one, when it was first seen.
    counted_from: DateTime<Utc>,
    /// A run since its last success, or since it was first seen.
    failed: bool,
    stale: bool,
}

impl Health {
    /// As the ledger has it; a task that it does not know is first seen `now`.
    pub fn new(plan: &Plan, state: &State, now: DateTime<Utc>) -> Health {
        let mut calendars = Calendars::default();
        let tasks = plan.tasks().map(|(_, task)| {
            let known = state.tasks.get(&task.name);
            let max_age = max_age(plan, task, now, &mut calendars);
            let counted_from = known.map_or(now, |known| known.last_success.unwrap_or(known.first_seen));
            // The configuration may have come to allow more.
            let is_old = max_age.is_some_and(|age| now - counted_from >= age);
            let since_success = known.into_iter().flat_map(|known| known.past.iter().rev());
            let mut since_success = since_success.take_while(|past| past.outcome != Outcome::Success);
            TaskHealth {
                max_age,
                counted_from,
                failed: since_success.any(|past| past.outcome.is_failure()),
                stale: is_old && known.is_some_and(|known| known.stale),
            }
        });
        let mut health = Health { tasks: tasks.collect(), alarms: BTreeSet::new() };
        for (id, _) in plan.tasks() {
            health.set_alarm(id);
        }
        health
    }

    /// A run ended; says whether the task was in trouble before.
    pub fn ended(&mut self, id: TaskId, outcome: Outcome, now: DateTime<Utc>) -> bool {
        let task = &mut self.tasks[id.index()];
        let was_in_trouble = task.failed || task.stale;
        if outcome == Outcome::Success {
            (task.failed, task.stale, task.counted_from) = (false, false, now);
            self.alarms.retain(|(_, other)| *other != id);
            self.set_alarm(id);
        } else if outcome.is_failure() {
            task.failed = true;
        }
        was_in_trouble
    }

    /// Tasks that have become stale since it was last asked, each once.
    pub fn newly_stale(&mut self, now: DateTime<Utc>) -> Vec<TaskId> {
        let mut stale = Vec::new();
        while let Some((_, id)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.pop_first();
            self.tasks[id.index()].stale = true;
            stale.push(id);
        }
        stale
    }

    pub fn is_stale(&self, id: TaskId) -> bool {
        self.tasks[id.index()].stale
    }

    /// How long until a task becomes stale.
    pub fn next_alarm(&self, now: DateTime<Utc>) -> Option<Duration> {
        self.alarms.first().map(|(at, _)| (*at - now).to_std().unwrap_or_default())
    }

    /// How old the task's last success may be.
    pub fn max_age(&self, id: TaskId) -> Option<Duration> {
        self.tasks[id.index()].max_age.and_then(|age| age.to_std().ok())
    }

    fn set_alarm(&mut self, id: TaskId) {
        let task = &self.tasks[id.index()];
        let at = task.max_age.filter(|_| !task.stale).and_then(|age| task.counted_from.checked_add_signed(age));
        self.alarms.extend(at.map(|at| (at, id)));
    }
}

/// The longest that a task may go without a success; by default twice the longest gap between its slots.
fn max_age(plan: &Plan, task: &Task, now: DateTime<Utc>, calendars: &mut Calendars) -> Option<TimeDelta> {
    let age = match task.policy.max_age {
        _ if !task.enabled => None,
        MaxAge::Off => None,
        MaxAge::After(age) => Some(age),
        MaxAge::FromSchedule => {
            let gaps = task.schedules.iter().filter_map(|schedule| calendars.longest_gap(schedule, now, plan.zone));
            gaps.min().map(|gap| gap * 2)
        }
    };
    age.and_then(|age| TimeDelta::from_std(age).ok())
}
