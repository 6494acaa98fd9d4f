//! The scheduler's process: its threads, its one channel of events, the order of start and end.
//!
//! One thread alone holds the agenda and the ledger and acts on what the agenda says; all others
//! only report to it. Each try of a run has a thread of its own, so that nothing a command does
//! can hold up the scheduler, the listener or another run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agenda::{self, Action, Agenda, Ended, Event};
use crate::clock;
use crate::error::Error;
use crate::file_locks::{self, Held, InstanceLock, NotTaken, Wanted};
use crate::ledger::{self, Ledger};
use crate::log;
use crate::outcome::{Outcome, RunId};
use crate::output::Record;
use crate::plan::{LockRequest, OutputMode, Plan, SecretId, StopPolicy, TaskId};
use crate::runner::{self, Context, RunSwitch, Setting, Spawned, StopOrder, StopSwitch, Streams, TryEnd};
use crate::secretbox::listener::{self, Listener};
use crate::source::Backoff;
use crate::startup::{self, Sources};
use crate::sys;

/// The longest wait before the wall clock is read again: a waiting thread does not see a suspend,
/// nor that somebody sets the clock.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);

/// What the other threads report.
enum Report {
    Agenda(Event),
    Signal(i32),
}

/// Runs the scheduler until a signal ends it.
pub fn run(file: &Path) -> Result<(), Vec<Error>> {
    let one = |error: Error| vec![error];
    let umask = sys::set_umask(0o077);
    let stop = Arc::new(AtomicBool::new(false));
    let loaded = startup::load(file)?;
    log::configure(loaded.plan.log.level, loaded.plan.log.format);
    loaded.warnings.iter().for_each(log_warning);

    let folder = loaded.plan.state_dir.clone();
    startup::make_folder(&folder.join("locks")).map_err(one)?;
    let _only_one_here = InstanceLock::take(&folder.join("lock")).map_err(one)?;
    let socket = loaded.plan.secretbox.socket.clone();
    listener::prepare_folder(socket.parent().unwrap_or(Path::new("/"))).map_err(one)?;
    let _only_one_there = InstanceLock::take(&socket.with_extension("lock")).map_err(one)?;

    let prepared = startup::prepare(loaded.plan, &loaded.host, socket, umask)?;
    prepared.warnings.iter().for_each(log_warning);
    let (mut setting, sources) = (prepared.setting, prepared.sources);
    let problems = setting.programs.problems(&setting.plan);
    if !problems.is_empty() {
        return Err(problems);
    }
    let (reports, inbox) = mpsc::channel();
    watch_signals(reports.clone(), stop.clone()).map_err(one)?;
    let unavailable = ask_sources(&setting, &sources, &stop)?;
    let listener = Arc::new(Listener::bind(&setting.socket).map_err(one)?);

    let (ledger, notices) = Ledger::open(&folder, clock::now().wall).map_err(one)?;
    notices.iter().for_each(|notice| log::warn(&notice.to_string(), &[]));
    end_survivors(&ledger);
    let ledger = Arc::new(Mutex::new(ledger));
    record_sessions(&mut setting, &ledger);
    let setting = Arc::new(setting);
    serve(&listener, &setting);
    ask_again(&setting, sources, unavailable, &stop, &reports);

    let mut daemon = Daemon::new(setting, ledger, reports);
    daemon.tell_of_start();
    daemon.work(&inbox);
    listener.close();
    log::info("stopped", &[]);
    Ok(())
}

fn log_warning(warning: &Error) {
    match &warning.hint {
        Some(hint) => log::warn(&warning.to_string(), &[("hint", hint)]),
        None => log::warn(&warning.to_string(), &[]),
    }
}

/// The first INT or TERM ends the daemon in order, a second one at once. HUP means nothing here,
/// so that closing a terminal does no harm.
fn watch_signals(reports: Sender<Report>, stop: Arc<AtomicBool>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| Error::new("signals", error))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            stop.fetch_or(signal != SIGHUP, Ordering::Relaxed);
            let _ = reports.send(Report::Signal(signal));
        }
    });
    Ok(())
}

/// Asks all sources; returns the secrets that are to be asked for again.
fn ask_sources(setting: &Setting, sources: &Sources, stop: &AtomicBool) -> Result<Vec<SecretId>, Vec<Error>> {
    let needed = needed_secrets(&setting.plan);
    let asked = sources.ask(setting, &needed, stop);
    asked.warnings.iter().for_each(log_warning);
    if !asked.wrong.is_empty() {
        return Err(asked.wrong);
    }
    Ok(asked.unavailable.into_iter().map(|(id, error)| tell_of_unavailable(id, &error)).collect())
}

