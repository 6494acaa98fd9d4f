//! One command from its start to its end: what it is given, how it is watched, how it is stopped.
//!
//! This thread waits for the process's end and for orders, both at once, and alone signals, then
//! revokes the tokens, and only then reaps. So a token never outlives the number of its session, and
//! no signal ever reaches a process that was not meant. What flows has a thread of its own once there
//! is something, since it may have to wait for a reader of the log.

use std::fs::File;
use std::io::{self, PipeReader};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::given::{self, Channels, Variable};
use super::pump::{Flow, Intake, Lookout, Outgoing, Pump};
use super::stop::{self, Ending, Listening, Order, Orders, STOP_PAUSE, StopSwitch};
use super::{Setting, Spawned};
use crate::error::Error;
use crate::launch::Frame;
use crate::log::{self, Field};
use crate::outcome::RunId;
use crate::output::{Record, Redactor};
use crate::plan::{Step, StopPolicy};
use crate::program::Program;
use crate::sys::{self, ExitKind, Interest, Process, Watched};

/// Whose command it is, for the log and for the command itself.
#[derive(Debug, Clone)]
pub struct Context {
    pub task: Arc<str>,
    pub step: Arc<str>,
    pub run: RunId,
    /// RFC 3339.
    pub slot: String,
    /// Further variables, and what is to be read on standard input: a hook's.
    pub variables: Vec<(&'static str, String)>,
    pub stdin: Option<String>,
}

impl Context {
    /// For a command, or output, of a task's run.
    pub fn new(task: &str, step: &str, run: RunId, slot: String) -> Context {
        Context { task: task.into(), step: step.into(), run, slot, variables: Vec::new(), stdin: None }
    }
}

/// Where a command's standard streams lead.
pub enum Streams<'a> {
    /// Output to the record, standard input from `/dev/null` or a secret.
    Recorded(&'a Mutex<Record>),
    /// The caller's own; `once CONFIG TASK -- COMMAND`.
    Inherited,
}

/// How a command came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub exit: ExitKind,
    /// Why it did not end by itself, if so.
    pub cut: Option<Cut>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Timeout,
    Ordered,
}

/// Runs the command of `step` to its end. An error means that it never started.
pub fn run(
    setting: &Setting,
    step: &Step,
    context: &Context,
    streams: Streams<'_>,
    stop_policy: StopPolicy,
    deadline: Option<Instant>,
    switches: &[&StopSwitch],
) -> Result<End, Error> {
    let orders = Orders::new().map_err(|error| Error::new("pipe", error))?;
    let _listening: Vec<Listening<'_>> = switches.iter().map(|switch| switch.listen(&orders)).collect();
    let program = check_program(setting, step, context)?;
    // Before any secret is given, so that no wiping of it goes unheard; not before, as it holds all of them.
    let valid = setting.redaction.valid();
    let Started { spawned, child, exit, output, outgoing } = start(setting, step, &program, context, &streams)?;
    let intake = match streams {
        Streams::Inherited => None,
        Streams::Recorded(record) => output.map(|output| {
            let redactor = Redactor::new(setting.secretbox.arena(), valid.patterns.clone());
            Intake::new(output, redactor, Box::new(|lines: &str| record_lines(record, lines, context)))
        }),
    };
    let lookout = Lookout { redaction: &setting.redaction, valid, has_secrets: step.secrets().next().is_some() };
    let flow = Flow { intake, outgoing, lookout };
    let end = thread::scope(|scope| {
        let pump = Pump::new(scope, flow);
        let mut watch = Watch {
            session: spawned.pid,
            exit: Some(exit),
            orders: &orders,
            pump,
            lacks_pump: false,
            stop_policy,
            context,
        };
        // Should this program fail, the command must not go on without anybody who watches it.
        let end = panic::catch_unwind(AssertUnwindSafe(|| watch.until_end(deadline)));
        if end.is_err() {
            let _ = stop::kill(spawned.pid);
        }
        setting.secretbox.revoke(spawned.pid);
        reap(child);
        let end = end.unwrap_or_else(|defect| panic::resume_unwind(defect));
        if end.cut.is_none() {
            watch.tell_of_survivors();
        }
        watch.pump.finish();
        end
    });
    (setting.record_ended)(&spawned);
    Ok(end)
}

fn program_name<'a>(setting: &'a Setting, step: &Step) -> &'a str {
    &setting.plan.program(step.program).name
}

fn record_lines(record: &Mutex<Record>, lines: &str, context: &Context) {
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    record.lines(lines, &mut |lines| log_output(lines, context));
}

/// Lines of a command's output in the log.
pub fn log_output(lines: &str, context: &Context) {
    log::output(lines, &[("task", &context.task), ("step", &context.step), ("run", &context.run)]);
}

/// Lines that were kept until the end of a run, of whichever step.
pub fn log_kept_output(lines: &str, task: &str, run: RunId) {
    log::output(lines, &[("task", &task), ("run", &run)]);
}

