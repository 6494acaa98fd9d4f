//! What is run when something happens to a task's runs, and what it is told.
//!
//! A hook is a command like any other, but it gets its own environment alone, and the last lines
//! of the run's output on standard input. It never changes how the run ended.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::command::{self, Context, Cut, End, Streams};
use super::{Setting, StopSwitch, log_error};
use crate::log;
use crate::outcome::{self, Outcome, RunId};
use crate::output::Record;
use crate::plan::{Hooks, OutputMode, Step, TaskId};
use crate::sys::ExitKind;

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Start,
    Success,
    Warning,
    Failure,
    End,
    Stale,
    Recovery,
}

/// What a hook is told.
#[derive(Debug, Clone)]
pub struct Happening {
    pub task: TaskId,
    pub run: RunId,
    /// RFC 3339.
    pub slot: String,
    pub outcome: Option<Outcome>,
    pub exit_code: Option<i32>,
    pub took: Option<Duration>,
    /// The last lines of the run's output, redacted.
    pub tail: String,
}

impl Happening {
    /// That a run begins.
    pub fn of_start(task: TaskId, run: RunId, slot: String) -> Happening {
        Happening { task, run, slot, outcome: None, exit_code: None, took: None, tail: String::new() }
    }
}

impl Hook {
    pub fn name(self) -> &'static str {
        match self {
            Hook::Start => "start",
            Hook::Success => "success",
            Hook::Warning => "warning",
            Hook::Failure => "failure",
            Hook::End => "end",
            Hook::Stale => "stale",
            Hook::Recovery => "recovery",
        }
    }

    /// The command of this hook, if there is one.
    pub fn of(self, hooks: &Hooks) -> Option<&Step> {
        match self {
            Hook::Start => hooks.start.as_deref(),
            Hook::Success => hooks.success.as_deref(),
            Hook::Warning => hooks.warning.as_deref(),
            Hook::Failure => hooks.failure.as_deref(),
            Hook::End => hooks.end.as_deref(),
            Hook::Stale => hooks.stale.as_deref(),
            Hook::Recovery => hooks.recovery.as_deref(),
        }
    }
}

/// The hooks that the end of a run calls, in order. `in_trouble`: the run before it failed, or the
/// task was stale.
pub fn hooks_of_end(outcome: Outcome, in_trouble: bool) -> Vec<Hook> {
    let own = match outcome {
        Outcome::Success => Some(Hook::Success),
        Outcome::Warning => Some(Hook::Warning),
        Outcome::Failure | Outcome::Timeout | Outcome::Crashed => Some(Hook::Failure),
        Outcome::Stopped | Outcome::Skipped(_) => None,
    };
    let recovered = in_trouble && outcome == Outcome::Success;
    own.into_iter().chain(recovered.then_some(Hook::Recovery)).chain([Hook::End]).collect()
}

/// Runs a task's hook to its end, if it has this one.
pub fn call(setting: &Setting, hook: Hook, happening: &Happening, switch: &StopSwitch) {
    let task = setting.plan.task(happening.task);
    let Some(step) = hook.of(&task.policy.hooks) else {
        return;
    };
    let mut context = Context::new(&task.name, &step.name, happening.run, happening.slot.clone());
    context.variables = variables(happening);
    context.stdin = Some(happening.tail.clone());
    let record = Mutex::new(Record::new(OutputMode::Log));
    let deadline = step.timeout.map(|timeout| Instant::now() + timeout);
    let streams = Streams::Recorded(&record);
    match command::run(setting, step, &context, streams, task.policy.stop, deadline, &[switch]) {
        Err(error) => log_error(&error, &context),
        Ok(end) if end.cut.is_none() && end.exit == ExitKind::Code(0) => {}
        Ok(end) => log_failure(&task.name, hook, happening.run, end),
    }
}

fn log_failure(task: &str, hook: Hook, run: RunId, end: End) {
    let why = match end.cut {
        None => format!("exit status {}", outcome::exit_code(end.exit)),
        Some(Cut::Timeout) => "timeout".to_owned(),
        Some(Cut::Ordered) => "stopped".to_owned(),
    };
    log::warn("a hook failed", &[("task", &task), ("hook", &hook.name()), ("run", &run), ("reason", &why)]);
}

fn variables(happening: &Happening) -> Vec<(&'static str, String)> {
    let outcome = happening.outcome.map(|outcome| ("BACKUPNIZZA_OUTCOME", outcome.name().to_owned()));
    let code = happening.exit_code.map(|code| ("BACKUPNIZZA_EXIT_CODE", code.to_string()));
    let took = happening.took.map(|took| ("BACKUPNIZZA_SECONDS", took.as_secs().to_string()));
    [outcome, code, took].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_calls_its_own_hook_and_then_end() {
        assert_eq!(hooks_of_end(Outcome::Success, false), [Hook::Success, Hook::End]);
        assert_eq!(hooks_of_end(Outcome::Timeout, false), [Hook::Failure, Hook::End]);
        assert_eq!(hooks_of_end(Outcome::Stopped, false), [Hook::End]);
    }

    #[test]
    fn recovery_is_the_first_good_end_after_trouble() {
        assert_eq!(hooks_of_end(Outcome::Success, true), [Hook::Success, Hook::Recovery, Hook::End]);
        assert_eq!(hooks_of_end(Outcome::Failure, true), [Hook::Failure, Hook::End]);
    }
}
