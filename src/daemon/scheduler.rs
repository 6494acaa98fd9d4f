//! The one thread that holds the agenda and acts on what it says; all others only report to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::CString;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::answers::{self, Desk};
use super::crew::Crew;
use super::health::Health;
use super::hooks::Hooks;
use super::lock_waits::LockWaits;
use super::metrics::{MetricsFile, RunCounts};
use super::records::Records;
use super::secrets::Keeper;
use super::{Report, available, guarded, locked, spawn, words};
use crate::agenda::{self, Action, Agenda, Ended, Event};
use crate::clock::{self, Now, Ticks};
use crate::error::Error;
use crate::file_locks::{self, Held, NotTaken, Wanted};
use crate::ledger::{self, Ledger};
use crate::log;
use crate::metrics::{self, Snapshot, TaskSnapshot};
use crate::outcome::{Outcome, RunId, SkipReason};
use crate::output::Record;
use crate::plan::{LockRequest, OutputMode, TaskId};
use crate::runner::{self, Context, Happening, Hook, RunSwitch, Setting, StopOrder, StopSwitch, Streams, TryEnd};
use crate::service::Notifier;
use crate::sys;

/// The longest wait before the wall clock is read again: a waiting thread does not see a suspend,
/// nor that somebody sets the clock.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);

/// After so long without an event the daemon is at rest, and keeps no memory that only the last one needed.
const AT_REST_AFTER: Duration = Duration::from_millis(500);

/// For threads that are dismissed.
const TIME_TO_END: Duration = Duration::from_millis(50);

/// Whoever has something to do within this does not rest before.
const SOON: Duration = Duration::from_secs(2);

/// While all that is left is hooks, which report to nobody.
const LOOK_AT_HOOKS: Duration = Duration::from_millis(50);

/// After a defect: it may show again at once.
const PAUSE_AFTER_DEFECT: Duration = Duration::from_secs(1);

/// The scheduler's own thread.
pub struct Scheduler {
    pub(super) setting: Arc<Setting>,
    pub(super) agenda: Agenda,
    pub(super) ledger: Arc<Ledger>,
    records: Records,
    pub(super) keeper: Arc<Keeper>,
    pub(super) desk: Desk,
    reports: Sender<Report>,
    runs: HashMap<RunId, RunHandle>,
    file_locks: BTreeMap<TaskId, Held>,
    lock_waits: LockWaits,
    hooks: Hooks,
    conditions: Conditions,
    pub(super) health: Health,
    counts: RunCounts,
    metrics: Option<MetricsFile>,
    notifier: Notifier,
    socket_is_gone: bool,
    crew: Arc<Crew>,
    /// Runs for which threads and launchers are to be made ready.
    starts_soon: usize,
    closing: bool,
}

/// The conditions that are being asked; like a run, none of them is left behind.
#[derive(Default)]
struct Conditions {
    asked: usize,
    switch: Arc<StopSwitch>,
}

/// What the daemon keeps of a run while it lives, pauses between its tries included.
#[derive(Clone)]
struct RunHandle {
    switch: Arc<RunSwitch>,
    record: Arc<Mutex<Record>>,
}

impl Scheduler {
    pub fn new(
        setting: Arc<Setting>,
        ledger: Arc<Ledger>,
        keeper: Arc<Keeper>,
        reports: Sender<Report>,
        notifier: Notifier,
    ) -> Result<Scheduler, Error> {
        let now = clock::now();
        let plan = setting.plan.clone();
        let secrets = available(&setting);
        let (agenda, actions) = Agenda::new(plan, &ledger.state(), &secrets, now, &sys::boot_id(), &sys::machine_id());
        let hooks = Hooks::new(setting.clone());
        let health = Health::new(&setting.plan, &ledger.state(), now.wall);
        let counts = RunCounts::new(setting.plan.tasks().len());
        let metrics = setting.plan.metrics_file.clone().map(MetricsFile::start).transpose()?;
        let records = Records::start(ledger.clone(), reports.clone())?;
        let mut scheduler = Scheduler {
            setting,
            agenda,
            ledger,
            records,
            keeper,
            desk: Desk::new(),
            reports,
            runs: HashMap::new(),
            file_locks: BTreeMap::new(),
            lock_waits: LockWaits::default(),
            hooks,
            conditions: Conditions::default(),
            health,
            counts,
            metrics,
            notifier,
            socket_is_gone: false,
            crew: Arc::default(),
            starts_soon: 0,
            closing: false,
        };
        scheduler.tell_of_start();
        scheduler.notifier.ready();
        scheduler.perform(actions);
        Ok(scheduler)
    }

