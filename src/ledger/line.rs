//! The lines of the ledger: `CRC EPOCH.INDEX WORDS…`, text that a person can read.
//!
//! The CRC-32 covers all behind it. The epoch counts the syncs before the line was written, the
//! index the lines since the last one: they tell what a power cut may have torn from damage.

use std::fmt::Write as _;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};

use super::state::{Cause, Due, Past, Record, Session, Started, TaskState};
use crate::outcome::{Outcome, RunId};

/// The first words of every ledger; another number means another format.
const HEADER: &str = "backupnizza-ledger 1";

/// What stands in a line: a record, or a part of the snapshot with which a ledger begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Header,
    Next(u64),
    Boot(String),
    /// A task, without its due run and its past.
    Kept(String, Box<TaskState>),
    Pending(String, Due),
    Running(RunId, Started),
    Survivor(Session),
    Past(Past),
    /// The end of the snapshot, which was synced as a whole.
    Ready,
    Record(Record),
}

/// A line that is whole.
#[derive(Debug, PartialEq)]
pub struct Line {
    pub epoch: u64,
    pub index: u64,
    pub entry: Entry,
}

impl Line {
    /// Appends the line and its end to `out`.
    pub fn write(&self, out: &mut String) {
        let body = format!("{}.{} {}", self.epoch, self.index, words_of(&self.entry));
        let _ = writeln!(out, "{:08x} {body}", crc32(body.as_bytes()));
    }

    /// Reads a line, given without its end; `None` if it is not whole.
    pub fn read(line: &[u8]) -> Option<Line> {
        let line = std::str::from_utf8(line).ok()?;
        let (sum, body) = line.split_once(' ')?;
        if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32(body.as_bytes()) {
            return None;
        }
        let (place, words) = body.split_once(' ')?;
        let (epoch, index) = place.split_once('.')?;
        Some(Line { epoch: epoch.parse().ok()?, index: index.parse().ok()?, entry: entry_of(words)? })
    }
}

fn words_of(entry: &Entry) -> String {
    match entry {
        Entry::Header => HEADER.to_string(),
        Entry::Next(run) => format!("next {run}"),
        Entry::Boot(boot) => format!("boot {}", escape(boot)),
        Entry::Kept(name, task) => words_of_task(name, task),
        Entry::Pending(name, due) => format!("pending {} {}", escape(name), words_of_due(due)),
        Entry::Running(run, started) => format!("running {run} {}", words_of_started(started)),
        Entry::Survivor(session) => format!("survivor {}", words_of_session(session)),
        Entry::Past(past) => words_of_past(past),
        Entry::Ready => "ready".to_string(),
        Entry::Record(record) => words_of_record(record),
    }
}

fn words_of_record(record: &Record) -> String {
    match record {
        Record::Begun { boot, wall } => format!("begun {} {}", escape(boot), time(*wall)),
        Record::Task { task, schedule, wall } => format!("task {} {schedule:016x} {}", escape(task), time(*wall)),
        Record::Gone { task } => format!("gone {}", escape(task)),
        Record::Due { task, due } => format!("due {} {}", escape(task), words_of_due(due)),
        Record::NotRun { task, slot, cause, wall, outcome } => {
            let (slot, wall, cause) = (time(*slot), time(*wall), cause.name());
            format!("not-run {} {slot} {cause} {wall} {}", escape(task), words_of_outcome(*outcome))
        }
        Record::Started { run, started } => format!("started {run} {}", words_of_started(started)),
        Record::Withdrawn { run } => format!("withdrawn {run}"),
        Record::Stale { task } => format!("stale {}", escape(task)),
        Record::Session(session) => format!("session {}", words_of_session(session)),
        Record::SessionEnded { pid, start } => format!("session-ended {pid} {start}"),
        Record::Ended { run, outcome, exit_code, wall, took, attempts, cut } => {
            let (outcome, wall, took) = (words_of_outcome(*outcome), time(*wall), millis(*took));
            format!("ended {run} {outcome} {} {wall} {took} {attempts} {cut}", optional(*exit_code))
        }
    }
}

fn words_of_task(name: &str, task: &TaskState) -> String {
    format!(
        "kept {} {} {} {} {} {} {} {} {} {} {} {}",
        escape(name),
        optional(task.schedule.map(|schedule| format!("{schedule:016x}"))),
        time(task.first_seen),
        time(task.from),
        time(task.last_slot),
        optional(task.before_correction.map(time)),
        task.cut,
        optional(task.last_start.map(time)),
        optional(task.last_success.map(time)),
        optional(task.last_outcome.map(words_of_outcome)),
        task.failing,
        task.stale,
    )
}