fn tell_of_unavailable(id: SecretId, error: &Error) -> SecretId {
    log::warn("a secret is not available, its runs wait for it", &[("error", error)]);
    id
}

/// All secrets but those that only disabled tasks use.
fn needed_secrets(plan: &Plan) -> Vec<SecretId> {
    let used = |enabled: bool| -> Vec<SecretId> {
        plan.tasks().filter(|(_, task)| task.enabled == enabled).flat_map(|(_, task)| task.secrets()).collect()
    };
    let (by_enabled, by_disabled) = (used(true), used(false));
    let ids = plan.secrets().map(|(id, _)| id);
    ids.filter(|id| by_enabled.contains(id) || !by_disabled.contains(id)).collect()
}

/// Stops what a daemon that died left running, before any task begins.
fn end_survivors(ledger: &Ledger) {
    let boot = sys::boot_id();
    for session in ledger.state().sessions.iter().filter(|session| session.boot == boot) {
        let is_same = sys::process(session.pid).is_none_or(|process| process.started == session.start);
        let policy = StopPolicy::DEFAULT;
        if is_same && runner::members(session.pid).is_ok_and(|members| !members.is_empty()) {
            log::warn("a run survived its daemon, stopping it", &[("task", &session.task), ("pid", &session.pid)]);
            if let Err(error) = runner::end_session(session.pid, policy) {
                log::error("cannot stop it", &[("pid", &session.pid), ("error", &error)]);
            }
        }
    }
}

/// Has the session of each command written down before it starts.
fn record_sessions(setting: &mut Setting, ledger: &Arc<Mutex<Ledger>>) {
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
        locked(&book).append_unsynced(&[record]).map_err(|error| Error::new("the ledger", error))
    });
    let book = ledger.clone();
    setting.record_ended = Box::new(move |spawned: &Spawned| {
        let record = ledger::Record::SessionEnded { pid: spawned.pid, start: spawned.started };
        if let Err(error) = locked(&book).append_unsynced(&[record]) {
            log::warn("cannot write to the ledger", &[("error", &error)]);
        }
    });
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &Arc<Listener>, setting: &Arc<Setting>) {
    let (listener, setting) = (listener.clone(), setting.clone());
    thread::spawn(move || {
        guarded("listener", || listener.serve(&setting.secretbox));
    });
}

/// Runs `work`; a panic ends it and is logged without what it was about, and nothing else ends.
fn guarded<T>(name: &str, work: impl FnOnce() -> T) -> Option<T> {
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    if result.is_err() {
        log::error("a thread failed; this is a defect of backupnizza", &[("thread", &name)]);
    }
    result.ok()
}

/// Asks for what is missing until all of it is there, with growing pauses.
fn ask_again(
    setting: &Arc<Setting>,
    sources: Sources,
    mut missing: Vec<SecretId>,
    stop: &Arc<AtomicBool>,
    reports: &Sender<Report>,
) {
    if missing.is_empty() {
        return;
    }
    let (setting, stop, reports) = (setting.clone(), stop.clone(), reports.clone());
    thread::spawn(move || {
        guarded("sources", || {
            let mut backoff = Backoff::new();
            while !missing.is_empty() && !stop.load(Ordering::Relaxed) {
                thread::sleep(backoff.after_failure());
                let asked = sources.ask(&setting, &missing, &stop);
                asked.warnings.iter().chain(&asked.wrong).for_each(log_warning);
                let still: Vec<SecretId> =
                    asked.unavailable.iter().map(|(id, error)| tell_of_unavailable(*id, error)).collect();
                missing.retain(|id| still.contains(id) || setting.secretbox.secret(*id).is_none());
                if reports.send(Report::Agenda(Event::SecretsAvailable(available(&setting)))).is_err() {
                    return;
                }
            }
        });
    });
}

fn available(setting: &Setting) -> Vec<SecretId> {
    let ids = setting.plan.secrets().map(|(id, _)| id);
    ids.filter(|id| setting.secretbox.secret(*id).is_some()).collect()
}

/// The scheduler's own thread.
struct Daemon {
    setting: Arc<Setting>,
    agenda: Agenda,
    ledger: Arc<Mutex<Ledger>>,
    reports: Sender<Report>,
    runs: HashMap<RunId, RunHandle>,
    file_locks: BTreeMap<TaskId, Held>,
    closing: bool,
}