/// The child is there until this program reaps it, so waiting for it cannot fail; if it ever does,
/// there is nothing more to wait for.
fn await_exit(pid: i32) -> ExitKind {
    sys::wait_without_reaping(pid).unwrap_or_else(|error| {
        log::error("cannot wait for a command", &[("pid", &pid), ("error", &error)]);
        ExitKind::Code(u8::MAX)
    })
}

fn reap(mut child: Child) {
    if let Err(error) = child.wait() {
        log::error("cannot reap a command", &[("pid", &child.id()), ("error", &error)]);
    }
}

/// A command that has been started, and the daemon's ends of what it was given.
struct Started {
    spawned: Spawned,
    child: Child,
    /// As `sys::watch_exit`.
    exit: OwnedFd,
    output: Option<PipeReader>,
    outgoing: Vec<Outgoing>,
}

fn check_program(setting: &Setting, step: &Step, context: &Context) -> Result<Arc<Program>, Error> {
    let (program, notices) = setting.programs.check(step.program)?;
    for notice in notices {
        log::warn(&notice.what, &[("program", &notice.object), ("task", &context.task)]);
    }
    Ok(program)
}

fn start(
    setting: &Setting,
    step: &Step,
    program: &Program,
    context: &Context,
    streams: &Streams<'_>,
) -> Result<Started, Error> {
    let mut given = Channels::open(setting, step, context)?;
    let stdin = match given.stdin.take() {
        Some(stdin) => stdin,
        None => default_stdin(streams)?,
    };
    let outputs = Outputs::open(streams)?;
    let launcher = setting.launchers.take()?;
    let spawned =
        Spawned { run: context.run, task: context.task.clone(), pid: launcher.session(), started: launcher.started };
    let recorded = (setting.record_started)(&spawned);
    let environment = recorded.and_then(|()| given::environment(setting, step, context, spawned.pid));
    let launched = match environment {
        Err(error) => Err((launcher, error)),
        Ok(environment) => {
            let name = program_name(setting, step).as_bytes();
            let frame = Frame {
                program: program.path(),
                identity: program.identity(),
                directory: &step.working_directory,
                umask: setting.umask,
                user: step.user.as_deref(),
                has_own_output: outputs.ours.is_some(),
                arguments: std::iter::once(name).chain(step.arguments.iter().map(String::as_bytes)).collect(),
                environment: environment.iter().map(Variable::parts).collect(),
                streams: [stdin.as_fd(), outputs.stdout.as_fd(), outputs.stderr()],
                files: given.files.iter().map(AsFd::as_fd).collect(),
            };
            launcher.launch(&frame).map_err(|(launcher, error)| (launcher, about(program.path(), error)))
        }
    };
    match launched {
        Ok((child, exit)) => Ok(Started { spawned, child, exit, output: outputs.ours, outgoing: given.outgoing }),
        Err((launcher, error)) => {
            // Before the number of its session is free.
            setting.secretbox.revoke(spawned.pid);
            launcher.end();
            (setting.record_ended)(&spawned);
            Err(error)
        }
    }
}

fn about(program: &Path, error: Error) -> Error {
    let about = Error::new(program.display(), error.what);
    error.hint.into_iter().fold(about, Error::hint)
}

/// Where a command's output goes.
struct Outputs {
    /// What is read of it here.
    ours: Option<PipeReader>,
    stdout: OwnedFd,
    /// `None`: the same.
    stderr: Option<OwnedFd>,
}

impl Outputs {
    fn open(streams: &Streams<'_>) -> Result<Outputs, Error> {
        let opened = match streams {
            Streams::Inherited => Outputs::inherit(),
            Streams::Recorded(_) => Outputs::pipe(),
        };
        opened.map_err(|error| Error::new("standard output", error))
    }

    fn inherit() -> io::Result<Outputs> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Outputs { ours: None, stdout, stderr: Some(stderr) })
    }

    /// One for both.
    fn pipe() -> io::Result<Outputs> {
        let (ours, stdout) = io::pipe()?;
        Ok(Outputs { ours: Some(ours), stdout: stdout.into(), stderr: None })
    }

    fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.as_ref().unwrap_or(&self.stdout).as_fd()
    }
}

fn default_stdin(streams: &Streams<'_>) -> Result<OwnedFd, Error> {
    match streams {
        Streams::Inherited => io::stdin().as_fd().try_clone_to_owned(),
        Streams::Recorded(_) => File::open("/dev/null").map(OwnedFd::from),
    }
    .map_err(|error| Error::new("standard input", error))
}

/// A command that runs.
struct Watch<'a, 'scope, 'env> {
    session: i32,
    /// `None` once it has ended.
    exit: Option<OwnedFd>,
    orders: &'a Orders,
    pump: Pump<'scope, 'env>,
    /// It has been told that there is no thread for it.
    lacks_pump: bool,
    stop_policy: StopPolicy,
    context: &'a Context,
}

const CANNOT_SIGNAL: &str = "cannot signal the command's processes";

/// What the one who watches a command hears.
enum Event {
    Told(Order),
    Exited(ExitKind),
}

/// Why waiting for a command came to an end.
enum Awaited {
    Exit(ExitKind),
    Cut(Cut),
    Kill,
}

