//! What a new daemon makes of the ledger: runs that were cut, runs that were due, slots that were missed.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::alarms::Alarms;
use super::book::Book;
use super::due::Due;
use super::queues::{Locks, Turns};
use super::slots::{AHEAD, Slots, fingerprint, offset, shift};
use super::{Action, Agenda, Ended, Entry, FileLocks, Notice};
use crate::clock::{Now, Zone, nanos};
use crate::ledger::{Cause, Record, Started, State, TaskState};
use crate::outcome::{Outcome, RunId};
use crate::plan::{Plan, SecretId, Task, TaskId};
use crate::schedule::{Calendars, Schedule};

/// The fingerprint of a task that is not enabled: enabling it is a change of its schedule.
const DISABLED: u64 = 0;

impl Agenda {
    /// The scheduler of a daemon that starts now, after it has stopped the sessions that survived the last one.
    /// `state` is what the ledger says, `secrets` are those that are there.
    pub fn new(
        plan: Arc<Plan>,
        state: &State,
        secrets: &[SecretId],
        now: Now,
        boot_id: &str,
        machine_id: &str,
    ) -> (Agenda, Vec<Action>) {
        let mut calendars = Calendars::default();
        let met: Vec<Met<'_>> = plan.tasks().map(|(_, task)| Met::new(&plan, task, state)).collect();
        let entries = met.iter().map(|met| Entry::new(met, plan.zone, now, machine_id, &mut calendars));
        let mut agenda = Agenda {
            tasks: entries.collect(),
            locks: Locks::default(),
            turns: Turns::new(plan.max_concurrent_runs),
            secrets: plan.secrets().map(|(id, _)| secrets.contains(&id)).collect(),
            active_runs: BTreeMap::new(),
            next_run: state.next_run,
            book: Book::default(),
            wall_alarms: Alarms::new(plan.tasks().len()),
            boot_alarms: Alarms::new(plan.tasks().len()),
            clocks: now.into(),
            closing: false,
            work: VecDeque::new(),
            actions: Vec::new(),
            plan: plan.clone(),
        };
        let crashed = agenda.end_interrupted_runs(state, now);
        agenda.forget_removed_tasks(state);
        agenda.clock_was_set(now, true);
        let rebooted = state.boot.as_deref() != Some(boot_id);
        for ((id, task), met) in plan.tasks().zip(&met) {
            agenda.greet_task(id, met, now);
            if task.enabled {
                agenda.begin_task(id, met, rebooted, now);
                let cut = met.known.is_some_and(|known| known.schedule.is_some() && known.cut) || crashed.contains(&id);
                if Agenda::will_repeat(task, cut, Cause::Slot) {
                    agenda.repeat(id, now);
                }
            }
        }
        // Last, so that `@reboot` is handled only if what it made due is on disk too.
        agenda.book.note(Record::Begun { boot: boot_id.to_string(), wall: now.wall });
        let actions = agenda.finish(now);
        (agenda, actions)
    }

    fn forget_removed_tasks(&mut self, state: &State) {
        let names: HashSet<&str> = self.plan.tasks().map(|(_, task)| task.name.as_str()).collect();
        for (name, known) in &state.tasks {
            if known.schedule.is_some() && !names.contains(name.as_str()) {
                self.book.note(Record::Gone { task: name.clone() });
            }
        }
    }

    /// A task that is new, or whose schedule changed, starts from now.
    fn greet_task(&mut self, id: TaskId, met: &Met<'_>, now: Now) {
        let (task, schedule) = (met.task, met.schedule);
        let known = met.known.and_then(|known| known.schedule);
        if known != Some(schedule) {
            self.book.note(Record::Task { task: task.name.clone(), schedule, wall: now.wall });
            match known {
                _ if !task.enabled => {}
                Some(_) => self.say(Notice::ScheduleChanged { task: id }),
                None => self.say(Notice::NewTask { task: id }),
            }
        }
    }

    /// Runs without an end died with their daemon. Returns the tasks whose run may be repeated.
    fn end_interrupted_runs(&mut self, state: &State, now: Now) -> BTreeSet<TaskId> {
        let mut crashed = BTreeSet::new();
        for (run, started) in &state.running {
            let record = Record::Ended {
                run: *run,
                outcome: Outcome::Crashed,
                exit_code: None,
                // It may have been written down just ahead of its start.
                wall: now.wall.max(started.wall),
                took: None,
                attempts: 1,
                cut: true,
            };
            match self.plan.task_named(&started.task) {
                None => self.book.note(record),
                Some(id) => {
                    crashed.extend(started.cause.is_repeatable().then_some(id));
                    self.tell_crash(id, *run, started, record);
                }
            }
        }
        crashed
    }

