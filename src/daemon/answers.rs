//! What the scheduler answers to those who control it.

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::scheduler::Scheduler;
use super::words;
use crate::agenda::{Action, Ended, Event, ManualAnswer, Notice, Refusal, Unstarted, Wait, Waiting};
use crate::clock::{self, Now};
use crate::control::listener::Client;
use crate::control::{Reply, Request};
use crate::error::Error;
use crate::outcome::{Outcome, RunId};
use crate::output::Follower;
use crate::plan::{Plan, SecretId, Task, TaskId};
use crate::report::{DaemonStatus, SecretState, SecretStatus, TaskState, TaskStatus};

/// Of the last line of output, in characters: enough to recognise a failure by.
const LAST_LINE_MAX: usize = 300;

/// Who waits for what, and what the ledger does not keep.
pub struct Desk {
    started: DateTime<Utc>,
    /// Those who wait for the start of a task's next run.
    awaiting_start: BTreeMap<TaskId, Vec<Client>>,
    /// Those who stopped a task's due run, or had asked for it.
    awaiting_stop: BTreeMap<TaskId, Vec<Client>>,
    /// Those who wait for the end of a run.
    awaiting_end: BTreeMap<RunId, Vec<Client>>,
    /// The last line of output of a task's last run, if that failed.
    last_lines: BTreeMap<TaskId, String>,
}

impl Desk {
    pub fn new() -> Desk {
        Desk {
            started: clock::now().wall,
            awaiting_start: BTreeMap::new(),
            awaiting_stop: BTreeMap::new(),
            awaiting_end: BTreeMap::new(),
            last_lines: BTreeMap::new(),
        }
    }

    /// A run's first try starts: those who waited for it follow it from now on.
    pub fn started(&mut self, task: TaskId, run: RunId) -> Vec<Client> {
        let clients = self.awaiting_start.remove(&task).unwrap_or_default();
        for client in &clients {
            client.send(&Reply::Started(run));
        }
        self.awaiting_end.entry(run).or_default().extend(clients.iter().cloned());
        clients
    }

    /// A run ended; `last_line` is that of its output.
    pub fn ended(&mut self, ended: &Ended, last_line: Option<&str>) {
        match last_line {
            Some(line) if ended.outcome.is_failure() => {
                self.last_lines.insert(ended.task, line.chars().take(LAST_LINE_MAX).collect());
            }
            _ => drop(self.last_lines.remove(&ended.task)),
        }
        let Ended { run, outcome, exit_code, took, .. } = *ended;
        let end = Reply::Ended { run: Some(run), outcome, exit_code, took };
        for client in self.awaiting_end.remove(&ended.run).unwrap_or_default() {
            client.send(&end);
        }
    }

    /// `client` stopped what a task had waiting: its run that has not started, or is between its tries, or what is due.
    /// Whoever asked for that before hears of its end with him; who asks from now on asks for the next.
    fn stopped(&mut self, task: TaskId, waiting: Option<Unstarted>, client: Client) {
        let clients = match waiting {
            Some(Unstarted { run, attempt: 1.. }) => return self.awaiting_end.entry(run).or_default().push(client),
            Some(Unstarted { run, .. }) => self.awaiting_end.entry(run).or_default(),
            None => self.awaiting_stop.entry(task).or_default(),
        };
        clients.extend(self.awaiting_start.remove(&task).unwrap_or_default());
        clients.push(client);
    }

    /// A due run came to nothing; those who wait for a start wait on if there is another.
    pub fn not_run(&mut self, task: TaskId, outcome: Outcome, is_another_due: bool) {
        let mut clients = self.awaiting_stop.remove(&task).unwrap_or_default();
        if !is_another_due {
            clients.append(&mut self.awaiting_start.remove(&task).unwrap_or_default());
        }
        for client in clients {
            client.send(&Reply::Ended { run: None, outcome, exit_code: None, took: None });
        }
    }

    /// Tells those who wait for something of `task`.
    pub fn note(&self, task: TaskId, run: Option<RunId>, text: &str) {
        let of_run = run.and_then(|run| self.awaiting_end.get(&run));
        for client in self.awaiting_start.get(&task).into_iter().chain(of_run).flatten() {
            client.send(&Reply::Note(text.to_owned()));
        }
    }
}

/// Passes the lines of a run's output on to `client`.
pub fn follower(client: Client) -> Follower {
    Box::new(move |lines| {
        let replies: Vec<Reply> = lines.lines().map(|line| Reply::Output(line.to_owned())).collect();
        client.send_all(&replies)
    })
}

impl Scheduler {
    /// Tells those who wait for a run what its fate is.
    pub fn note(&self, notice: &Notice) {
        match *notice {
            Notice::Waits { task, .. } => self.note_wait(task),
            Notice::Retries { task, run, attempt, delay } => {
                let text = format!("failed, try {attempt} follows in {}", clock::format_duration(delay));
                self.desk.note(task, Some(run), &text);
            }
            _ => {}
        }
    }

