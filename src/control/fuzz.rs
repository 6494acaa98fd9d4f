//! The control socket's lines against whatever may stand in them: what is written is read, whatever the names and texts
//! are, and what is read could have been written.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::wire::{REQUEST_MAX, Received, parse_request, read_reply, reply_line, request_line};
use super::{HISTORY_MAX, Reply, Request};
use crate::clock::Zone;
use crate::error::Error;
use crate::ledger::{Cause, Past};
use crate::outcome::{Outcome, RunId, SkipReason};
use crate::report::{DaemonStatus, SecretState, SecretStatus, TaskState, TaskStatus};
use crate::secret::Protection;
use crate::testing::{Random, fuzz};

/// What texts are made of: all that separates and escapes, and what looks like nothing.
const TEXTS: &[&str] =
    &["a", "nightly", " ", "=", "==", "\\", "\\\\", "\\t", "\t", "\n", "\\n", "\r", "\0", "é", "日", "\u{202e}", "-"];

const PIECES: &[&str] = &[
    "backupnizza ",
    "1",
    "2",
    " ",
    "  ",
    "status",
    "history ",
    "100000",
    "100001",
    "run ",
    " detach",
    "stop ",
    "lock",
    "refresh",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "é",
    "-1",
    "99999999999999999999",
];

const REPLY_PIECES: &[&str] = &[
    "daemon",
    "secret",
    "task",
    "past",
    "note",
    "started",
    "output",
    "ended",
    "failed",
    "done",
    "version",
    "\t",
    "\t\t",
    "=",
    "\\",
    "\\x",
    "\\t",
    "\n",
    "0",
    "-1",
    "99999999999999999999",
    "true",
    "skipped",
    "=lock",
    "loaded",
    "é",
    "\0",
];

fn text(random: &mut Random) -> String {
    random.soup(TEXTS, 6)
}

fn request(random: &mut Random) -> Request {
    let name = |random: &mut Random| match random.below(20) {
        0 => "x".repeat(random.below(2 * REQUEST_MAX)),
        1..=6 => text(random),
        _ => "nightly".to_owned(),
    };
    match random.below(6) {
        0 => Request::History { task: None, count: 1 + random.below(HISTORY_MAX) },
        1 => Request::History { task: Some(name(random)), count: 1 + random.below(HISTORY_MAX) },
        2 => Request::Run { task: name(random), detach: random.once_in(2) },
        3 => Request::Stop { task: name(random) },
        _ => random.pick(&[Request::Status, Request::Lock, Request::Refresh]),
    }
}

#[test]
fn requests_are_read_as_they_were_made_and_bounded() {
    fuzz(5, |random| {
        let asked = request(random);
        let line = request_line(&asked);
        let mut bytes = match line {
            Some(line) => {
                assert!(line.len() <= REQUEST_MAX);
                assert_eq!(parse_request(line.as_bytes()), Received::Request(asked));
                assert_eq!(parse_request(&line.as_bytes()[..random.below(line.len())]), Received::Incomplete);
                line.into_bytes()
            }
            None => random.soup(PIECES, 12).into_bytes(),
        };
        if random.once_in(2) {
            random.mutate(&mut bytes, PIECES);
        }
        let read = parse_request(&bytes);
        let line_end = bytes.iter().take(REQUEST_MAX).position(|&byte| byte == b'\n');
        assert_eq!(read == Received::Incomplete, line_end.is_none() && bytes.len() < REQUEST_MAX, "{bytes:?}");
        match read {
            Received::Request(request) => {
                assert_eq!(line_end, Some(bytes.len() - 1), "{bytes:?}");
                let line = request_line(&request).expect("it was read from one");
                assert_eq!(parse_request(line.as_bytes()), Received::Request(request));
                true
            }
            Received::Incomplete | Received::OtherVersion | Received::Malformed => false,
        }
    });
}

fn maybe<T>(random: &mut Random, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
    if random.once_in(3) { None } else { Some(make(random)) }
}