    fn tell_crash(&mut self, id: TaskId, run: RunId, started: &Started, record: Record) {
        let ended = Action::Ended(Ended {
            run,
            task: id,
            slot: started.slot,
            cause: started.cause,
            outcome: Outcome::Crashed,
            exit_code: None,
            took: None,
            attempts: 1,
            cut: true,
            repeats: Agenda::will_repeat(self.plan.task(id), true, started.cause),
        });
        self.actions.extend(self.book.note_end(record, ended));
        if started.cause == Cause::Repeat {
            self.say(Notice::CutAgain { task: id, run });
        }
    }

    /// Makes due what is: what was due before, slots that came meanwhile, `@start`, `@reboot`.
    fn begin_task(&mut self, id: TaskId, met: &Met<'_>, rebooted: bool, now: Now) {
        let task = met.task;
        let latest = self.delayed(id, now);
        // `@start` comes by itself.
        let due = met.unchanged().and_then(|known| known.due.as_ref()).filter(|due| due.cause != Cause::Start);
        self.tasks[id.index()].due = due.map(|due| Agenda::due_again(due, latest, now));
        let at_start = nanos(now.boot) + self.tasks[id.index()].slots.offset;
        let cause = if rebooted && task.schedules.contains(&Schedule::Reboot) {
            Some(Cause::Reboot)
        } else {
            task.schedules.contains(&Schedule::Start).then_some(Cause::Start)
        };
        let noticed = self.tasks[id.index()].slots.notice(&task.schedules, self.plan.zone, now, AHEAD);
        match (noticed, cause) {
            // One run for all; what is on time makes the whole so.
            (Some(noticed), Some(_)) => self.slot_came(id, noticed.slot, Cause::Slot, at_start, now),
            (Some(noticed), None) => {
                let cause = if noticed.on_time { Cause::Slot } else { Cause::Missed };
                self.slot_came(id, noticed.slot, cause, noticed.start_at, now);
            }
            (None, Some(cause)) => self.slot_came(id, now.wall, cause, at_start, now),
            (None, None) => {}
        }
    }

    /// Repeats a run that was cut, unless the task has a due run anyway.
    fn repeat(&mut self, id: TaskId, now: Now) {
        if self.tasks[id.index()].due.is_some() {
            return;
        }
        let start_at = self.delayed(id, now);
        let delay = Duration::from_nanos((start_at - nanos(now.boot)) as u64);
        let slot = shift(now.wall, start_at - nanos(now.boot));
        self.tasks[id.index()].due = Some(Due::new(slot, Cause::Repeat, start_at));
        self.say(Notice::Repeats { task: id, delay });
    }
}

/// A task, and what the ledger says of it.
struct Met<'s> {
    task: &'s Task,
    /// The fingerprint of its schedule: its texts and the zone in which they are meant.
    schedule: u64,
    known: Option<&'s TaskState>,
}

impl<'s> Met<'s> {
    fn new(plan: &Plan, task: &'s Task, state: &'s State) -> Self {
        let zone = match plan.zone {
            Zone::Local => "local",
            Zone::Utc => "utc",
        };
        let texts = task.schedules.iter().map(Schedule::text).chain([zone.into()]);
        let schedule = if task.enabled { fingerprint(texts).max(DISABLED + 1) } else { DISABLED };
        Met { task, schedule, known: state.tasks.get(&task.name) }
    }

    /// What the ledger says, if that was of the same schedule.
    fn unchanged(&self) -> Option<&'s TaskState> {
        self.known.filter(|known| known.schedule == Some(self.schedule))
    }
}

impl Entry {
    fn new(met: &Met<'_>, zone: Zone, now: Now, machine_id: &str, calendars: &mut Calendars) -> Self {
        let (task, known) = (met.task, met.known);
        let offset = offset(task.policy.jitter, machine_id, &task.name);
        Entry {
            slots: match met.unchanged() {
                Some(known) => Slots::from_state(&task.schedules, zone, offset, known, now, calendars),
                None => Slots::from_now(&task.schedules, zone, offset, now, calendars),
            },
            first_seen: known.map_or(now.wall, |known| known.first_seen),
            last_success: known.and_then(|known| known.last_success),
            due: None,
            active: None,
            asking: false,
            file_locks: FileLocks::None,
        }
    }
}
