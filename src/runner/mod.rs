//! One try of a run: its steps in their order, what their ends mean together, and `finally`.
//!
//! `command` runs one command; `given` is what it gets, `pump` what flows, `stop` how it is ended.

mod command;
mod environment;
mod given;
mod hooks;
mod pump;
mod redaction;
mod stop;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::launch::Launchers;
use crate::log;
use crate::outcome::{self, Outcome, RunId};
use crate::output::{Patterns, Record};
use crate::plan::{OnError, Order, Plan, Programs, Step, Task, TaskId};
use crate::secretbox::{NamedSecret, Secretbox};
use crate::socket::Reach;

pub use command::{Context, Cut, End, Streams, log_kept_output, run as run_command};
pub use environment::Inherited;
pub use hooks::{Happening, Hook, call as call_hook, hooks_of_end};
pub use redaction::Redaction;
pub use stop::{Order as StopOrder, RunSwitch, StopSwitch, end_session, members};

/// Of the threads of runs, in bytes: many times what the deepest needs. The C library keeps the stacks of threads that
/// have ended for those to come, up to 40 MB in all, and taking one back from the kernel interrupts all processors.
pub const STACK: usize = 512 * 1024;

/// What all runs of a process share.
pub struct Setting {
    pub plan: Arc<Plan>,
    pub programs: Programs,
    pub secretbox: Arc<Secretbox>,
    pub launchers: Arc<Launchers>,
    /// The absolute path of this program, for `as: command`.
    pub client: PathBuf,
    /// Where its tokens are redeemed.
    pub socket: PathBuf,
    pub inherited: Inherited,
    /// The umask that the daemon was started with, for its commands.
    pub umask: u32,
    /// What to keep out of all output.
    pub redaction: Redaction,
    /// Called with the session of each command before exec, so that it can be found again if this
    /// process dies; an error keeps the command from starting.
    pub record_started: SessionRecorder,
    /// Called when such a command has ended.
    pub record_ended: Box<dyn Fn(&Spawned) + Send + Sync>,
}

pub type SessionRecorder = Box<dyn Fn(&Spawned) -> Result<(), Error> + Send + Sync>;

/// A command that is about to become itself.
pub struct Spawned {
    pub run: RunId,
    pub task: Arc<str>,
    /// Which is also the session that it leads.
    pub pid: i32,
    /// As `sys::Process::started`.
    pub started: u64,
}

impl Setting {
    /// Keeps the secrets that are loaded, and `others`, out of output from now on.
    pub fn renew_redaction(&self, others: Vec<NamedSecret>) -> Result<(), Error> {
        let loaded = self.plan.secrets().filter_map(|(id, _)| self.secretbox.named_secret(id));
        let patterns = Patterns::new(self.secretbox.arena(), loaded.chain(others).collect());
        let patterns = patterns.map_err(|error| crate::secret::no_memory(&error))?;
        self.redaction.renew(patterns).map_err(|error| Error::new("redaction", error))
    }
}

/// Who has to reach the socket from within commands of `tasks`.
pub fn reach_of<'a>(mut tasks: impl Iterator<Item = &'a Task>) -> Reach {
    let others = tasks.any(|task| task.commands().any(|step| step.user.is_some()));
    if others { Reach::Everyone } else { Reach::Own }
}

/// Which try of which run.
#[derive(Debug, Clone)]
pub struct Try {
    pub task: TaskId,
    pub run: RunId,
    /// RFC 3339.
    pub slot: String,
    /// When the run's `timeout` is over.
    pub deadline: Option<Instant>,
    /// Only this step, for `once --step`.
    pub only_step: Option<String>,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryEnd {
    pub outcome: Outcome,
    /// Of the step that decided.
    pub exit_code: Option<i32>,
    /// Not to be tried again.
    pub fatal: bool,
}

impl TryEnd {
    /// When this program itself failed at it.
    pub const DEFECT: TryEnd = TryEnd { outcome: Outcome::Failure, exit_code: None, fatal: false };

    const NOTHING_YET: TryEnd = TryEnd { outcome: Outcome::Success, exit_code: None, fatal: false };

    /// Before all steps were started.
    const STOPPED: TryEnd = TryEnd { outcome: Outcome::Stopped, exit_code: None, fatal: false };

    /// The worse of two ends; of two alike, the first with an exit status.
    fn and(self, other: TryEnd) -> TryEnd {
        let fatal = self.fatal || other.fatal;
        let is_worst = self.outcome.worse(other.outcome) == self.outcome;
        let keeps = is_worst && (self.outcome != other.outcome || self.exit_code.is_some());
        TryEnd { fatal, ..if keeps { self } else { other } }
    }
}

/// Runs the steps of a task once, then its `finally`, whatever happened.
pub fn run_try(setting: &Setting, attempt: &Try, switch: &RunSwitch, record: &Mutex<Record>) -> TryEnd {
    let task = setting.plan.task(attempt.task);
    let run = TryRun { setting, attempt, task, record };
    let steps: Vec<&Step> =
        task.steps.iter().filter(|step| attempt.only_step.as_ref().is_none_or(|only| *only == step.name)).collect();
    let end = match task.order {
        Order::Sequence => run.in_sequence(&steps, &switch.steps),
        Order::Parallel => run.in_parallel(&steps, &switch.steps),
    };
    run.finish(end, &switch.finally)
}

struct TryRun<'a> {
    setting: &'a Setting,
    attempt: &'a Try,
    task: &'a Task,
    record: &'a Mutex<Record>,
}