fn words_of_past(past: &Past) -> String {
    format!(
        "past {} {} {} {} {} {} {} {} {} {} {}",
        optional(past.run),
        escape(&past.task),
        time(past.slot),
        past.cause.name(),
        optional(past.started.map(time)),
        time(past.ended),
        words_of_outcome(past.outcome),
        optional(past.exit_code),
        millis(past.took),
        past.attempts,
        past.cut,
    )
}

fn words_of_due(due: &Due) -> String {
    format!("{} {} {}", time(due.slot), due.cause.name(), time(due.since))
}

fn words_of_started(started: &Started) -> String {
    format!("{} {} {} {}", escape(&started.task), time(started.slot), started.cause.name(), time(started.wall))
}

fn words_of_session(session: &Session) -> String {
    let (run, task, boot) = (optional(session.run), escape(&session.task), escape(&session.boot));
    format!("{run} {task} {} {} {boot}", session.pid, session.start)
}

fn words_of_outcome(outcome: Outcome) -> String {
    match outcome.reason() {
        Some(reason) => format!("{}:{}", outcome.name(), reason.name()),
        None => outcome.name().to_string(),
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Most of a ledger are times, and the usual ones are read far faster by hand than by chrono's parser, which reads all
/// others.
fn time_of(word: &str) -> Option<DateTime<Utc>> {
    usual_time_of(word.as_bytes()).or_else(|| word.parse().ok())
}

/// Reads `2026-01-31T23:59:59Z`, with or without a fraction of the second.
fn usual_time_of(word: &[u8]) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = word.strip_suffix(b"Z")?.split_at_checked(19)?;
    let number = |from: usize, to: usize| digits(&seconds[from..to]);
    let marks = [seconds[4], seconds[7], seconds[10], seconds[13], seconds[16]];
    if marks != *b"--T::" {
        return None;
    }
    let nanos = match fraction {
        [] => 0,
        [b'.', fraction @ ..] if (1..=9).contains(&fraction.len()) => {
            digits(fraction)? * 10_u32.pow(9 - fraction.len() as u32)
        }
        _ => return None,
    };
    let day = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 7)?, number(8, 10)?)?;
    Some(day.and_hms_nano_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?, nanos)?.and_utc())
}

/// Of up to nine of them.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

fn millis(duration: Option<Duration>) -> String {
    optional(duration.map(|duration| duration.as_millis()))
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

/// `text` as one word: printable ASCII, `%XX` for all other bytes, never empty and never `-`.
fn escape(text: &str) -> String {
    if text.is_empty() {
        return "%".to_string();
    }
    let mut word = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' && text != "-" {
            word.push(char::from(byte));
        } else {
            let _ = write!(word, "%{byte:02x}");
        }
    }
    word
}