    /// Handles reports as they come and the clock in between, until all is over.
    pub fn work(mut self, inbox: &Receiver<Report>) {
        while !(self.closing && self.agenda.is_idle() && self.conditions.asked == 0 && self.hooks.are_done()) {
            self.tell_manager();
            let report = self.await_report(inbox);
            self.metrics.iter_mut().for_each(MetricsFile::touch);
            if matches!(report, Err(RecvTimeoutError::Disconnected)) {
                break;
            }
            if guarded("scheduler", || self.handle(report.ok())).is_none() {
                thread::sleep(PAUSE_AFTER_DEFECT);
            }
        }
        self.turn_away();
        if let Some(metrics) = self.metrics.take() {
            metrics.finish(&self.metrics_text());
        }
        self.records.finish();
    }

    /// Waits for a report, or until something is to be done.
    fn await_report(&mut self, inbox: &Receiver<Report>) -> Result<Report, RecvTimeoutError> {
        let wake = self.next_wake().unwrap_or(Duration::MAX);
        let longest = if self.closing { LOOK_AT_HOOKS } else { AT_REST_AFTER };
        let report = inbox.recv_timeout(wake.min(longest));
        let is_in_vain = matches!(report, Err(RecvTimeoutError::Timeout)) && !self.closing && wake > SOON;
        if is_in_vain { self.rest(inbox) } else { report }
    }

    /// As `await_report`, for a daemon at rest: it only looks at the clocks meanwhile, and whether its socket is there,
    /// so that it needs little memory and time.
    fn rest(&mut self, inbox: &Receiver<Report>) -> Result<Report, RecvTimeoutError> {
        self.setting.launchers.dismiss();
        if self.crew.dismiss() {
            // Who ends still needs memory.
            match inbox.recv_timeout(TIME_TO_END) {
                Err(RecvTimeoutError::Timeout) => {}
                report => return report,
            }
        }
        let socket = CString::new(self.setting.socket.as_os_str().as_bytes()).ok().filter(|_| !self.socket_is_gone);
        let now = clock::now();
        let mut rest = self.agenda.rest(now, self.next_wake_of_others(now));
        let mut left = rest.look(now.into());
        // Right before the wait, so that what leads there is given back too.
        sys::give_back_memory();
        let report = loop {
            let Some(longest) = left else { break Err(RecvTimeoutError::Timeout) };
            match inbox.recv_timeout(longest.min(LOOK_AT_CLOCK)) {
                Err(RecvTimeoutError::Timeout) => {
                    let is_lost = socket.as_ref().is_some_and(|socket| !sys::is_there(socket));
                    left = rest.look(Ticks::read()).filter(|_| !is_lost);
                }
                report => break report,
            }
        };
        self.agenda.end_rest(&rest);
        report
    }

    /// On a report, or on the time that has passed without one.
    fn handle(&mut self, report: Option<Report>) {
        match report {
            Some(Report::Agenda(event)) => self.tell(event),
            Some(Report::EndingSignal) => self.signalled(),
            Some(Report::Control(request, client)) => self.answer(request, client),
            None => {
                self.look_for_socket();
                self.tell(Event::Tick);
            }
        }
        self.let_go_of_old_secrets();
        self.look_for_stale();
        self.update_metrics();
    }

    /// Those that a `refresh` has replaced, once nobody is left who could print them.
    fn let_go_of_old_secrets(&self) {
        if self.keeper.has_replaced_any() && self.conditions.asked == 0 && self.hooks.are_done() {
            self.keeper.let_go(self.runs.keys().min().copied());
        }
    }

