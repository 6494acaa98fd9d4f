//! Requests and replies as lines of text, bounded on both sides.
//!
//! A request is words with a blank between them: `backupnizza VERSION COMMAND …`. A reply is
//! fields with tabs between them, the first of which says what it is; a backslash, a tab or a
//! line feed in a field is escaped. Times are milliseconds since 1970.

use std::fmt::Display;
use std::io::{self, BufRead, Read};
use std::str::{FromStr, Split};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{HISTORY_MAX, Reply, Request};
use crate::clock::Zone;
use crate::error::Error;
use crate::ledger::{Cause, Past};
use crate::outcome::{Outcome, RunId, SkipReason};
use crate::report::{DaemonStatus, SecretState, SecretStatus, TaskState, TaskStatus, memory_name};
use crate::secret::Protection;

/// Of the conversation, not of the program: it changes when an older side would misunderstand.
const VERSION: &str = "1";

const GREETING: &str = "backupnizza";

/// The longest request, line ending included.
pub const REQUEST_MAX: usize = 4 * 1024;

/// The longest reply, line ending included: a line of output has 16 KiB before it is escaped.
const REPLY_MAX: u64 = 256 * 1024;

/// What has been received of a request so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Incomplete,
    Request(Request),
    OtherVersion,
    Malformed,
}

/// Reads a request out of the bytes received so far.
pub fn parse_request(received: &[u8]) -> Received {
    let Some(end) = received.iter().take(REQUEST_MAX).position(|&byte| byte == b'\n') else {
        return if received.len() < REQUEST_MAX { Received::Incomplete } else { Received::Malformed };
    };
    let Ok(line) = std::str::from_utf8(&received[..end]) else { return Received::Malformed };
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [GREETING, VERSION, ref command @ ..] if end + 1 == received.len() => {
            parse_command(command).map_or(Received::Malformed, Received::Request)
        }
        [GREETING, version, ..] if version != VERSION => Received::OtherVersion,
        _ => Received::Malformed,
    }
}

fn parse_command(words: &[&str]) -> Option<Request> {
    let count = |text: &str| text.parse().ok().filter(|count| (1..=HISTORY_MAX).contains(count));
    let request = match *words {
        ["status"] => Request::Status,
        ["history", number] => Request::History { task: None, count: count(number)? },
        ["history", number, task] => Request::History { task: Some(task.to_owned()), count: count(number)? },
        ["run", task] => Request::Run { task: task.to_owned(), detach: false },
        ["run", task, "detach"] => Request::Run { task: task.to_owned(), detach: true },
        ["stop", task] => Request::Stop { task: task.to_owned() },
        ["lock"] => Request::Lock,
        ["refresh"] => Request::Refresh,
        _ => return None,
    };
    Some(request)
}

/// The line that asks for `request`; `None` if no task can have such a name.
pub fn request_line(request: &Request) -> Option<String> {
    let command = match request {
        Request::Status => "status".to_owned(),
        Request::History { task: None, count } => format!("history {count}"),
        Request::History { task: Some(task), count } => format!("history {count} {task}"),
        Request::Run { task, detach } => format!("run {task}{}", if *detach { " detach" } else { "" }),
        Request::Stop { task } => format!("stop {task}"),
        Request::Lock => "lock".to_owned(),
        Request::Refresh => "refresh".to_owned(),
    };
    let line = format!("{GREETING} {VERSION} {command}\n");
    matches!(parse_request(line.as_bytes()), Received::Request(read) if read == *request).then_some(line)
}

