//! `once`: runs a task now, without a daemon, or a command of the caller's in its place.
//!
//! It has a private socket of its own and leaves the schedule's state alone, but waits for the
//! task's locks, so that it and a daemon respect each other.

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::clock;
use crate::error::Error;
use crate::file_locks::{self, Held, NotTaken, Wanted};
use crate::log;
use crate::outcome::{self, Outcome, RunId};
use crate::output::Record;
use crate::plan::{Plan, SecretId, Task, TaskId};
use crate::runner::{self, Context, Happening, Hook, RunSwitch, Setting, StopOrder, Streams, Try, TryEnd};
use crate::secretbox::listener::Listener;
use crate::socket::Reach;
use crate::startup::{self, Prepared, Sources};
use crate::sys;

/// The run id of every `once`.
const ONCE: RunId = RunId(0);

/// How often a lock that another holds is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// What to run.
pub struct Once {
    pub config: PathBuf,
    pub task: String,
    pub step: Option<String>,
    /// In place of the task's own commands.
    pub command: Option<Vec<OsString>>,
}

/// Runs it; the exit status says how it ended.
pub fn run(once: Once) -> Result<u8, Vec<Error>> {
    let one = |error: Error| vec![error];
    let umask = sys::set_umask(0o077);
    let mut loaded = startup::load(&once.config)?;
    log::configure(loaded.plan.log.level, loaded.plan.log.format);
    let task = loaded.plan.find_task(&once.task).map_err(one)?;
    find_step(loaded.plan.task(task), once.step.as_deref()).map_err(one)?;
    let on_terminal = once.command.is_some();
    if let Some(command) = once.command {
        loaded.plan.put_in_place(task, once.step.as_deref(), command, &loaded.host.current_dir).map_err(one)?;
    }
    let reach = runner::reach_of([loaded.plan.task(task)].into_iter());
    let folder = PrivateFolder::make(loaded.host.xdg_runtime_dir.as_deref(), reach).map_err(one)?;
    let Prepared { setting, sources, .. } =
        startup::prepare(loaded.plan, &loaded.host, folder.0.join("socket"), umask)?;
    let missing = missing_programs(&setting, task);
    if !missing.is_empty() {
        return Err(missing);
    }
    let switch = Arc::new(RunSwitch::default());
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(switch.clone(), stop.clone(), on_terminal).map_err(one)?;
    let listener = Listener::bind(&setting.socket, reach).map_err(one)?;
    ask(&setting, &sources, &setting.plan.task(task).all_secrets(), &stop)?;
    let _locks = wait_for_locks(&setting.plan, setting.plan.task(task), &stop).map_err(one)?;
    let setting = Arc::new(setting);
    let secretbox = setting.secretbox.clone();
    let serve = move || listener.serve(&secretbox);
    thread::Builder::new().spawn(serve).map_err(|error| one(Error::new("secretbox", error)))?;
    let only_step = if on_terminal { None } else { once.step };
    if on_terminal { run_on_terminal(&setting, task, &switch) } else { run_task(&setting, task, only_step, &switch) }
}

fn find_step(task: &Task, name: Option<&str>) -> Result<(), Error> {
    let Some(name) = name else { return Ok(()) };
    if task.steps.iter().any(|step| step.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = task.steps.iter().map(|step| step.name.as_str()).collect();
    Err(Error::new(name, format!("task {} has no such step", task.name))
        .hint(format!("its steps: {}", names.join(", "))))
}

/// What is wrong with the programs that this task needs; those of others do not matter here.
fn missing_programs(setting: &Setting, task: TaskId) -> Vec<Error> {
    let task = setting.plan.task(task);
    let steps = task.steps.iter().chain(&task.finally);
    let mut errors: Vec<Error> = Vec::new();
    for error in steps.filter_map(|step| setting.programs.get(step.program).err()) {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    errors
}

/// Signals are the run's: on the terminal they are passed on as they come, otherwise the first
/// stops the run in order and the second ends it.
fn watch_signals(switch: Arc<RunSwitch>, stop: Arc<AtomicBool>, on_terminal: bool) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::new("signals", error);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]).map_err(failed)?;
    let work = move || {
        for signal in signals.forever() {
            let is_first = !stop.swap(true, Ordering::Relaxed);
            switch.tell(match (on_terminal, is_first) {
                (true, _) => StopOrder::Forward(signal),
                (false, true) => StopOrder::Stop,
                (false, false) => StopOrder::Kill,
            });
        }
    };
    thread::Builder::new().spawn(work).map_err(failed)?;
    Ok(())
}