    /// Tells the service manager how things stand, and that this loop turns.
    fn tell_manager(&mut self) {
        let (setting, agenda, runs, closing) = (&self.setting, &self.agenda, self.runs.len(), self.closing);
        self.notifier.status(|| {
            let now = clock::now();
            let next = setting.plan.tasks().filter_map(|(id, task)| Some((agenda.next_start(id, now)?, &task.name)));
            let next = next.min().map_or("no slot ahead".to_owned(), |(time, task)| {
                format!("next slot {} ({task})", clock::format_time(time, setting.plan.zone))
            });
            let next = if closing { "stopping".to_owned() } else { next };
            if runs == 0 { next } else { format!("{runs} running, {next}") }
        });
        self.notifier.beat();
    }

    /// A runtime directory goes when its user logs out, and the socket with it.
    fn look_for_socket(&mut self) {
        if self.is_socket_lost() {
            let hint = "give `secretbox.socket` a place that stays, or let the user linger (loginctl enable-linger)";
            let socket = self.setting.socket.display();
            log::error("the socket is gone, no token works until a restart", &[("socket", &socket), ("hint", &hint)]);
            self.socket_is_gone = true;
        }
    }

    fn is_socket_lost(&self) -> bool {
        !self.socket_is_gone && !self.setting.socket.exists()
    }

    fn update_metrics(&mut self) {
        let is_due = self.metrics.as_ref().is_some_and(MetricsFile::is_due);
        let text = is_due.then(|| self.metrics_text());
        if let (Some(metrics), Some(text)) = (&mut self.metrics, text) {
            metrics.update(text);
        }
    }