/// What the daemon keeps of a run while it lives, pauses between its tries included.
#[derive(Clone)]
struct RunHandle {
    switch: Arc<RunSwitch>,
    record: Arc<Mutex<Record>>,
}

impl Daemon {
    fn new(setting: Arc<Setting>, ledger: Arc<Mutex<Ledger>>, reports: Sender<Report>) -> Daemon {
        let now = clock::now();
        let plan = setting.plan.clone();
        let (agenda, actions) = Agenda::new(plan, locked(&ledger).state(), now, &sys::boot_id(), &sys::machine_id());
        let mut daemon = Daemon {
            setting,
            agenda,
            ledger,
            reports,
            runs: HashMap::new(),
            file_locks: BTreeMap::new(),
            closing: false,
        };
        daemon.perform(actions);
        let secrets = available(&daemon.setting);
        daemon.tell(Event::SecretsAvailable(secrets));
        daemon
    }

    /// Handles reports as they come and the clock in between, until all is over.
    fn work(&mut self, inbox: &Receiver<Report>) {
        while !(self.closing && self.agenda.is_idle()) {
            let wake = self.agenda.next_wake(clock::now()).unwrap_or(LOOK_AT_CLOCK).min(LOOK_AT_CLOCK);
            match inbox.recv_timeout(wake) {
                Ok(Report::Agenda(event)) => self.tell(event),
                Ok(Report::Signal(signal)) => self.signalled(signal),
                Err(RecvTimeoutError::Timeout) => self.tell(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn signalled(&mut self, signal: i32) {
        if signal == SIGHUP {
            return log::debug("SIGHUP means nothing here", &[]);
        }
        if self.closing {
            log::warn("a second signal, ending all runs at once", &[]);
            return self.runs.values().for_each(|run| run.switch.tell(StopOrder::Kill));
        }
        log::info("stopping", &[("runs", &self.runs.len())]);
        self.closing = true;
        self.tell(Event::Shutdown);
    }

    fn tell(&mut self, event: Event) {
        let actions = self.agenda.handle(clock::now(), event);
        self.perform(actions);
    }

    /// Does what the agenda says, in its order; answers that are due at once are given at once.
    fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                actions.extend(self.agenda.handle(clock::now(), answer));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Record(records) => return Some(self.record(&records)),
            Action::AskCondition { task } => self.ask_condition(task),
            Action::TakeFileLocks { task, locks } => return Some(self.take_file_locks(task, &locks)),
            Action::ReleaseFileLocks { task } => drop(self.file_locks.remove(&task)),
            Action::StartTry(attempt) => self.start(attempt),
            Action::StopTry { run, .. } => {
                if let Some(run) = self.runs.get(&run) {
                    run.switch.tell(StopOrder::Stop);
                }
            }
            Action::Ended(ended) => self.ended(&ended),
            Action::NotRun { task, slot, outcome, .. } => {
                let slot = self.time(slot);
                log::warn("not run", &[("task", self.name(task)), ("slot", &slot), ("outcome", &outcome)]);
            }
            Action::ManualAnswer { .. } | Action::StopAnswer { .. } => {}
            Action::Notice(notice) => self.notice(notice),
        }
        None
    }

    fn record(&self, records: &[ledger::Record]) -> Event {
        let result = locked(&self.ledger).append(records);
        if let Err(error) = &result {
            log::error("cannot write to the ledger, runs wait for it", &[("error", error)]);
        }
        Event::Recorded(result.is_ok())
    }

    fn take_file_locks(&mut self, task: TaskId, locks: &[LockRequest]) -> Event {
        let plan = &self.setting.plan;
        let wanted: Vec<Wanted<'_>> =
            locks.iter().map(|lock| Wanted { name: plan.lock_name(lock.lock), shared: lock.shared }).collect();
        let taken = match file_locks::try_take(&plan.state_dir, &wanted) {
            Ok(held) => self.file_locks.insert(task, held).is_none(),
            Err(NotTaken::Busy(_)) => false,
            Err(NotTaken::Failed(error)) => {
                log::error("cannot take locks", &[("task", self.name(task)), ("error", &error)]);
                false
            }
        };
        Event::FileLocks(vec![(task, taken)])
    }

    fn ask_condition(&self, task: TaskId) {
        let (setting, reports) = (self.setting.clone(), self.reports.clone());
        spawn("condition", move || {
            let passed = guarded("condition", || condition_holds(&setting, task)).unwrap_or(false);
            let _ = reports.send(Report::Agenda(Event::ConditionAnswered { task, passed }));
        });
    }

    fn start(&mut self, attempt: agenda::Try) {
        let plan = &self.setting.plan;
        let new_run = || RunHandle {
            switch: Arc::default(),
            record: Arc::new(Mutex::new(Record::new(plan.task(attempt.task).policy.output))),
        };
        let handle = self.runs.entry(attempt.run).or_insert_with(new_run).clone();
        let slot = self.time(attempt.slot);
        let deadline = attempt.deadline.map(|at| Instant::now() + at.saturating_sub(sys::awake_clock()));
        log::info(
            "run started",
            &[
                ("task", self.name(attempt.task)),
                ("run", &attempt.run),
                ("slot", &slot),
                ("cause", &attempt.cause.name()),
                ("attempt", &attempt.attempt),
            ],
        );
        let (setting, reports) = (self.setting.clone(), self.reports.clone());
        let run = attempt.run;
        let attempt = runner::Try { task: attempt.task, run, slot, deadline, only_step: None };
        let failed = reports.clone();
        let spawned = spawn("run", move || {
            let work = || runner::run_try(&setting, &attempt, &handle.switch, &handle.record);
            let end = guarded("run", work).unwrap_or(TryEnd::DEFECT);
            let _ = reports.send(Report::Agenda(try_ended(run, end)));
        });
        if !spawned {
            let _ = failed.send(Report::Agenda(try_ended(run, TryEnd::DEFECT)));
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let task = &self.setting.plan.task(ended.task).name;
        if let Some(run) = self.runs.remove(&ended.run) {
            let context = Context {
                task: task.as_str().into(),
                step: "".into(),
                run: ended.run,
                slot: String::new(),
                variables: Vec::new(),
            };
            let success = ended.outcome == Outcome::Success;
            locked(&run.record).settle(success, &mut |lines| runner::log_output(lines, &context));
        }
        let end = TryEnd { outcome: ended.outcome, exit_code: ended.exit_code, fatal: false };
        runner::log_end(task, ended.run, &end, ended.took);
    }

    fn tell_of_start(&self) {
        let plan = &self.setting.plan;
        let now = clock::now();
        let zone = plan.zone.offset_at(now.wall);
        let memory = self.setting.secretbox.arena().protection();
        let next = plan.tasks().filter_map(|(id, _)| self.agenda.next_start(id, now)).min();
        let next = next.map_or("none".to_owned(), |time| self.time(time));
        log::info(
            "ready",
            &[
                ("version", &env!("CARGO_PKG_VERSION")),
                ("config", &plan.file.display()),
                ("zone", &zone),
                ("memory", &format!("{memory:?}").to_lowercase()),
                ("tasks", &plan.tasks().filter(|(_, task)| task.enabled).count()),
                ("next", &next),
            ],
        );
    }

    fn notice(&self, notice: agenda::Notice) {
        log::info(&format!("{notice:?}"), &[]);
    }

    fn name(&self, task: TaskId) -> &String {
        &self.setting.plan.task(task).name
    }

    fn time(&self, time: chrono::DateTime<chrono::Utc>) -> String {
        clock::format_time(time, self.setting.plan.zone)
    }
}

fn try_ended(run: RunId, end: TryEnd) -> Event {
    Event::TryEnded { run, outcome: end.outcome, exit_code: end.exit_code, fatal: end.fatal }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    if let Err(error) = &spawned {
        log::error("cannot start a thread", &[("error", error)]);
    }
    spawned.is_ok()
}

fn condition_holds(setting: &Setting, task: TaskId) -> bool {
    let task = setting.plan.task(task);
    let Some(condition) = &task.policy.only_if else {
        return true;
    };
    let check = &condition.check;
    let context = Context {
        task: task.name.as_str().into(),
        step: check.name.as_str().into(),
        run: RunId(0),
        slot: String::new(),
        variables: Vec::new(),
    };
    let record = Mutex::new(Record::new(OutputMode::Discard));
    let deadline = check.timeout.map(|timeout| Instant::now() + timeout);
    let switch = StopSwitch::default();
    let streams = Streams::Recorded(&record);
    let end = runner::run_command(setting, check, &context, streams, task.policy.stop, deadline, &[&switch]);
    match end {
        Ok(end) => end.cut.is_none() && end.exit == sys::ExitKind::Code(0),
        Err(error) => {
            runner::log_error(&error, &context);
            false
        }
    }
}