impl Watch<'_, '_, '_> {
    /// Waits until the command has ended, by itself or because it was made to.
    fn until_end(&mut self, deadline: Option<Instant>) -> End {
        match self.wait(deadline) {
            Awaited::Exit(exit) => End { exit, cut: None },
            Awaited::Cut(cut) => {
                self.tell_of_stop(cut);
                End { exit: self.stop(Ending::new(self.session, self.stop_policy)), cut: Some(cut) }
            }
            Awaited::Kill => {
                let at_once = StopPolicy { grace: Duration::ZERO, ..self.stop_policy };
                End { exit: self.stop(Ending::new(self.session, at_once)), cut: Some(Cut::Ordered) }
            }
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Awaited {
        loop {
            match self.next_event(deadline) {
                Some(Event::Exited(exit)) => return Awaited::Exit(exit),
                Some(Event::Told(Order::Stop)) => return Awaited::Cut(Cut::Ordered),
                Some(Event::Told(Order::Kill)) => return Awaited::Kill,
                Some(Event::Told(Order::Forward(signal))) => {
                    self.log_failure(CANNOT_SIGNAL, stop::forward(self.session, signal));
                }
                None => return Awaited::Cut(Cut::Timeout),
            }
        }
    }

    /// Ends the whole session.
    fn stop(&mut self, mut ending: Ending) -> ExitKind {
        let mut exit = None;
        loop {
            let now = Instant::now();
            self.log_failure(CANNOT_SIGNAL, ending.press(now));
            match self.next_event(Some(now + STOP_PAUSE)) {
                Some(Event::Exited(kind)) => exit = Some(kind),
                Some(Event::Told(Order::Kill)) => ending.kill_from(now),
                Some(Event::Told(_)) | None => {}
            }
            if let Some(exit) = exit
                && self.is_over(ending.has_failed(now))
            {
                return exit;
            }
        }
    }

    fn is_over(&self, has_failed: bool) -> bool {
        if stop::is_empty(self.session).unwrap_or(false) {
            return true;
        }
        if has_failed {
            let left = stop::members(self.session).unwrap_or_default();
            log::error("processes do not end even when killed", &self.fields(&[("pids", &pids(&left))]));
        }
        has_failed
    }

    /// The next event, `None` once `until` has passed.
    fn next_event(&mut self, until: Option<Instant>) -> Option<Event> {
        loop {
            match self.wait_for_event(until) {
                Ok(None) => {}
                Ok(event) => return event,
                Err(error) => {
                    self.log_failure("cannot wait for the command", Err(error));
                    thread::sleep(STOP_PAUSE);
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
        }
    }

    /// Waits once; that may end for nothing.
    fn wait_for_event(&mut self, until: Option<Instant>) -> io::Result<Option<Event>> {
        let orders = Watched::new(self.orders.as_fd(), Interest::Read);
        let exit = self.exit.iter().map(|exit| Watched::new(exit.as_fd(), Interest::Read));
        let mut watched: Vec<Watched<'_>> = [orders].into_iter().chain(exit).chain(self.pump.calls()).collect();
        sys::poll(&mut watched, until.map(|until| until.saturating_duration_since(Instant::now())))?;
        let mut ready = watched.iter().map(|item| item.ready);
        let is_told = ready.next().unwrap_or(false);
        if self.exit.is_some() && ready.next().unwrap_or(false) {
            self.exit = None;
            return Ok(Some(Event::Exited(await_exit(self.session))));
        }
        let is_pump_called = ready.any(|is_ready| is_ready);
        if is_told {
            return self.orders.take().map(|order| Some(Event::Told(order)));
        }
        if is_pump_called && let Err(error) = self.pump.run() {
            self.tell_of_no_pump(&error);
            thread::sleep(STOP_PAUSE);
        }
        Ok(None)
    }

    /// The command goes on, and waits once its pipe is full; a thread is asked for again and again.
    fn tell_of_no_pump(&mut self, error: &io::Error) {
        if !mem::replace(&mut self.lacks_pump, true) {
            log::warn("no thread for the command's output yet", &self.fields(&[("error", error)]));
        }
    }

    /// To be called once the leader is reaped: its number is in use then for as long as its session is.
    fn tell_of_survivors(&self) {
        if !sys::is_in_use(self.session, self.orders) {
            return;
        }
        let left = stop::members(self.session).unwrap_or_default();
        if !left.is_empty() {
            log::info("processes of the command go on after its end", &self.fields(&[("pids", &pids(&left))]));
        }
    }

    fn tell_of_stop(&self, cut: Cut) {
        let message = match cut {
            Cut::Timeout => "timeout, stopping",
            Cut::Ordered => "stopping",
        };
        log::info(message, &self.fields(&[]));
    }

    fn log_failure(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            log::warn(what, &self.fields(&[("error", &error)]));
        }
    }

    fn fields<'f>(&'f self, further: &[Field<'f>]) -> Vec<Field<'f>> {
        let mut fields: Vec<Field<'f>> =
            vec![("task", &self.context.task), ("step", &self.context.step), ("run", &self.context.run)];
        fields.extend(further);
        fields
    }
}

fn pids(processes: &[Process]) -> String {
    processes.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(" ")
}