/// Reads one reply. `None`: there is none any more.
pub fn read_reply(reader: &mut impl BufRead) -> io::Result<Option<Reply>> {
    let mut line = Vec::new();
    reader.take(REPLY_MAX).read_until(b'\n', &mut line)?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => {
            let line = std::str::from_utf8(&line).map_err(|_| invalid())?;
            parse_reply(line).map(Some).ok_or_else(invalid)
        }
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A reply as its line.
pub fn reply_line(reply: &Reply) -> String {
    let line = match reply {
        Reply::Daemon(daemon) => put_daemon(daemon),
        Reply::Secret(secret) => Line::new("secret").field(&secret.name).field(secret.state.name()),
        Reply::Task(task) => put_task(task),
        Reply::Past(past) => put_past(Line::new("past"), past),
        Reply::Note(text) => Line::new("note").field(text),
        Reply::Started(run) => Line::new("started").field(run),
        Reply::Output(text) => Line::new("output").field(text),
        Reply::Ended { run, outcome, exit_code, took } => put_outcome(Line::new("ended").maybe(*run), *outcome)
            .maybe(*exit_code)
            .maybe(took.map(|took| took.as_millis())),
        Reply::Failed(error) => Line::new("failed").field(&error.object).field(&error.what).maybe(error.hint.as_ref()),
        Reply::Done => Line::new("done"),
        Reply::OtherVersion => Line::new("version").field(VERSION),
    };
    line.0 + "\n"
}

fn parse_reply(line: &str) -> Option<Reply> {
    let mut fields = Fields(line.split('\t'));
    let reply = match fields.0.next()? {
        "daemon" => Reply::Daemon(take_daemon(&mut fields)?),
        "secret" => {
            let name = fields.text()?;
            let state = fields.text()?;
            let state = SecretState::ALL.into_iter().find(|known| known.name() == state)?;
            Reply::Secret(SecretStatus { name, state })
        }
        "task" => Reply::Task(Box::new(take_task(&mut fields)?)),
        "past" => Reply::Past(Box::new(take_past(&mut fields)?)),
        "note" => Reply::Note(fields.text()?),
        "started" => Reply::Started(RunId(fields.number()?)),
        "output" => Reply::Output(fields.text()?),
        "ended" => Reply::Ended {
            run: fields.maybe()?.map(RunId),
            outcome: take_outcome(&mut fields)?,
            exit_code: fields.maybe()?,
            took: fields.maybe()?.map(Duration::from_millis),
        },
        "failed" => Reply::Failed(Error { object: fields.text()?, what: fields.text()?, hint: fields.maybe_text()? }),
        "done" => Reply::Done,
        // Whatever follows is another version's business.
        "version" => return Some(Reply::OtherVersion),
        _ => return None,
    };
    fields.0.next().is_none().then_some(reply)
}

/// A line that is being written.
struct Line(String);

impl Line {
    fn new(kind: &str) -> Line {
        Line(kind.to_owned())
    }

    fn field(mut self, value: impl Display) -> Line {
        self.0.push('\t');
        for c in value.to_string().chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '\t' => self.0.push_str("\\t"),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Nothing is an empty field, and something is never empty: it has an equals sign before it.
    fn maybe(self, value: Option<impl Display>) -> Line {
        match value {
            Some(value) => self.field(format!("={value}")),
            None => self.field(""),
        }
    }

    fn time(self, time: Option<DateTime<Utc>>) -> Line {
        self.maybe(time.map(|time| time.timestamp_millis()))
    }
}

/// The fields of a line that are still to be read.
struct Fields<'a>(Split<'a, char>);

impl Fields<'_> {
    fn text(&mut self) -> Option<String> {
        let field = self.0.next()?;
        let mut text = String::with_capacity(field.len());
        let mut chars = field.chars();
        while let Some(c) = chars.next() {
            text.push(match c {
                '\\' => match chars.next()? {
                    't' => '\t',
                    'n' => '\n',
                    '\\' => '\\',
                    _ => return None,
                },
                c => c,
            });
        }
        Some(text)
    }

    fn maybe_text(&mut self) -> Option<Option<String>> {
        let text = self.text()?;
        if text.is_empty() { Some(None) } else { Some(Some(text.strip_prefix('=')?.to_owned())) }
    }

    fn number<T: FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn maybe<T: FromStr>(&mut self) -> Option<Option<T>> {
        match self.maybe_text()? {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        }
    }

    fn time(&mut self) -> Option<Option<DateTime<Utc>>> {
        match self.maybe()? {
            Some(milliseconds) => DateTime::from_timestamp_millis(milliseconds).map(Some),
            None => Some(None),
        }
    }
}

