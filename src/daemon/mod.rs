//! The scheduler's process: its threads, its one channel of events, the order of start and end.
//!
//! One thread alone holds the agenda and acts on what it says; all others only report to it, the one
//! that writes the ledger too. Each try of a run has a thread of its own, so that nothing a command does
//! can hold up the scheduler, the listener or another run.

mod answers;
mod crew;
mod health;
mod hooks;
mod lock_waits;
mod metrics;
mod records;
mod scheduler;
mod secrets;
mod words;

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use signal_hook::consts::signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::agenda::Event;
use crate::clock;
use crate::control::listener::Client;
use crate::control::{self, Request};
use crate::error::Error;
use crate::file_locks::InstanceLock;
use crate::ledger::{self, Ledger};
use crate::log;
use crate::plan::{Plan, SecretId, StopPolicy};
use crate::program;
use crate::runner::{self, Setting, Spawned};
use crate::secretbox::listener::Listener;
use crate::service::Notifier;
use crate::socket::{self, Reach};
use crate::startup::{self, Sources};
use crate::sys;
use scheduler::Scheduler;
use secrets::Keeper;

/// What the other threads report.
enum Report {
    Agenda(Event),
    EndingSignal,
    Control(Request, Client),
}

/// Runs the scheduler until a signal ends it.
pub fn run(file: &Path) -> Result<(), Vec<Error>> {
    let one = |error: Error| vec![error];
    let umask = sys::set_umask(0o077);
    let stop = Arc::new(AtomicBool::new(false));
    let notifier = Notifier::from_environment();
    sys::share_one_heap();
    let loaded = startup::load(file)?;
    log::configure(loaded.plan.log.level, loaded.plan.log.format);
    log::warnings(&loaded.warnings);

    let (folder, socket) = (loaded.plan.state_dir.clone(), loaded.plan.secretbox.socket.clone());
    let reach = runner::reach_of(loaded.plan.tasks().map(|(_, task)| task).filter(|task| task.enabled));
    let _only_one = take_places(&folder, &socket, reach).map_err(one)?;
    let prepared = startup::prepare(loaded.plan, &loaded.host, socket, umask)?;
    log::warnings(&prepared.warnings);
    let (mut setting, sources) = (prepared.setting, prepared.sources);
    let problems = setting.programs.problems(&setting.plan);
    if !problems.is_empty() {
        return Err(problems);
    }
    log::start().map_err(|error| vec![Error::new("log", error)])?;
    // Takes a while, and is needed by the first command only; should there be no thread, that one makes it.
    let launchers = setting.launchers.clone();
    let make = move || {
        guarded("image", || launchers.image().path().to_owned());
    };
    let _ = thread::Builder::new().name("image".to_owned()).spawn(make);
    let (ledger, notices) = Ledger::open(&folder, clock::now().wall).map_err(one)?;
    notices.iter().for_each(|notice| log::warn(&notice.to_string(), &[]));
    let ledger = Arc::new(ledger);
    record_sessions(&mut setting, &ledger);
    let (reports, inbox) = mpsc::channel();
    watch_signals(reports.clone(), stop.clone()).map_err(one)?;
    let unavailable = ask_sources(&setting, &sources, &stop)?;
    let survivors = ledger.state().sessions.clone();
    end_survivors(&survivors, &setting.plan, &stop);
    if stop.load(Ordering::Relaxed) {
        // Nothing has begun; the next daemon goes on with what survived.
        log::info("stopped", &[]);
        return Ok(());
    }
    let listener = Arc::new(Listener::bind(&setting.socket, reach).map_err(one)?);
    let control = Arc::new(control::listener::Listener::bind(&control::socket_beside(&setting.socket)).map_err(one)?);

    let setting = Arc::new(setting);
    serve(&listener, &setting).map_err(one)?;
    let keeper = Keeper::new(setting.clone(), sources, ledger.clone(), reports.clone(), stop);
    let keeper = Arc::new(keeper);
    keeper.ask_again(unavailable);
    let controlled = serve_control(&control, reports.clone()).map_err(one)?;

    Scheduler::new(setting, ledger, keeper, reports, notifier).map_err(one)?.work(&inbox);
    listener.close();
    control.close();
    let _ = controlled.join();
    log::info("stopped", &[]);
    Ok(())
}

/// Makes sure of the state directory and of the socket's folder, and of being the only daemon in both.
fn take_places(state_dir: &Path, socket: &Path, reach: Reach) -> Result<[InstanceLock; 2], Error> {
    startup::prepare_state_dir(state_dir)?;
    let only_one_here = InstanceLock::take(&state_dir.join("lock"))?;
    let socket_folder = socket.parent().unwrap_or(Path::new("/"));
    socket::prepare_folder(socket_folder, reach)?;
    program::trust_walk(socket_folder)?;
    // Behind the whole name, so that no two sockets share a lock and none is its own.
    let mut socket_lock = socket.to_owned().into_os_string();
    socket_lock.push(".lock");
    let only_one_there = InstanceLock::take(Path::new(&socket_lock))?;
    Ok([only_one_here, only_one_there])
}

fn log_warning(warning: &Error) {
    log::warnings(std::slice::from_ref(warning));
}

/// The signals that end the daemon.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGQUIT];

/// Signals that mean nothing here, but would end a process that does not handle them: a terminal
/// that is closed, a file that has grown to its limit (the write fails then).
const HARMLESS: [i32; 5] = [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGXFSZ];