fn ask(setting: &Setting, sources: &Sources, secrets: &[SecretId], stop: &AtomicBool) -> Result<(), Vec<Error>> {
    let asked = sources.ask(setting, secrets, stop);
    asked.warnings.iter().for_each(log::caution);
    let errors: Vec<Error> =
        asked.wrong.into_iter().chain(asked.unavailable.into_iter().map(|(_, error)| error)).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Takes the task's locks, all or none, and waits for them if need be.
fn wait_for_locks(plan: &Plan, task: &Task, stop: &AtomicBool) -> Result<Option<Held>, Error> {
    if task.policy.locks.is_empty() {
        return Ok(None);
    }
    startup::prepare_state_dir(&plan.state_dir)?;
    let wanted: Vec<Wanted<'_>> =
        task.policy.locks.iter().map(|lock| Wanted { name: plan.lock_name(lock.lock), shared: lock.shared }).collect();
    let failed = |error: std::io::Error| Error::new(plan.state_dir.display(), format!("cannot take locks: {error}"));
    let mut said = false;
    loop {
        let busy = match file_locks::try_take(&plan.state_dir, &wanted) {
            Ok(held) => return Ok(Some(held)),
            Err(NotTaken::Busy(busy)) => &wanted[busy],
            Err(NotTaken::Failed(error)) => return Err(failed(error)),
        };
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(&task.name, "interrupted while waiting for a lock"));
        }
        if !said {
            log::info("waiting for a lock", &[("task", &task.name), ("lock", &busy.name)]);
            said = true;
        }
        thread::sleep(LOCK_PAUSE);
    }
}

fn run_on_terminal(setting: &Setting, task: TaskId, switch: &RunSwitch) -> Result<u8, Vec<Error>> {
    let step = &setting.plan.task(task).steps[0];
    let task_name = &setting.plan.task(task).name;
    let context = Context::new(task_name, &step.name, ONCE, now(&setting.plan));
    let policy = setting.plan.task(task).policy.stop;
    let switches = [&switch.steps];
    let end = runner::run_command(setting, step, &context, Streams::Inherited, policy, None, &switches);
    let end = end.map_err(|error| vec![error])?;
    Ok(u8::try_from(outcome::exit_code(end.exit)).unwrap_or(1))
}

fn run_task(setting: &Setting, id: TaskId, only_step: Option<String>, switch: &RunSwitch) -> Result<u8, Vec<Error>> {
    let task = setting.plan.task(id);
    let record = Mutex::new(Record::new(task.policy.output));
    let started = Instant::now();
    let mut happening = Happening::of_start(id, ONCE, now(&setting.plan));
    runner::call_hook(setting, Hook::Start, &happening, &switch.finally);
    let deadline = task.policy.timeout.map(|timeout| started + timeout);
    let attempt = Try { task: id, run: ONCE, slot: happening.slot.clone(), deadline, only_step };
    let end = try_until_it_ends(setting, &attempt, switch, &record);

    let record = record.into_inner().unwrap_or_else(PoisonError::into_inner);
    let log = &mut |lines: &str| runner::log_kept_output(lines, &task.name, ONCE);
    record.settle(end.outcome == Outcome::Success, log);
    let took = started.elapsed();
    runner::log_end(&task.name, ONCE, &end, Some(took));
    happening.outcome = Some(end.outcome);
    happening.exit_code = end.exit_code;
    happening.took = Some(took);
    happening.tail = record.tail().to_owned();
    for hook in runner::hooks_of_end(end.outcome, false) {
        runner::call_hook(setting, hook, &happening, &switch.finally);
    }
    Ok(end.outcome.exit_status())
}

/// Tries again after a failure as often as the task's `retry` says.
fn try_until_it_ends(setting: &Setting, attempt: &Try, switch: &RunSwitch, record: &Mutex<Record>) -> TryEnd {
    let retry = setting.plan.task(attempt.task).policy.retry;
    let mut delay = retry.delay;
    let mut end = runner::run_try(setting, attempt, switch, record);
    for _ in 0..retry.times {
        let is_final = end.outcome != Outcome::Failure || end.fatal;
        if is_final || switch.steps.is_stopped() {
            break;
        }
        let (task, pause) = (&setting.plan.task(attempt.task).name, clock::format_duration(delay));
        let mut fields: Vec<(&str, &dyn std::fmt::Display)> = vec![("task", task), ("in", &pause)];
        if std::io::stderr().is_terminal() {
            fields.push(("hint", &"Ctrl-C ends it"));
        }
        log::warn("failed, trying again", &fields);
        let left = attempt.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !switch.steps.pause(left.map_or(delay, |left| left.min(delay))) {
            log::info("stopped before another try", &[("task", task)]);
            break;
        }
        if left.is_some_and(|left| left <= delay) {
            return TryEnd { outcome: Outcome::Timeout, ..end };
        }
        delay *= 2;
        end = runner::run_try(setting, attempt, switch, record);
    }
    end
}

fn now(plan: &Plan) -> String {
    clock::format_time(clock::now().wall, plan.zone)
}

/// A folder for the private socket, removed with it at the end.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Below the user's runtime directory, else the one for temporary files. Its name is taken by
    /// making it, so nobody can have put anything there before.
    fn make(runtime_directory: Option<&Path>, reach: Reach) -> Result<PrivateFolder, Error> {
        // Other users cannot go through a user's runtime directory.
        let (own, mode) = match reach {
            Reach::Own => (runtime_directory.filter(|path| path.is_dir()), 0o700),
            Reach::Everyone => (None, 0o711),
        };
        let base = own.map_or_else(std::env::temp_dir, Path::to_owned);
        for number in 0.. {
            let folder = base.join(format!("backupnizza-{}-{number}", process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => {
                    let made = fs::set_permissions(&folder, fs::Permissions::from_mode(mode));
                    made.map_err(|error| Error::new(folder.display(), error))?;
                    return Ok(PrivateFolder(folder));
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::new(folder.display(), format!("cannot make the folder: {error}"))),
            }
        }
        Err(Error::new(base.display(), "no free name for a folder"))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