fn put_daemon(daemon: &DaemonStatus) -> Line {
    let zone = match daemon.zone {
        Zone::Local => "local",
        Zone::Utc => "utc",
    };
    Line::new("daemon")
        .field(&daemon.version)
        .field(daemon.pid)
        .field(&daemon.config)
        .time(Some(daemon.started))
        .field(memory_name(daemon.memory))
        .field(zone)
}

fn take_daemon(fields: &mut Fields<'_>) -> Option<DaemonStatus> {
    Some(DaemonStatus {
        version: fields.text()?,
        pid: fields.number()?,
        config: fields.text()?,
        started: fields.time()??,
        memory: match fields.text()?.as_str() {
            "secret" => Protection::Secret,
            "locked" => Protection::Locked,
            _ => return None,
        },
        zone: match fields.text()?.as_str() {
            "local" => Zone::Local,
            "utc" => Zone::Utc,
            _ => return None,
        },
    })
}

fn put_outcome(line: Line, outcome: Outcome) -> Line {
    line.field(outcome.name()).maybe(outcome.reason().map(SkipReason::name))
}

fn take_outcome(fields: &mut Fields<'_>) -> Option<Outcome> {
    let name = fields.text()?;
    Outcome::parse(&name, fields.maybe_text()?.as_deref())
}

fn put_past(line: Line, past: &Past) -> Line {
    let line = line
        .field(&past.task)
        .maybe(past.run)
        .time(Some(past.slot))
        .field(past.cause.name())
        .time(past.started)
        .time(Some(past.ended));
    put_outcome(line, past.outcome)
        .maybe(past.exit_code)
        .maybe(past.took.map(|took| took.as_millis()))
        .field(past.attempts)
        .field(past.cut)
}

fn take_past(fields: &mut Fields<'_>) -> Option<Past> {
    Some(Past {
        task: fields.text()?,
        run: fields.maybe()?.map(RunId),
        slot: fields.time()??,
        cause: Cause::named(&fields.text()?)?,
        started: fields.time()?,
        ended: fields.time()??,
        outcome: take_outcome(fields)?,
        exit_code: fields.maybe()?,
        took: fields.maybe()?.map(Duration::from_millis),
        attempts: fields.number()?,
        cut: fields.number()?,
    })
}

fn put_task(task: &TaskStatus) -> Line {
    let run = task.state.run();
    let line = Line::new("task")
        .field(&task.name)
        .field(task.state.name())
        .time(task.state.since())
        .maybe(run.map(|(run, _)| run))
        .maybe(run.map(|(_, attempt)| attempt))
        .maybe(task.waits_for.as_ref())
        .maybe(task.last_line.as_ref())
        .time(task.last_success)
        .time(task.next_slot)
        .field(task.failing)
        .field(task.stale)
        .maybe(task.max_age.map(|age| age.as_millis()));
    match &task.last {
        Some(past) => put_past(line.field("last"), past),
        None => line.field("never"),
    }
}