fn unescape(word: &str) -> Option<String> {
    if word == "%" {
        return Some(String::new());
    }
    let mut parts = word.split('%');
    let mut text = parts.next()?.as_bytes().to_vec();
    for part in parts {
        text.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        text.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(text).ok()
}

fn entry_of(text: &str) -> Option<Entry> {
    if text == HEADER {
        return Some(Entry::Header);
    }
    let mut words = Words(text.split_ascii_whitespace());
    let entry = match words.word()? {
        "next" => Entry::Next(words.parsed()?),
        "boot" => Entry::Boot(words.text()?),
        "kept" => words.task()?,
        "pending" => Entry::Pending(words.text()?, words.due()?),
        "running" => Entry::Running(words.run()?, words.started()?),
        "survivor" => Entry::Survivor(words.session()?),
        "past" => Entry::Past(words.past()?),
        "ready" => Entry::Ready,
        kind => Entry::Record(words.record(kind)?),
    };
    words.0.next().is_none().then_some(entry)
}

/// The words of a line, read one after the other.
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn parsed<T: FromStr>(&mut self) -> Option<T> {
        self.word()?.parse().ok()
    }

    /// `Some(None)` for `-`.
    fn optional<T>(&mut self, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        match self.word()? {
            "-" => Some(None),
            word => read(word).map(Some),
        }
    }

    fn text(&mut self) -> Option<String> {
        unescape(self.word()?)
    }

    fn time(&mut self) -> Option<DateTime<Utc>> {
        time_of(self.word()?)
    }

    fn run(&mut self) -> Option<RunId> {
        self.parsed().map(RunId)
    }

    fn cause(&mut self) -> Option<Cause> {
        Cause::named(self.word()?)
    }

    fn outcome(&mut self) -> Option<Outcome> {
        outcome_of(self.word()?)
    }

    fn millis(&mut self) -> Option<Option<Duration>> {
        self.optional(|word| word.parse().ok().map(Duration::from_millis))
    }

    fn due(&mut self) -> Option<Due> {
        Some(Due { slot: self.time()?, cause: self.cause()?, since: self.time()? })
    }

    fn started(&mut self) -> Option<Started> {
        Some(Started { task: self.text()?, slot: self.time()?, cause: self.cause()?, wall: self.time()? })
    }

    fn session(&mut self) -> Option<Session> {
        Some(Session {
            run: self.optional(|word| word.parse().ok().map(RunId))?,
            task: self.text()?,
            pid: self.parsed()?,
            start: self.parsed()?,
            boot: self.text()?,
        })
    }

    fn task(&mut self) -> Option<Entry> {
        let name = self.text()?;
        let schedule = self.optional(|word| u64::from_str_radix(word, 16).ok())?;
        let mut task = TaskState::new(self.time()?);
        task.schedule = schedule;
        task.from = self.time()?;
        task.last_slot = self.time()?;
        task.before_correction = self.optional(time_of)?;
        task.cut = self.parsed()?;
        task.last_start = self.optional(time_of)?;
        task.last_success = self.optional(time_of)?;
        task.last_outcome = self.optional(outcome_of)?;
        task.failing = self.parsed()?;
        task.stale = self.parsed()?;
        Some(Entry::Kept(name, Box::new(task)))
    }

    fn past(&mut self) -> Option<Past> {
        Some(Past {
            run: self.optional(|word| word.parse().ok().map(RunId))?,
            task: self.text()?,
            slot: self.time()?,
            cause: self.cause()?,
            started: self.optional(time_of)?,
            ended: self.time()?,
            outcome: self.outcome()?,
            exit_code: self.optional(|word| word.parse().ok())?,
            took: self.millis()?,
            attempts: self.parsed()?,
            cut: self.parsed()?,
        })
    }

    fn record(&mut self, kind: &str) -> Option<Record> {
        Some(match kind {
            "begun" => Record::Begun { boot: self.text()?, wall: self.time()? },
            "task" => Record::Task {
                task: self.text()?,
                schedule: u64::from_str_radix(self.word()?, 16).ok()?,
                wall: self.time()?,
            },
            "gone" => Record::Gone { task: self.text()? },
            "due" => Record::Due { task: self.text()?, due: self.due()? },
            "not-run" => Record::NotRun {
                task: self.text()?,
                slot: self.time()?,
                cause: self.cause()?,
                wall: self.time()?,
                outcome: self.outcome()?,
            },
            "started" => Record::Started { run: self.run()?, started: self.started()? },
            "withdrawn" => Record::Withdrawn { run: self.run()? },
            "stale" => Record::Stale { task: self.text()? },
            "session" => Record::Session(self.session()?),
            "session-ended" => Record::SessionEnded { pid: self.parsed()?, start: self.parsed()? },
            "ended" => Record::Ended {
                run: self.run()?,
                outcome: self.outcome()?,
                exit_code: self.optional(|word| word.parse().ok())?,
                wall: self.time()?,
                took: self.millis()?,
                attempts: self.parsed()?,
                cut: self.parsed()?,
            },
            _ => return None,
        })
    }
}

fn outcome_of(word: &str) -> Option<Outcome> {
    match word.split_once(':') {
        Some((name, reason)) => Outcome::parse(name, Some(reason)),
        None => Outcome::parse(word, None),
    }
}

/// The CRC-32 of Ethernet and zip (polynomial 0xedb88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| CRC_TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8))
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn any_text_is_one_word_and_comes_back() {
        for text in ["", "-", "%", "a b", "documents", "ä\n\0", "%41", "--"] {
            let word = escape(text);
            assert!(word.bytes().all(|byte| byte.is_ascii_graphic()) && word != "-", "{word}");
            assert_eq!(unescape(&word).as_deref(), Some(text));
        }
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%ä"), None);
    }

    #[test]
    fn times_far_away_come_back() {
        for seconds in [-62_000_000_000, -1, 0, 1_900_000_000, 253_402_300_800, 8_000_000_000_000] {
            let then = DateTime::from_timestamp(seconds, 123_456_789).expect("within chrono's range");
            assert_eq!(time_of(&time(then)), Some(then));
        }
    }

    #[test]
    fn a_time_reads_as_chrono_reads_it_or_not_at_all() {
        let mut random = Random::new(3);
        let parts = ["2024", "2023", "-", "02", "29", "30", "T", "23", "24", ":", "59", "60", ".", "5", "Z", "+", " "];
        for _ in 0..20_000 {
            let day = DateTime::from_timestamp(random.below(8_000_000_000) as i64, random.below(1_000_000_000) as u32);
            let mut text = time(day.expect("within chrono's range"));
            if random.once_in(2) {
                text = random.mutated(&text, &parts);
            }
            let theirs = text.parse::<DateTime<Utc>>().ok();
            assert_eq!(time_of(&text), theirs, "{text}");
            assert!(usual_time_of(text.as_bytes()).is_none_or(|ours| Some(ours) == theirs), "{text}");
        }
    }
}
