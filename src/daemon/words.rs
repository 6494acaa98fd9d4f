//! What the log says of the agenda's notices.

use crate::agenda::{Notice, Wait};
use crate::clock;
use crate::log::{self, Level};
use crate::plan::{Plan, TaskId};

/// Writes a notice to the log.
pub fn tell(notice: &Notice, plan: &Plan) {
    let name = |task: &TaskId| plan.task(*task).name.as_str();
    match notice {
        Notice::ClockJumped { seconds } => log::warn("the clock was set", &[("by_seconds", seconds)]),
        Notice::ClockCorrected { tasks } => {
            log::warn(
                "the last slots lie in the future, so the clock was corrected; going on from now",
                &[("tasks", tasks)],
            );
        }
        Notice::Slept { seconds } => log::info("the machine slept", &[("seconds", seconds)]),
        Notice::NewTask { task } => log::debug("new task, its slots count from now", &[("task", &name(task))]),
        Notice::ScheduleChanged { task } => {
            log::info(
                "its schedule, or whether it is enabled, changed; its slots count from now",
                &[("task", &name(task))],
            );
        }
        Notice::Missed { task, slot, delay } => {
            let (slot, delay) = (clock::format_time(*slot, plan.zone), clock::format_duration(*delay));
            log::warn("missed, running once", &[("task", &name(task)), ("slot", &slot), ("in", &delay)]);
        }
        Notice::Waits { task, slot, what } => {
            let slot = clock::format_time(*slot, plan.zone);
            log::info("due, waiting", &[("task", &name(task)), ("slot", &slot), ("for", &reason(*what, plan, *task))]);
        }
        Notice::Retries { task, run, attempt, delay } => {
            let delay = clock::format_duration(*delay);
            log::warn(
                "failed, trying again",
                &[("task", &name(task)), ("run", run), ("attempt", attempt), ("in", &delay)],
            );
        }
        Notice::RetryReplaced { task, run, by_hand } => {
            let what = match by_hand {
                true => "another run takes the place of the try",
                false => "the next slot takes the place of another try",
            };
            log::info(what, &[("task", &name(task)), ("run", run)]);
        }
        Notice::Repeats { task, delay } => {
            let delay = clock::format_duration(*delay);
            log::warn("its last run was cut short, repeating it", &[("task", &name(task)), ("in", &delay)]);
        }
        Notice::CutAgain { task, run } => {
            log::error("cut short again, not repeating it", &[("task", &name(task)), ("run", run)]);
        }
        Notice::NotRecorded { failures } => {
            let level = if *failures == 1 { Level::Error } else { Level::Warn };
            log::event(level, "the ledger cannot be written, runs wait for it", &[("failures", failures)]);
        }
        Notice::RecordedAgain => log::info("the ledger can be written again", &[]),
    }
}

/// What a run waits for, in words.
pub fn reason(what: Wait, plan: &Plan, task: TaskId) -> String {
    let locks = || {
        let locks = plan.task(task).policy.locks.iter().map(|lock| plan.lock_name(lock.lock));
        locks.collect::<Vec<_>>().join(", ")
    };
    match what {
        Wait::Start => "its start".to_owned(),
        Wait::Behind(run) => format!("run {run} of the same task"),
        Wait::Secrets => "its secrets".to_owned(),
        Wait::Condition => "its condition".to_owned(),
        Wait::Lock => format!("its lock: {}", locks()),
        Wait::FileLock => format!("its lock, which another process holds: {}", locks()),
        Wait::Turn => "its turn".to_owned(),
        Wait::Record => "the ledger".to_owned(),
        Wait::Retry { run, attempt } => format!("try {attempt} of run {run}"),
    }
}
