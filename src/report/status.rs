//! How things stand: what `status` tells of a daemon and its tasks, as a table and as JSON.
//!
//! `status --json` prints one object. Times are RFC 3339, or null where there is none:
//!
//! - `version`, `pid`: the daemon's
//! - `config`: the path of its configuration file
//! - `started`: when it started
//! - `memory`: how secrets are kept, `secret` or `locked`
//! - `ok`: false if a task is failing or stale
//! - `secrets`: for each its `name` and `state`: `loaded`, `missing`, `locked` (wiped by `lock`), or
//!   `unused` (only disabled tasks use it)
//! - `tasks`: for each
//!   - `name`
//!   - `state`: `disabled`, `idle`, `waiting` (due), `running`, `retrying` (waits for its next try)
//!   - `since`: when it got into `waiting`, `running` or `retrying`
//!   - `waits_for`: in words, also if it runs and the next run waits behind it; else null
//!   - `run`, `attempt`: of the run that is running or retrying, else null
//!   - `last`: its last run or, where it came to none, its last slot, as `history --json` has it; null if there
//!     is none
//!   - `last_line`: of the output of a last run that failed, the line that tells most; else null
//!   - `last_success`
//!   - `next_slot`
//!   - `failing`: its last run that came to a result failed
//!   - `stale`: the last success is older than `max_age_seconds` (null: no limit)

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::history::{json_of_past, outcome_text};
use super::json::{Array, Object};
use super::table::{Cell, Look, Output, Table};
use super::width::fold;
use crate::clock::{self, Zone};
use crate::ledger::Past;
use crate::outcome::{Outcome, RunId};
use crate::secret::Protection;

/// A daemon and all that it looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub daemon: DaemonStatus,
    pub secrets: Vec<SecretStatus>,
    pub tasks: Vec<TaskStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonStatus {
    pub version: String,
    pub pid: u32,
    pub config: String,
    pub started: DateTime<Utc>,
    pub memory: Protection,
    pub zone: Zone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretStatus {
    pub name: String,
    pub state: SecretState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    Loaded,
    /// Its source has not given it yet.
    Missing,
    /// Wiped by `lock`.
    Locked,
    /// Never asked for, since only disabled tasks use it.
    Unused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub name: String,
    pub state: TaskState,
    pub waits_for: Option<String>,
    pub last: Option<Past>,
    pub last_line: Option<String>,
    pub last_success: Option<DateTime<Utc>>,
    pub next_slot: Option<DateTime<Utc>>,
    pub failing: bool,
    pub stale: bool,
    pub max_age: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Disabled,
    Idle,
    Waiting { since: DateTime<Utc> },
    Running { since: DateTime<Utc>, run: RunId, attempt: u32 },
    Retrying { since: DateTime<Utc>, run: RunId, attempt: u32 },
}

impl SecretState {
    pub const ALL: [SecretState; 4] =
        [SecretState::Loaded, SecretState::Missing, SecretState::Locked, SecretState::Unused];

    pub fn name(self) -> &'static str {
        match self {
            SecretState::Loaded => "loaded",
            SecretState::Missing => "missing",
            SecretState::Locked => "locked",
            SecretState::Unused => "unused",
        }
    }
}

impl TaskState {
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Disabled => "disabled",
            TaskState::Idle => "idle",
            TaskState::Waiting { .. } => "waiting",
            TaskState::Running { .. } => "running",
            TaskState::Retrying { .. } => "retrying",
        }
    }

    pub fn since(self) -> Option<DateTime<Utc>> {
        match self {
            TaskState::Disabled | TaskState::Idle => None,
            TaskState::Waiting { since } | TaskState::Running { since, .. } | TaskState::Retrying { since, .. } => {
                Some(since)
            }
        }
    }

    /// The run and its try.
    pub fn run(self) -> Option<(RunId, u32)> {
        match self {
            TaskState::Disabled | TaskState::Idle | TaskState::Waiting { .. } => None,
            TaskState::Running { run, attempt, .. } | TaskState::Retrying { run, attempt, .. } => Some((run, attempt)),
        }
    }
}

impl Status {
    /// Whether no task is failing or stale.
    pub fn is_ok(&self) -> bool {
        self.tasks.iter().all(|task| !task.failing && !task.stale)
    }

    /// For people, and for programs that read tabs.
    pub fn render(&self, output: Output, now: DateTime<Utc>) -> String {
        let table = self.table(output, now).render(output);
        let Output::Terminal { width, colour } = output else { return table };
        let width = width.unwrap_or(usize::MAX);
        let all_loaded =
            self.secrets.iter().all(|secret| matches!(secret.state, SecretState::Loaded | SecretState::Unused));
        let look = if all_loaded { Look::Plain } else { Look::Doubtful };
        let mut text = paragraph(&self.daemon_line(now), width, Look::Plain, colour);
        if !self.secrets.is_empty() {
            text += &paragraph(&self.secrets_line(), width, look, colour);
        }
        text + "\n" + &table
    }

    fn daemon_line(&self, now: DateTime<Utc>) -> String {
        let DaemonStatus { version, pid, started, memory, .. } = &self.daemon;
        let since = ago(*started, now);
        format!("backupnizza {version}, pid {pid}, started {since}, secrets in {} memory", memory_name(*memory))
    }

