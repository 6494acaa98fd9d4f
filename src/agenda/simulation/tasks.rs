//! The tasks of a simulated machine, and how their configuration changes.
//!
//! A name begins with what the witness may expect of the task: `plain` ones have nothing that could hold them for
//! long, `every` is on a grid of elapsed time, `skipping` makes up for nothing.

use std::time::Duration;

use super::dice::Dice;
use crate::plan::testing::{exclusive, policy, secret, shared, step, task};
use crate::plan::{Condition, Missed, Overlap, Retry, Task};
use crate::schedule::Schedule;

const HOUR: Duration = Duration::from_secs(3_600);

/// How a task is written in the configuration just now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Version {
    /// How often it was given another name.
    renamed: u32,
    /// How often it was given another schedule.
    rescheduled: usize,
    disabled: bool,
}

/// What was done to a task's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    Renamed,
    Rescheduled,
    Toggled,
}

impl Version {
    /// Changes it somehow.
    pub fn edit(&mut self, dice: &mut Dice) -> Edit {
        match dice.below(4) {
            0 => {
                self.renamed += 1;
                Edit::Renamed
            }
            1 => {
                self.rescheduled += 1;
                Edit::Rescheduled
            }
            _ => {
                self.disabled = !self.disabled;
                Edit::Toggled
            }
        }
    }

    pub fn enable(&mut self) {
        self.disabled = false;
    }
}

/// All tasks in their present versions; those that are missing are as they were first written.
pub fn tasks(versions: &[Version]) -> Vec<Task> {
    let mut tasks = first_written();
    for (task, version) in tasks.iter_mut().zip(versions) {
        task.enabled = !version.disabled;
        if version.renamed > 0 {
            task.name = format!("{}-{}", task.name, version.renamed);
        }
        for schedule in &mut task.schedules {
            *schedule = rescheduled(schedule, version.rescheduled);
        }
    }
    tasks
}

/// What `schedule` was changed to after so many changes.
fn rescheduled(schedule: &Schedule, changes: usize) -> Schedule {
    let others: &[&str] = match schedule {
        Schedule::Crontab(_) => &["45 2 * * *", "*/30 * * * *", "10 1,2,3 * * *", "0 3 * * 0"],
        Schedule::Every(_) => &["@every 5h", "@every 11h"],
        Schedule::Start => &["@start"],
        Schedule::Reboot => &["@reboot"],
    };
    let other = changes.checked_sub(1).map(|change| others[change % others.len()]);
    other.map_or_else(|| schedule.clone(), |text| Schedule::parse(text).expect("a schedule"))
}

fn first_written() -> Vec<Task> {
    let with = |name: &str, schedules: &[&str], change: &dyn Fn(&mut Task)| {
        let mut task = task(name, schedules);
        change(&mut task);
        task
    };
    let condition = || Some(Box::new(Condition { check: step(None), recheck: Duration::from_secs(300) }));
    let retry = Retry { times: 2, delay: Duration::from_secs(60) };
    vec![
        with("plain", &["30 2 * * *"], &|_| {}),
        with("plain-often", &["*/20 * * * *"], &|task| policy(task).overlap = Overlap::Queue),
        with("plain-jitter", &["15 */4 * * *"], &|task| policy(task).jitter = HOUR / 2),
        with("every", &["@every 7h"], &|task| policy(task).retry = retry),
        with("skipping", &["5 */2 * * *"], &|task| policy(task).missed = Missed::Skip),
        with("locked", &["0 * * * *", "30 3 * * *"], &|task| {
            policy(task).locks = vec![exclusive(0)];
            policy(task).retry = retry;
            policy(task).overlap = Overlap::Queue;
        }),
        with("sharing", &["0 */3 * * *"], &|task| policy(task).locks = vec![shared(0), exclusive(1)]),
        with("sharing-too", &["0 */3 * * *"], &|task| policy(task).locks = vec![shared(0), shared(1)]),
        with("picky", &["0 6 * * *"], &|task| {
            policy(task).only_if = condition();
            policy(task).run_anyway_after = Some(HOUR * 72);
            policy(task).locks = vec![exclusive(1)];
        }),
        with("patient", &["10 */5 * * *"], &|task| {
            policy(task).only_if = condition();
            policy(task).max_wait = Some(HOUR);
            policy(task).timeout = Some(HOUR * 2);
            policy(task).retry = retry;
        }),
        with("needy", &["0 5,17 * * 1-5"], &|task| task.steps = vec![step(Some(secret(0)))]),
        with("start", &["@start", "0 12 * * *"], &|_| {}),
        with("reboot", &["@reboot"], &|task| policy(task).locks = vec![exclusive(2)]),
    ]
}