    /// The daemon ends: what has not started by now does not.
    pub fn turn_away(&mut self) {
        let stopping = Reply::Failed(Error::new("the daemon", "is stopping; the run stays due"));
        let awaiting_stop = mem::take(&mut self.desk.awaiting_stop);
        for client in
            mem::take(&mut self.desk.awaiting_start).into_values().chain(awaiting_stop.into_values()).flatten()
        {
            client.send(&stopping);
        }
    }

    /// Answers `request`; what takes its time answers later.
    pub fn answer(&mut self, request: Request, client: Client) {
        match request {
            Request::Status => self.answer_status(&client),
            Request::History { task, count } => self.answer_history(task.as_deref(), count, &client),
            Request::Run { task, detach } => self.answer_run(&task, detach, client),
            Request::Stop { task } => self.answer_stop(&task, client),
            Request::Lock => self.keeper.lock(client),
            Request::Refresh => self.keeper.refresh(client),
        }
    }

    fn answer_status(&self, client: &Client) {
        let now = clock::now();
        let mut waiting: BTreeMap<TaskId, Vec<Waiting>> = BTreeMap::new();
        for wait in self.agenda.waiting(now) {
            waiting.entry(wait.task).or_default().push(wait);
        }
        let plan = self.setting.plan.clone();
        let mut replies = vec![Reply::Daemon(self.daemon_status())];
        let loaded = |id| self.setting.secretbox.secret(id).is_some();
        let locked_up = self.keeper.is_locked();
        replies.extend(plan.secrets().map(|(id, spec)| {
            let state = match loaded(id) {
                true => SecretState::Loaded,
                false if !self.keeper.is_needed(id) => SecretState::Unused,
                false if locked_up => SecretState::Locked,
                false => SecretState::Missing,
            };
            Reply::Secret(SecretStatus { name: spec.name.clone(), state })
        }));
        for (id, task) in plan.tasks() {
            let waits = waiting.remove(&id).unwrap_or_default();
            replies.push(Reply::Task(Box::new(self.task_status(id, task, &waits, now))));
        }
        replies.push(Reply::Done);
        client.send_all(&replies);
    }