/// The first signal that ends the daemon does so in order, a second one at once.
fn watch_signals(reports: Sender<Report>, stop: Arc<AtomicBool>) -> Result<(), Error> {
    let all = ENDING.iter().chain(&HARMLESS);
    let mut signals = Signals::new(all).map_err(|error| Error::new("signals", error))?;
    needed_thread(move || {
        for signal in signals.forever() {
            if HARMLESS.contains(&signal) {
                log::debug("a signal that means nothing here", &[("signal", &signal)]);
                continue;
            }
            stop.store(true, Ordering::Relaxed);
            let _ = reports.send(Report::EndingSignal);
        }
    })?;
    Ok(())
}

/// Asks all sources; returns the secrets that are to be asked for again.
fn ask_sources(setting: &Setting, sources: &Sources, stop: &AtomicBool) -> Result<Vec<SecretId>, Vec<Error>> {
    let needed = setting.plan.needed_secrets();
    let asked = sources.ask(setting, &needed, stop);
    log::warnings(&asked.warnings);
    if !asked.wrong.is_empty() {
        return Err(asked.wrong);
    }
    asked.unavailable.iter().for_each(|(_, error)| tell_of_unavailable(error));
    Ok(asked.unavailable.into_iter().map(|(id, _)| id).collect())
}

fn tell_of_unavailable(error: &Error) {
    let mut fields: Vec<log::Field<'_>> = vec![("error", error)];
    fields.extend(error.hint.iter().map(|hint| ("hint", hint as &dyn std::fmt::Display)));
    log::warn("a secret is not available, its runs wait for it", &fields);
}

/// Stops what a daemon that died left running, all at once, before any task begins; gives up if this one is told to
/// `stop` meanwhile.
fn end_survivors(sessions: &[ledger::Session], plan: &Plan, stop: &AtomicBool) {
    let boot = sys::boot_id();
    thread::scope(|scope| {
        for session in sessions.iter().filter(|session| session.boot == boot) {
            if survives(session) {
                log::warn("a run survived its daemon, stopping it", &[("task", &session.task), ("pid", &session.pid)]);
                let policy = plan.task_named(&session.task).map(|task| plan.task(task).policy.stop);
                let end = move || end_survivor(session, policy.unwrap_or(StopPolicy::DEFAULT), stop);
                if thread::Builder::new().spawn_scoped(scope, end).is_err() {
                    end();
                }
            }
        }
    });
}

/// Whether processes of this session are left. Where its leader is gone its number may have come to
/// another session, so some process must know the run.
fn survives(session: &ledger::Session) -> bool {
    let left = runner::members(session.pid).unwrap_or_default();
    match sys::process(session.pid) {
        Some(leader) => leader.started == session.start && !left.is_empty(),
        None => {
            let run = format!("BACKUPNIZZA_RUN={}", session.run.map_or(0, |run| run.0));
            left.iter().any(|process| process.started >= session.start && sys::was_given(process.pid, &run))
        }
    }
}

fn end_survivor(session: &ledger::Session, policy: StopPolicy, stop: &AtomicBool) {
    if let Err(error) = runner::end_session(session.pid, policy, stop) {
        log::error("cannot stop it", &[("pid", &session.pid), ("error", &error)]);
    }
}

/// Has the session of each command written down before it starts.
fn record_sessions(setting: &mut Setting, ledger: &Arc<Ledger>) {
    let boot = sys::boot_id();
    let book = ledger.clone();
    setting.record_started = Box::new(move |spawned: &Spawned| {
        let record = ledger::Record::Session(ledger::Session {
            run: (spawned.run.0 > 0).then_some(spawned.run),
            task: spawned.task.to_string(),
            pid: spawned.pid,
            start: spawned.started,
            boot: boot.clone(),
        });
        book.append_unsynced(&[record]).map_err(|error| Error::new("the ledger", error))
    });
    let book = ledger.clone();
    setting.record_ended = Box::new(move |spawned: &Spawned| {
        let record = ledger::Record::SessionEnded { pid: spawned.pid, start: spawned.started };
        if let Err(error) = book.append_unsynced(&[record]) {
            log::warn("cannot write to the ledger", &[("error", &error)]);
        }
    });
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &Arc<Listener>, setting: &Arc<Setting>) -> Result<(), Error> {
    let (listener, setting) = (listener.clone(), setting.clone());
    needed_thread(move || {
        guarded("listener", || listener.serve(&setting.secretbox));
    })?;
    Ok(())
}

fn serve_control(control: &Arc<control::listener::Listener>, reports: Sender<Report>) -> Result<JoinHandle<()>, Error> {
    let control = control.clone();
    needed_thread(move || {
        guarded("control", || {
            control.serve(|request, client| drop(reports.send(Report::Control(request, client))));
        });
    })
}

/// Starts a thread without which there is no daemon.
fn needed_thread(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new().spawn(work).map_err(|error| Error::new("threads", format!("cannot start one: {error}")))
}

/// Starts a thread for `work`. False: there is none to be had, which is logged.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = thread::Builder::new().name(name.to_owned()).stack_size(runner::STACK).spawn(work);
    if let Err(error) = &spawned {
        log::error("cannot start a thread", &[("error", error)]);
    }
    spawned.is_ok()
}

/// Runs `work`; a panic ends it and is logged without what it was about, and nothing else ends.
fn guarded<T>(name: &str, work: impl FnOnce() -> T) -> Option<T> {
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        log::error("a thread failed; this is a defect of backupnizza", &[("thread", &name)]);
    }
    result.ok()
}

fn available(setting: &Setting) -> Vec<SecretId> {
    let ids = setting.plan.secrets().map(|(id, _)| id);
    ids.filter(|id| setting.secretbox.secret(*id).is_some()).collect()
}