    fn secrets_line(&self) -> String {
        let named = |state: SecretState| {
            let names = self.secrets.iter().filter(|secret| secret.state == state).map(|secret| secret.name.as_str());
            names.collect::<Vec<_>>()
        };
        let parts =
            SecretState::ALL.into_iter().map(|state| (state, named(state))).filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(state, names)| format!("{} {}", state.name(), names.join(", "))).collect();
        format!("secrets: {}", parts.join("; "))
    }

    fn table(&self, output: Output, now: DateTime<Utc>) -> Table {
        let mut table = Table::new(&["TASK", "STATE", "LAST", "NEXT"]);
        for task in &self.tasks {
            match output {
                Output::Terminal { .. } => table.push_noted(task.row(now), task.last_line.clone()),
                Output::Pipe => table.push(task.plain_row(self.daemon.zone)),
            }
        }
        table
    }

    /// One line; the fields are documented above.
    pub fn json(&self) -> String {
        let zone = self.daemon.zone;
        let mut secrets = Array::new();
        for secret in &self.secrets {
            secrets.object(Object::new().text("name", &secret.name).text("state", secret.state.name()));
        }
        let mut tasks = Array::new();
        for task in &self.tasks {
            tasks.object(task.json(zone));
        }
        let daemon = &self.daemon;
        Object::new()
            .text("version", &daemon.version)
            .number("pid", Some(daemon.pid))
            .text("config", &daemon.config)
            .time("started", Some(daemon.started), zone)
            .text("memory", memory_name(daemon.memory))
            .flag("ok", self.is_ok())
            .array("secrets", secrets)
            .array("tasks", tasks)
            .line()
    }
}

impl TaskStatus {
    fn row(&self, now: DateTime<Utc>) -> Vec<Cell> {
        let next = self.next_slot.map_or("-".to_owned(), |slot| format!("in {}", rounded(between(now, slot))));
        vec![
            self.name.clone().into(),
            self.state_lines(now).into(),
            Cell::from(self.last_lines(now)).look(self.look()),
            next.into(),
        ]
    }

    fn state_lines(&self, now: DateTime<Utc>) -> Vec<String> {
        let since = self.state.since().map(|since| format!(" {}", rounded(between(since, now))));
        let mut lines = vec![format!("{}{}", self.state.name(), since.unwrap_or_default())];
        lines.extend(self.waits_for.as_ref().map(|what| format!("for {what}")));
        lines
    }

    fn last_lines(&self, now: DateTime<Utc>) -> Vec<String> {
        let Some(last) = &self.last else {
            return vec![if self.stale { "never, STALE".to_owned() } else { "-".to_owned() }];
        };
        let took = last.took.map(|took| format!(", took {}", length(took))).unwrap_or_default();
        let mut lines = vec![format!("{} {}{took}", outcome_text(last), ago(last.ended, now))];
        if self.stale {
            lines.push(match self.last_success {
                Some(success) => format!("STALE, last success {}", ago(success, now)),
                None => "STALE, never succeeded".to_owned(),
            });
        } else if last.outcome != Outcome::Success
            && let Some(success) = self.last_success
        {
            lines.push(format!("last success {}", ago(success, now)));
        }
        lines
    }

    fn look(&self) -> Look {
        match &self.last {
            _ if self.failing || self.stale => Look::Bad,
            None => Look::Plain,
            Some(last) if last.outcome == Outcome::Success => Look::Good,
            Some(_) => Look::Doubtful,
        }
    }

    /// As README.md has it: name, state, what it waits for, last outcome, its end and how long it took in seconds,
    /// last success, next slot, `failing` or `stale`, last line of output.
    fn plain_row(&self, zone: Zone) -> Vec<Cell> {
        let or_dash = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
        let time = |time: Option<DateTime<Utc>>| or_dash(time.map(|time| clock::format_time(time, zone)));
        let alarms: Vec<&str> = [(self.failing, "failing"), (self.stale, "stale")]
            .into_iter()
            .filter(|alarm| alarm.0)
            .map(|a| a.1)
            .collect();
        vec![
            self.name.clone().into(),
            self.state.name().to_owned().into(),
            or_dash(self.waits_for.clone()),
            or_dash(self.last.as_ref().map(|last| last.outcome.to_string())),
            time(self.last.as_ref().map(|last| last.ended)),
            or_dash(self.last.as_ref().and_then(|last| last.took).map(|took| took.as_secs_f64().to_string())),
            time(self.last_success),
            time(self.next_slot),
            or_dash((!alarms.is_empty()).then(|| alarms.join(", "))),
            or_dash(self.last_line.clone()),
        ]
    }

    fn json(&self, zone: Zone) -> Object {
        let run = self.state.run();
        Object::new()
            .text("name", &self.name)
            .text("state", self.state.name())
            .time("since", self.state.since(), zone)
            .maybe_text("waits_for", self.waits_for.as_deref())
            .number("run", run.map(|(run, _)| run))
            .number("attempt", run.map(|(_, attempt)| attempt))
            .object("last", self.last.as_ref().map(|last| json_of_past(last, zone)))
            .maybe_text("last_line", self.last_line.as_deref())
            .time("last_success", self.last_success, zone)
            .time("next_slot", self.next_slot, zone)
            .flag("failing", self.failing)
            .flag("stale", self.stale)
            .number("max_age_seconds", self.max_age.map(|age| age.as_secs()))
    }
}

pub fn memory_name(memory: Protection) -> &'static str {
    match memory {
        Protection::Secret => "secret",
        Protection::Locked => "locked",
    }
}

fn paragraph(text: &str, width: usize, look: Look, colour: bool) -> String {
    fold(text, width).iter().map(|line| look.paint(line, colour) + "\n").collect()
}

fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Duration {
    (to - from).to_std().unwrap_or_default()
}

pub fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    format!("{} ago", rounded(between(time, now)))
}

/// How long a run took: parts of a second matter only to short ones.
fn length(took: Duration) -> String {
    if took < Duration::from_secs(60) { clock::format_duration(took) } else { rounded(took) }
}

/// A duration by its two largest units, as a person would say it: `2d3h`, `5m10s`.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    clock::format_duration(Duration::from_secs(seconds / unit * unit))
}