    fn daemon_status(&self) -> DaemonStatus {
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.setting.plan.file.display().to_string(),
            started: self.desk.started,
            memory: self.setting.secretbox.arena().protection(),
            zone: self.setting.plan.zone,
        }
    }

    fn task_status(&self, id: TaskId, task: &Task, waits: &[Waiting], now: Now) -> TaskStatus {
        let state = self.ledger.state();
        let known = state.tasks.get(&task.name);
        TaskStatus {
            name: task.name.clone(),
            state: self.task_state(id, task, waits, now),
            waits_for: self.waits_for(task, waits),
            last: known.and_then(|known| known.past.back()).cloned(),
            last_line: self.desk.last_lines.get(&id).cloned(),
            last_success: known.and_then(|known| known.last_success),
            next_slot: self.agenda.next_start(id, now),
            failing: task.enabled && known.is_some_and(|known| known.failing),
            stale: self.health.is_stale(id),
            max_age: self.health.max_age(id),
        }
    }

    fn task_state(&self, id: TaskId, task: &Task, waits: &[Waiting], now: Now) -> TaskState {
        let ago = |time: Duration| now.wall - TimeDelta::from_std(time).unwrap_or_default();
        if let Some(running) = self.agenda.running(now).find(|running| running.task == id) {
            let since = ago(running.running_for);
            return TaskState::Running { since, run: running.run, attempt: running.attempt };
        }
        let retrying = waits.iter().find_map(|wait| match wait.what {
            Wait::Retry { run, attempt } => Some(TaskState::Retrying { since: ago(wait.waited), run, attempt }),
            _ => None,
        });
        match (retrying, waits.first()) {
            (Some(retrying), _) => retrying,
            (None, Some(wait)) => TaskState::Waiting { since: ago(wait.waited) },
            (None, None) if task.enabled => TaskState::Idle,
            (None, None) => TaskState::Disabled,
        }
    }

    fn waits_for(&self, task: &Task, waits: &[Waiting]) -> Option<String> {
        let missing = task.secrets().into_iter().filter(|id| self.setting.secretbox.secret(*id).is_none());
        waits.first().map(|wait| match wait.what {
            Wait::Secrets => secrets_text(&self.setting.plan, missing),
            what => words::reason(what, &self.setting.plan, wait.task),
        })
    }

    fn answer_history(&self, task: Option<&str>, count: usize, client: &Client) {
        let state = self.ledger.state();
        if let Some(name) = task
            && !state.tasks.contains_key(name)
            && let Err(error) = self.setting.plan.find_task(name)
        {
            return client.send(&Reply::Failed(error));
        }
        let past = state.history(task);
        let last = past[past.len().saturating_sub(count)..].iter().map(|past| Reply::Past(Box::new((*past).clone())));
        let replies: Vec<Reply> =
            [Reply::Daemon(self.daemon_status())].into_iter().chain(last).chain([Reply::Done]).collect();
        drop(state);
        client.send_all(&replies);
    }

    fn answer_run(&mut self, name: &str, detach: bool, client: Client) {
        let task = match self.setting.plan.find_task(name) {
            Ok(task) => task,
            Err(error) => return client.send(&Reply::Failed(error)),
        };
        if !detach && let Some(error) = self.deadlock(task, client.session) {
            return client.send(&Reply::Failed(error));
        }
        let was_due = self.agenda.is_due(task);
        let actions = self.agenda.handle(clock::now(), Event::Manual { task });
        let answer = actions.iter().find_map(|action| match action {
            Action::ManualAnswer { answer, .. } => Some(*answer),
            _ => None,
        });
        match answer {
            Some(ManualAnswer::Refused(refusal)) => {
                client.send(&Reply::Failed(refused(name, &self.setting.plan.file, refusal)))
            }
            Some(ManualAnswer::Starting | ManualAnswer::Queued { .. }) if detach => client.send(&Reply::Done),
            Some(ManualAnswer::Queued { behind }) => {
                client.send(&Reply::Note(format!("waiting for run {behind} of the same task")));
                self.desk.awaiting_start.entry(task).or_default().push(client);
            }
            Some(ManualAnswer::Starting) => self.desk.awaiting_start.entry(task).or_default().push(client),
            None => {}
        }
        self.perform(actions);
        // One that becomes due now says itself what it waits for.
        if was_due {
            self.note_wait(task);
        }
    }

    /// Tells those who wait for a start what it waits for by now.
    fn note_wait(&self, task: TaskId) {
        let waits: Vec<Waiting> = self.agenda.waiting_of(task, clock::now()).collect();
        let brief = waits.first().is_none_or(|wait| matches!(wait.what, Wait::Start | Wait::Behind(_) | Wait::Record));
        if !brief && let Some(what) = self.waits_for(self.setting.plan.task(task), &waits) {
            let lacks_wiped = self.keeper.is_locked() && waits.iter().any(|wait| wait.what == Wait::Secrets);
            let way_on = if lacks_wiped { "; `backupnizza refresh` asks for wiped secrets again" } else { "" };
            self.desk.note(task, None, &format!("waiting for {what}{way_on}"));
        }
    }

    /// Why a run of `task` that somebody in `session` waits for would never start.
    fn deadlock(&self, task: TaskId, session: i32) -> Option<Error> {
        let plan = &self.setting.plan;
        let state = self.ledger.state();
        let within = state.sessions.iter().find(|known| known.pid == session && known.run.is_some())?;
        let caller = plan.task_named(&within.task)?;
        self.agenda.conflict(caller, task).then(|| {
            let what = format!("would wait for task {}, within which it is asked for", within.task);
            Error::new(&plan.task(task).name, what).hint("start it with `--detach`, and it runs afterwards")
        })
    }

    fn answer_stop(&mut self, name: &str, client: Client) {
        let task = match self.setting.plan.find_task(name) {
            Ok(task) => task,
            Err(error) => return client.send(&Reply::Failed(error)),
        };
        let now = clock::now();
        let running = self.agenda.running(now).find(|running| running.task == task);
        let waiting = self.agenda.unstarted(task);
        let actions = self.agenda.handle(now, Event::StopTask { task });
        let found = actions.iter().any(|action| matches!(action, Action::StopAnswer { found: true, .. }));
        match running {
            _ if !found => client.send(&Reply::Failed(Error::new(name, "neither running nor due"))),
            Some(running) => {
                client.send(&Reply::Note(format!("stopping run {}", running.run)));
                self.desk.awaiting_end.entry(running.run).or_default().push(client);
            }
            None => self.desk.stopped(task, waiting, client),
        }
        self.perform(actions);
    }
}

fn refused(name: &str, config: &Path, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Disabled => Error::new(name, "is not enabled").hint(format!(
            "set `enabled: true` and restart the daemon, or `backupnizza once {} {name}`",
            config.display()
        )),
        Refusal::Running(run) => Error::new(name, format!("is running already (run {run})"))
            .hint("with `overlap: queue` another run would wait behind it"),
        Refusal::ShuttingDown => Error::new("the daemon", "is stopping"),
    }
}

fn secrets_text(plan: &Plan, missing: impl Iterator<Item = SecretId>) -> String {
    let names: Vec<&str> = missing.map(|id| plan.secret(id).name.as_str()).collect();
    match names[..] {
        [] => "its secrets".to_owned(),
        [name] => format!("secret {name}"),
        _ => format!("secrets {}", names.join(", ")),
    }
}