impl TryRun<'_> {
    fn in_sequence(&self, steps: &[&Step], switch: &StopSwitch) -> TryEnd {
        let mut end = TryEnd::NOTHING_YET;
        for step in steps {
            if switch.is_stopped() {
                return end.and(TryEnd::STOPPED);
            }
            end = end.and(self.step(step, self.attempt.deadline, &[switch]));
            let is_over = self.attempt.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over
                || end.outcome == Outcome::Stopped
                || (end.outcome.is_failure() && self.task.on_error == OnError::Stop)
            {
                break;
            }
        }
        end
    }

    fn in_parallel(&self, steps: &[&Step], switch: &StopSwitch) -> TryEnd {
        let others = StopSwitch::default();
        let total = Mutex::new(TryEnd::NOTHING_YET);
        let run = |step| {
            let end = self.step(step, self.attempt.deadline, &[switch, &others]);
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that were stopped for a failure of another do not count beside it.
            if !(others.is_stopped() && end.outcome == Outcome::Stopped && !switch.is_stopped()) {
                *total = total.and(end);
            }
            if end.outcome.is_failure() && self.task.on_error == OnError::Stop {
                others.tell(StopOrder::Stop);
            }
        };
        thread::scope(|scope| {
            let run = &run;
            for &step in steps {
                // Where there is no thread to be had, this one will do.
                if thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || run(step)).is_err() {
                    run(step);
                }
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the `finally` steps. What stopped the others does not stop them; each has its timeout.
    fn finish(&self, end: TryEnd, switch: &StopSwitch) -> TryEnd {
        self.task
            .finally
            .iter()
            .fold(end, |end, step| if switch.is_killed() { end } else { end.and(self.step(step, None, &[switch])) })
    }

    fn step(&self, step: &Step, deadline: Option<Instant>, switches: &[&StopSwitch]) -> TryEnd {
        let context = Context::new(&self.task.name, &step.name, self.attempt.run, self.attempt.slot.clone());
        let own_deadline = step.timeout.map(|timeout| Instant::now() + timeout);
        let deadline = deadline.into_iter().chain(own_deadline).min();
        let streams = Streams::Recorded(self.record);
        let policy = self.task.policy.stop;
        match run_command(self.setting, step, &context, streams, policy, deadline, switches) {
            Ok(end) => {
                let end = judge(end, step);
                self.tell_of_end(&end, &context);
                end
            }
            Err(error) => {
                log_error(&error, &context);
                TryEnd { outcome: Outcome::Failure, exit_code: None, fatal: false }
            }
        }
    }

    /// Which step it was, where the run alone does not tell.
    fn tell_of_end(&self, end: &TryEnd, context: &Context) {
        if end.outcome == Outcome::Success || self.task.commands_of_run().nth(1).is_none() {
            return;
        }
        let (task, step, run, outcome) = (&context.task, &context.step, &context.run, &end.outcome);
        let mut fields: Vec<log::Field<'_>> = vec![("task", task), ("step", step), ("run", run), ("outcome", outcome)];
        fields.extend(end.exit_code.iter().map(|code| ("exit_code", code as &dyn std::fmt::Display)));
        log::warn("a step ended", &fields);
    }
}

/// What the end of a step's command means for its try.
fn judge(end: End, step: &Step) -> TryEnd {
    let verdict = outcome::judge(end.exit, &step.exit_codes);
    let outcome = match end.cut {
        None => verdict.outcome,
        Some(Cut::Timeout) => Outcome::Timeout,
        Some(Cut::Ordered) => Outcome::Stopped,
    };
    TryEnd { outcome, exit_code: Some(outcome::exit_code(end.exit)), fatal: verdict.fatal && end.cut.is_none() }
}

/// Why a command did not start, in the log.
pub fn log_error(error: &Error, context: &Context) {
    let message = error.to_string();
    let mut fields: Vec<log::Field<'_>> = vec![("task", &context.task), ("step", &context.step), ("run", &context.run)];
    if let Some(hint) = &error.hint {
        fields.push(("hint", hint));
    }
    log::error(&message, &fields);
}

/// How a run ended, in the log.
pub fn log_end(task: &str, run: RunId, end: &TryEnd, took: Option<Duration>) {
    let level = match end.outcome {
        Outcome::Success => log::Level::Info,
        Outcome::Warning | Outcome::Stopped | Outcome::Skipped(_) => log::Level::Warn,
        Outcome::Failure | Outcome::Timeout | Outcome::Crashed => log::Level::Error,
    };
    let took = took.map(clock::format_duration);
    let mut fields: Vec<log::Field<'_>> = vec![("task", &task), ("run", &run), ("outcome", &end.outcome)];
    if let Some(took) = &took {
        fields.push(("took", took));
    }
    if let Some(code) = &end.exit_code {
        fields.push(("exit_code", code));
    }
    log::event(level, "run ended", &fields);
}