    fn metrics_text(&self) -> String {
        let plan = &self.setting.plan;
        let now = clock::now();
        let state = self.ledger.state();
        let running: BTreeSet<TaskId> = self.agenda.running(now).map(|running| running.task).collect();
        let tasks = plan.tasks().filter(|(_, task)| task.enabled).map(|(id, task)| {
            let known = state.tasks.get(&task.name);
            let past = known.and_then(|known| known.past.iter().rev().find(|past| past.run.is_some()));
            TaskSnapshot {
                name: &task.name,
                last_outcome: known.and_then(|known| known.last_outcome),
                last_start: known.and_then(|known| known.last_start),
                last_end: past.map(|past| past.ended),
                last_success: known.and_then(|known| known.last_success),
                last_duration: past.and_then(|past| past.took),
                next_start: self.agenda.next_start(id, now),
                is_running: running.contains(&id),
                is_stale: self.health.is_stale(id),
                runs: self.counts.of(id),
            }
        });
        let tokens = self.setting.secretbox.counts();
        metrics::render(&Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            tasks: tasks.collect(),
            secrets: plan
                .secrets()
                .filter(|(id, _)| self.keeper.is_needed(*id))
                .map(|(id, secret)| (secret.name.as_str(), self.setting.secretbox.secret(id).is_some()))
                .collect(),
            tokens_issued: tokens.issued,
            tokens_redeemed: tokens.redeemed,
            tokens_refused: tokens.refused.into_iter().collect(),
        })
    }

    /// How long until something is to be done, should no report come before.
    fn next_wake(&self) -> Option<Duration> {
        let now = clock::now();
        self.agenda.next_wake(now).into_iter().chain(self.next_wake_of_others(now)).min()
    }

    /// As `next_wake`, of all but the agenda.
    fn next_wake_of_others(&self, now: Now) -> Option<Duration> {
        let wakes = self.health.next_alarm(now.wall).into_iter().chain(self.notifier.next_beat());
        wakes.chain(self.metrics.as_ref().and_then(MetricsFile::wakes_in)).min()
    }

    fn signalled(&mut self) {
        if self.closing {
            log::warn("a second signal, ending all runs at once", &[]);
            self.hooks.switch.tell(StopOrder::Kill);
            self.conditions.switch.tell(StopOrder::Kill);
            return self.runs.values().for_each(|run| run.switch.tell(StopOrder::Kill));
        }
        log::info("stopping", &[("runs", &self.runs.len())]);
        self.closing = true;
        self.notifier.stopping();
        self.conditions.switch.tell(StopOrder::Stop);
        self.tell(Event::Shutdown);
    }

    fn tell(&mut self, event: Event) {
        if matches!(event, Event::ConditionAnswered { .. }) {
            self.conditions.asked -= 1;
        }
        let actions = self.agenda.handle(clock::now(), event);
        self.perform(actions);
    }

    /// Raises the alarm for tasks that have become stale, once until they recover.
    fn look_for_stale(&mut self) {
        for task in self.health.newly_stale(clock::now().wall) {
            log::error("stale, its last success is too long ago", &[("task", self.name(task))]);
            self.records.write(ledger::Record::Stale { task: self.name(task).clone() });
            let slot = self.time(clock::now().wall);
            self.hooks.call(vec![Hook::Stale], Happening::of_start(task, RunId(0), slot));
        }
    }

    /// Does what the agenda says, in its order; answers that are due at once are given at once.
    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                actions.extend(self.agenda.handle(clock::now(), answer));
            }
        }
        self.make_ready();
    }

    /// Has launchers started for the runs that start in a moment, and threads for those that may at once.
    fn make_ready(&mut self) {
        let count = mem::take(&mut self.starts_soon);
        if count > 0 {
            let (launchers, crew) = (self.setting.launchers.clone(), self.crew.clone());
            let at_once = self.setting.plan.max_concurrent_runs;
            crew.want(count.min(at_once));
            launchers.want(count, at_once);
            spawn("launchers", move || {
                crew.fill();
                launchers.fill();
            });
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Record(records) => self.records.write_for_agenda(records),
            Action::AskCondition { task } => self.ask_condition(task),
            Action::TakeFileLocks { task, locks } => return Some(self.take_file_locks(task, &locks)),
            Action::ReleaseFileLocks { task } => drop(self.file_locks.remove(&task)),
            Action::MakeReady => self.starts_soon += 1,
            Action::StartTry(attempt) => self.start(attempt),
            Action::StopTry { run, .. } => {
                if let Some(run) = self.runs.get(&run) {
                    run.switch.tell(StopOrder::Stop);
                }
            }
            Action::Ended(ended) => self.ended(&ended),
            Action::NotRun { task, slot, outcome, .. } => {
                self.counts.count(task, outcome);
                let slot = self.time(slot);
                // That a condition does not hold is what it is there for; `stale` tells when it has held too seldom.
                let is_as_meant = outcome == Outcome::Skipped(SkipReason::Condition);
                let level = if is_as_meant { log::Level::Info } else { log::Level::Warn };
                log::event(level, "not run", &[("task", self.name(task)), ("slot", &slot), ("outcome", &outcome)]);
                self.desk.not_run(task, outcome, self.agenda.is_due(task));
            }
            Action::ManualAnswer { .. } | Action::StopAnswer { .. } => {}
            Action::Notice(notice) => {
                words::tell(&notice, &self.setting.plan);
                self.note(&notice);
            }
        }
        None
    }

    fn take_file_locks(&mut self, task: TaskId, locks: &[LockRequest]) -> Event {
        let plan = &self.setting.plan;
        let wanted: Vec<Wanted<'_>> =
            locks.iter().map(|lock| Wanted { name: plan.lock_name(lock.lock), shared: lock.shared }).collect();
        let taken = match file_locks::try_take(&plan.state_dir, &wanted) {
            Ok(held) => self.file_locks.insert(task, held).is_none(),
            Err(NotTaken::Busy(busy)) => {
                self.lock_waits.begin(&self.setting.plan, locks[busy], &self.reports);
                false
            }
            Err(NotTaken::Failed(error)) => {
                log::error("cannot take locks", &[("task", self.name(task)), ("error", &error)]);
                false
            }
        };
        Event::FileLocks(vec![(task, taken)])
    }

    fn ask_condition(&mut self, task: TaskId) {
        self.conditions.asked += 1;
        let (setting, switch) = (self.setting.clone(), self.conditions.switch.clone());
        let reports = self.reports.clone();
        let spawned = spawn("condition", move || {
            let passed = guarded("condition", || condition_holds(&setting, task, &switch)).unwrap_or(false);
            let _ = reports.send(Report::Agenda(Event::ConditionAnswered { task, passed }));
        });
        if !spawned {
            let _ = self.reports.send(Report::Agenda(Event::ConditionAnswered { task, passed: false }));
        }
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
        if attempt.attempt == 1 {
            let clients = self.desk.started(attempt.task, attempt.run);
            clients.into_iter().for_each(|client| locked(&handle.record).follow(answers::follower(client)));
            self.hooks.call(vec![Hook::Start], Happening::of_start(attempt.task, attempt.run, slot.clone()));
        }
        let (setting, reports) = (self.setting.clone(), self.reports.clone());
        let run = attempt.run;
        let attempt = runner::Try { task: attempt.task, run, slot, deadline, only_step: None };
        let failed = reports.clone();
        let is_begun = self.crew.carry_out(move || {
            let work = || runner::run_try(&setting, &attempt, &handle.switch, &handle.record);
            let end = guarded("run", work).unwrap_or(TryEnd::DEFECT);
            let _ = reports.send(Report::Agenda(try_ended(run, end)));
        });
        if !is_begun {
            let _ = failed.send(Report::Agenda(try_ended(run, TryEnd::DEFECT)));
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let task = &self.setting.plan.task(ended.task).name;
        let (mut tail, mut last_line) = (String::new(), None);
        if let Some(run) = self.runs.remove(&ended.run) {
            let record = locked(&run.record);
            let log = &mut |lines: &str| runner::log_kept_output(lines, task, ended.run);
            record.settle(ended.outcome == Outcome::Success, log);
            tail = record.tail();
            last_line = record.last_line().map(str::to_owned);
        }
        // Before anybody hears of the end, and perhaps asks for new values.
        self.let_go_of_old_secrets();
        self.desk.ended(ended, last_line.as_deref());
        let end = TryEnd { outcome: ended.outcome, exit_code: ended.exit_code, fatal: false };
        runner::log_end(task, ended.run, &end, ended.took);
        self.counts.count(ended.task, ended.outcome);
        let was_in_trouble = self.health.ended(ended.task, ended.outcome, clock::now().wall);
        let happening = Happening {
            task: ended.task,
            run: ended.run,
            slot: self.time(ended.slot),
            outcome: Some(ended.outcome),
            exit_code: ended.exit_code,
            took: ended.took,
            tail,
        };
        self.hooks.call(runner::hooks_of_end(ended.outcome, was_in_trouble), happening);
    }

    fn tell_of_start(&self) {
        let plan = &self.setting.plan;
        let now = clock::now();
        let zone = if plan.zone == clock::Zone::Utc { "utc" } else { "local" };
        let memory = self.setting.secretbox.arena().protection();
        let next = plan.tasks().filter_map(|(id, _)| self.agenda.next_start(id, now)).min();
        let next = next.map_or("none".to_owned(), |time| self.time(time));
        log::info(
            "ready",
            &[
                ("version", &env!("CARGO_PKG_VERSION")),
                ("config", &plan.file.display()),
                ("zone", &zone),
                ("offset", &plan.zone.offset_at(now.wall)),
                ("memory", &format!("{memory:?}").to_lowercase()),
                ("tasks", &plan.tasks().filter(|(_, task)| task.enabled).count()),
                ("next", &next),
            ],
        );
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

fn condition_holds(setting: &Setting, task: TaskId, switch: &StopSwitch) -> bool {
    let task = setting.plan.task(task);
    let Some(condition) = &task.policy.only_if else {
        return true;
    };
    let check = &condition.check;
    let context = Context::new(&task.name, &check.name, RunId(0), String::new());
    let record = Mutex::new(Record::new(OutputMode::Discard));
    let deadline = check.timeout.map(|timeout| Instant::now() + timeout);
    let streams = Streams::Recorded(&record);
    let end = runner::run_command(setting, check, &context, streams, task.policy.stop, deadline, &[switch]);
    match end {
        Ok(end) => end.cut.is_none() && end.exit == sys::ExitKind::Code(0),
        Err(error) => {
            runner::log_error(&error, &context);
            false
        }
    }
}