/// Any time that a clock could show, to the millisecond.
fn time(random: &mut Random) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(random.number() as i64).unwrap_or_default()
}

fn milliseconds(random: &mut Random) -> Duration {
    Duration::from_millis(random.number())
}

fn outcome(random: &mut Random) -> Outcome {
    use SkipReason::{Condition, Lock, Missed, Overlap, Secrets};
    match random.below(3) {
        0 => Outcome::Skipped(random.pick(&[Overlap, Condition, Secrets, Lock, Missed])),
        1 => random.pick(&[Outcome::Success, Outcome::Warning, Outcome::Failure]),
        _ => random.pick(&[Outcome::Timeout, Outcome::Stopped, Outcome::Crashed]),
    }
}

fn past(random: &mut Random) -> Past {
    let causes = [Cause::Slot, Cause::Missed, Cause::Start, Cause::Reboot, Cause::Repeat, Cause::Manual];
    Past {
        run: maybe(random, |random| RunId(random.number())),
        task: text(random),
        slot: time(random),
        cause: random.pick(&causes),
        started: maybe(random, time),
        ended: time(random),
        outcome: outcome(random),
        exit_code: maybe(random, |random| random.number() as i32),
        took: maybe(random, milliseconds),
        attempts: random.number() as u32,
        cut: random.once_in(2),
    }
}

fn task(random: &mut Random) -> TaskStatus {
    let (since, run, attempt) = (time(random), RunId(random.number()), random.number() as u32);
    TaskStatus {
        name: text(random),
        state: random.pick(&[
            TaskState::Disabled,
            TaskState::Idle,
            TaskState::Waiting { since },
            TaskState::Running { since, run, attempt },
            TaskState::Retrying { since, run, attempt },
        ]),
        waits_for: maybe(random, text),
        last: maybe(random, past),
        last_line: maybe(random, text),
        last_success: maybe(random, time),
        next_slot: maybe(random, time),
        failing: random.once_in(2),
        stale: random.once_in(2),
        max_age: maybe(random, milliseconds),
    }
}

fn reply(random: &mut Random) -> Reply {
    match random.below(10) {
        0 => Reply::Daemon(DaemonStatus {
            version: text(random),
            pid: random.number() as u32,
            config: text(random),
            started: time(random),
            memory: random.pick(&[Protection::Secret, Protection::Locked]),
            zone: random.pick(&[Zone::Local, Zone::Utc]),
        }),
        1 => Reply::Secret(SecretStatus { name: text(random), state: random.pick(&SecretState::ALL) }),
        2 => Reply::Task(Box::new(task(random))),
        3 => Reply::Past(Box::new(past(random))),
        4 => Reply::Note(text(random)),
        5 => Reply::Started(RunId(random.number())),
        6 => Reply::Output(text(random)),
        7 => Reply::Ended {
            run: maybe(random, |random| RunId(random.number())),
            outcome: outcome(random),
            exit_code: maybe(random, |random| random.number() as i32),
            took: maybe(random, milliseconds),
        },
        8 => Reply::Failed(Error { object: text(random), what: text(random), hint: maybe(random, text) }),
        _ => random.pick(&[Reply::Done, Reply::OtherVersion]),
    }
}

#[test]
fn replies_are_read_as_they_were_made_one_at_a_time() {
    const BEHIND: &[u8] = b"note\tbehind it\n";
    fuzz(2, |random| {
        let said = reply(random);
        let line = reply_line(&said);
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        let mut rest = &[line.as_bytes(), BEHIND].concat()[..];
        assert_eq!(read_reply(&mut rest).expect("a reply"), Some(said), "{line:?}");
        assert_eq!(rest, BEHIND);
        let mut bytes = line.into_bytes();
        random.mutate(&mut bytes, REPLY_PIECES);
        if let Ok(Some(read)) = read_reply(&mut &bytes[..]) {
            let line = reply_line(&read);
            assert_eq!(read_reply(&mut line.as_bytes()).expect("a reply"), Some(read), "{bytes:?}");
        }
        true
    });
}