fn take_task(fields: &mut Fields<'_>) -> Option<TaskStatus> {
    let name = fields.text()?;
    let state = fields.text()?;
    let (since, run, attempt) = (fields.time()?, fields.maybe()?.map(RunId), fields.maybe()?);
    let state = match state.as_str() {
        "disabled" => TaskState::Disabled,
        "idle" => TaskState::Idle,
        "waiting" => TaskState::Waiting { since: since? },
        "running" => TaskState::Running { since: since?, run: run?, attempt: attempt? },
        "retrying" => TaskState::Retrying { since: since?, run: run?, attempt: attempt? },
        _ => return None,
    };
    Some(TaskStatus {
        name,
        state,
        waits_for: fields.maybe_text()?,
        last_line: fields.maybe_text()?,
        last_success: fields.time()?,
        next_slot: fields.time()?,
        failing: fields.number()?,
        stale: fields.number()?,
        max_age: fields.maybe()?.map(Duration::from_millis),
        last: match fields.text()?.as_str() {
            "last" => Some(take_past(fields)?),
            "never" => None,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Past {
        Past {
            run: Some(RunId(7)),
            task: "documents".to_owned(),
            slot: DateTime::UNIX_EPOCH,
            cause: Cause::Manual,
            started: Some(DateTime::UNIX_EPOCH),
            ended: DateTime::UNIX_EPOCH,
            outcome: Outcome::Skipped(SkipReason::Lock),
            exit_code: Some(12),
            took: Some(Duration::from_millis(1_500)),
            attempts: 2,
            cut: true,
        }
    }

    fn task(state: TaskState) -> Reply {
        Reply::Task(Box::new(TaskStatus {
            name: "documents".to_owned(),
            state,
            waits_for: Some("a lock".to_owned()),
            last: Some(past()),
            last_line: Some("Fatal: a\\b\tc\n=".to_owned()),
            last_success: None,
            next_slot: Some(DateTime::UNIX_EPOCH),
            failing: true,
            stale: false,
            max_age: Some(Duration::from_secs(3)),
        }))
    }

    #[test]
    fn requests_are_read_back_as_they_were_made() {
        let task = || "documents".to_owned();
        for request in [
            Request::Status,
            Request::History { task: None, count: 20 },
            Request::History { task: Some(task()), count: 1 },
            Request::Run { task: task(), detach: false },
            Request::Run { task: task(), detach: true },
            Request::Stop { task: task() },
            Request::Lock,
            Request::Refresh,
        ] {
            let line = request_line(&request).expect("a line");
            assert_eq!(parse_request(line.as_bytes()), Received::Request(request));
            for end in 0..line.len() {
                assert_eq!(parse_request(&line.as_bytes()[..end]), Received::Incomplete);
            }
        }
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for bytes in [
            &b"\n"[..],
            b"GET / HTTP/1.1\n",
            b"backupnizza 1\n",
            b"backupnizza 1 history 0\n",
            b"backupnizza 1 history 99999999999\n",
            b"backupnizza 1 status\nmore",
            b"backupnizza 1 run \xff\n",
            &[b'x'; REQUEST_MAX],
        ] {
            assert_eq!(parse_request(bytes), Received::Malformed);
        }
        assert_eq!(parse_request(b"backupnizza 2 anything\n"), Received::OtherVersion);
    }

    #[test]
    fn names_that_no_task_has_cannot_be_sent() {
        for name in ["a b", "a\nb", "a detach"] {
            assert_eq!(request_line(&Request::Run { task: name.to_owned(), detach: false }), None);
        }
        assert_eq!(request_line(&Request::Stop { task: "x".repeat(REQUEST_MAX) }), None);
    }

    #[test]
    fn replies_are_read_back_as_they_were_made() {
        let since = DateTime::UNIX_EPOCH;
        let (run, attempt) = (RunId(9), 1);
        for reply in [
            Reply::Daemon(DaemonStatus {
                version: "0.1.0".to_owned(),
                pid: 12,
                config: "/etc/backup.yaml".to_owned(),
                started: since,
                memory: Protection::Locked,
                zone: Zone::Utc,
            }),
            Reply::Secret(SecretStatus { name: "vault".to_owned(), state: SecretState::Locked }),
            task(TaskState::Idle),
            task(TaskState::Disabled),
            task(TaskState::Waiting { since }),
            task(TaskState::Running { since, run, attempt }),
            task(TaskState::Retrying { since, run, attempt }),
            Reply::Past(Box::new(past())),
            Reply::Note("waiting".to_owned()),
            Reply::Started(run),
            Reply::Output(String::new()),
            Reply::Ended { run: Some(run), outcome: Outcome::Failure, exit_code: None, took: None },
            Reply::Failed(Error::new("a", "b").hint("")),
            Reply::Failed(Error::new("a", "b")),
            Reply::Done,
            Reply::OtherVersion,
        ] {
            let line = reply_line(&reply);
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
            assert_eq!(read_reply(&mut line.as_bytes()).expect("a reply"), Some(reply));
            assert!(read_reply(&mut &line.as_bytes()[..line.len() - 1]).is_err());
        }
        assert_eq!(read_reply(&mut &b""[..]).expect("an end"), None);
        assert!(read_reply(&mut &b"nonsense\n"[..]).is_err());
        assert!(read_reply(&mut &vec![b'x'; 2 * REPLY_MAX as usize][..]).is_err());
    }
}
