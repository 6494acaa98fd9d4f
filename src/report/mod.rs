//! What people are shown: the tables of `check` and `next`; `status` and `history`.
//!
//! On a terminal columns are aligned and folded; into a pipe go tabs, one line a row, for other programs.

mod history;
mod json;
mod status;
mod table;
mod width;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::clock::Zone;
use crate::plan::{Plan, Programs, Step, Task, TaskId, Value};
use crate::schedule::Schedule;

pub use history::{history_json, history_table};
pub use status::{DaemonStatus, SecretState, SecretStatus, Status, TaskState, TaskStatus, memory_name};
use table::Cell;
pub use table::{Output, Table};

/// Each task with its schedule, next slot, programs and secrets. Without `programs` they are
/// shown as they are named.
pub fn check_table(plan: &Plan, programs: Option<&Programs>, now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&["TASK", "SCHEDULE", "NEXT SLOT", "PROGRAMS", "SECRETS"]);
    for (_, task) in plan.tasks() {
        table.push(vec![
            task.name.clone().into(),
            or_dash(task.schedules.iter().map(Schedule::to_string).collect()).into(),
            next_slot(plan, task, now),
            program_names(plan, programs, task).into(),
            or_dash(deliveries(plan, task)).into(),
        ]);
    }
    table
}

fn or_dash(lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() { vec!["-".to_owned()] } else { lines }
}

fn next_slot(plan: &Plan, task: &Task, now: DateTime<Utc>) -> Cell {
    if !task.enabled {
        return "disabled".to_owned().into();
    }
    match slots(task, plan.zone, now).next() {
        Some(slot) => Cell::time(slot, plan.zone),
        None => "-".to_owned().into(),
    }
}

fn all_steps(task: &Task) -> impl Iterator<Item = &Step> {
    task.steps.iter().chain(&task.finally)
}

fn program_names(plan: &Plan, programs: Option<&Programs>, task: &Task) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for step in all_steps(task) {
        let found = programs.and_then(|programs| programs.get(step.program).ok());
        let name = match found {
            Some(program) => program.path().display().to_string(),
            None => plan.program(step.program).name.clone(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `vault as command`, `disk on stdin`.
fn deliveries(plan: &Plan, task: &Task) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for step in all_steps(task) {
        for (_, value) in step.environment.iter() {
            let (secret, way) = match value {
                Value::Text(_) => continue,
                Value::Token { secret, .. } => (secret, "command"),
                Value::File { secret, .. } => (secret, "file"),
                Value::Plain { secret, .. } => (secret, "value"),
            };
            lines.insert(format!("{} as {way}", plan.secret(*secret).name));
        }
        if let Some(secret) = step.stdin {
            lines.insert(format!("{} on stdin", plan.secret(secret).name));
        }
    }
    lines.into_iter().collect()
}

/// The coming slots of the tasks (of one, if given), `count` of each, in order of time.
pub fn next_table(plan: &Plan, task: Option<TaskId>, count: usize, from: DateTime<Utc>) -> Table {
    let shown = plan.tasks().filter(|(id, wanted)| wanted.enabled && task.is_none_or(|task| task == *id));
    let mut all: Vec<(DateTime<Utc>, &str)> = shown
        .flat_map(|(_, task)| slots(task, plan.zone, from).take(count).map(|slot| (slot, task.name.as_str())))
        .collect();
    all.sort();
    let mut table = Table::new(&["SLOT", "TASK"]);
    for (slot, name) in all {
        table.push(vec![Cell::time(slot, plan.zone), name.to_owned().into()]);
    }
    table
}

/// The slots of one schedule after `from`. `@every` is counted from there, as a daemon that first
/// starts at that moment would; `@start` and `@reboot` have no time.
pub fn schedule_slots(
    schedule: &Schedule,
    zone: Zone,
    from: DateTime<Utc>,
) -> Box<dyn Iterator<Item = DateTime<Utc>> + '_> {
    match schedule {
        Schedule::Crontab(crontab) => {
            Box::new(std::iter::successors(crontab.next_after(from, zone), move |slot| crontab.next_after(*slot, zone)))
        }
        Schedule::Every(time) => {
            let next = move |slot: &DateTime<Utc>| slot.checked_add_signed(chrono::Duration::from_std(*time).ok()?);
            Box::new(std::iter::successors(next(&from), next))
        }
        Schedule::Start | Schedule::Reboot => Box::new(std::iter::empty()),
    }
}

/// The slots of all of a task's schedules in order, each once.
fn slots(task: &Task, zone: Zone, from: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
    let mut upcoming: Vec<_> =
        task.schedules.iter().map(|schedule| schedule_slots(schedule, zone, from).peekable()).collect();
    std::iter::from_fn(move || {
        let next = upcoming.iter_mut().filter_map(|slots| slots.peek().copied()).min()?;
        for slots in &mut upcoming {
            slots.next_if_eq(&next);
        }
        Some(next)
    })
}
