//! The lines of the ledger: `CRC EPOCH.INDEX WORDS…`, text that a person can read.
//!
//! The CRC-32 covers all behind it. The epoch counts the syncs before the line was written, the
//! index the lines since the last one: they tell what a power cut may have torn from damage.

use std::fmt::{self, Display, Formatter, Write as _};
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

/// How many digits a line's CRC has.
const SUM_LEN: usize = 8;

/// Appends a line, with its end, to `out`: an entry, or a record alone.
pub fn write(out: &mut String, epoch: u64, index: u64, entry: &dyn Display) {
    let start = out.len();
    let _ = write!(out, "{:SUM_LEN$} {epoch}.{index} {entry}", "");
    let (sum, body) = (start..start + SUM_LEN, start + SUM_LEN + 1);
    let digits = format!("{:08x}", crc32(&out.as_bytes()[body..]));
    out.replace_range(sum, &digits);
    out.push('\n');
}

impl Line {
    /// Reads a line, given without its end; `None` if it is not whole.
    pub fn read(line: &[u8]) -> Option<Line> {
        let line = std::str::from_utf8(line).ok()?;
        let (sum, body) = line.split_once(' ')?;
        if sum.len() != SUM_LEN || u32::from_str_radix(sum, 16).ok()? != crc32(body.as_bytes()) {
            return None;
        }
        let (place, words) = body.split_once(' ')?;
        let (epoch, index) = place.split_once('.')?;
        Some(Line { epoch: epoch.parse().ok()?, index: index.parse().ok()?, entry: entry_of(words)? })
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Header => f.write_str(HEADER),
            Entry::Next(run) => write!(f, "next {run}"),
            Entry::Boot(boot) => write!(f, "boot {}", Word(boot)),
            Entry::Kept(name, task) => write!(f, "kept {} {task}", Word(name)),
            Entry::Pending(name, due) => write!(f, "pending {} {due}", Word(name)),
            Entry::Running(run, started) => write!(f, "running {run} {started}"),
            Entry::Survivor(session) => write!(f, "survivor {session}"),
            Entry::Past(past) => write!(f, "past {past}"),
            Entry::Ready => f.write_str("ready"),
            Entry::Record(record) => record.fmt(f),
        }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Record::Begun { boot, wall } => write!(f, "begun {} {}", Word(boot), Time(*wall)),
            Record::Task { task, schedule, wall } => {
                write!(f, "task {} {schedule:016x} {}", Word(task), Time(*wall))
            }
            Record::Gone { task } => write!(f, "gone {}", Word(task)),
            Record::Due { task, due } => write!(f, "due {} {due}", Word(task)),
            Record::NotRun { task, slot, cause, wall, outcome } => {
                let (task, slot, cause, wall) = (Word(task), Time(*slot), cause.name(), Time(*wall));
                write!(f, "not-run {task} {slot} {cause} {wall} {}", Ending(*outcome))
            }
            Record::Started { run, started } => write!(f, "started {run} {started}"),
            Record::Withdrawn { run } => write!(f, "withdrawn {run}"),
            Record::Stale { task } => write!(f, "stale {}", Word(task)),
            Record::Session(session) => write!(f, "session {session}"),
            Record::SessionEnded { pid, start } => write!(f, "session-ended {pid} {start}"),
            Record::Ended { run, outcome, exit_code, wall, took, attempts, cut } => {
                let (outcome, code, wall, took) =
                    (Ending(*outcome), Optional(*exit_code), Time(*wall), Optional(took.map(|took| took.as_millis())));
                write!(f, "ended {run} {outcome} {code} {wall} {took} {attempts} {cut}")
            }
        }
    }
}

/// Without its name, its due run and its past.
impl Display for TaskState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.schedule {
            Some(schedule) => write!(f, "{schedule:016x}")?,
            None => f.write_str(NONE)?,
        }
        write!(
            f,
            " {} {} {} {} {} {} {} {} {} {}",
            Time(self.first_seen),
            Time(self.from),
            Time(self.last_slot),
            Optional(self.before_correction.map(Time)),
            self.cut,
            Optional(self.last_start.map(Time)),
            Optional(self.last_success.map(Time)),
            Optional(self.last_outcome.map(Ending)),
            self.failing,
            self.stale,
        )
    }
}

impl Display for Past {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} {} {} {} {} {}",
            Optional(self.run),
            Word(&self.task),
            Time(self.slot),
            self.cause.name(),
            Optional(self.started.map(Time)),
            Time(self.ended),
            Ending(self.outcome),
            Optional(self.exit_code),
            Optional(self.took.map(|took| took.as_millis())),
            self.attempts,
            self.cut,
        )
    }
}

impl Display for Due {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Time(self.slot), self.cause.name(), Time(self.since))
    }
}

impl Display for Started {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", Word(&self.task), Time(self.slot), self.cause.name(), Time(self.wall))
    }
}

impl Display for Session {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (run, task, boot) = (Optional(self.run), Word(&self.task), Word(&self.boot));
        write!(f, "{run} {task} {} {} {boot}", self.pid, self.start)
    }
}

/// An outcome with its reason.
struct Ending(Outcome);

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())?;
        self.0.reason().map_or(Ok(()), |reason| write!(f, ":{}", reason.name()))
    }
}

struct Time(DateTime<Utc>);

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// The word for a value that is not there.
const NONE: &str = "-";

struct Optional<T>(Option<T>);

impl<T: Display> Display for Optional<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NONE),
        }
    }
}

/// A text as one word: printable ASCII, `%XX` for all other bytes, never empty and never `-`.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Word(text) = *self;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
        if text.is_empty() {
            f.write_str("%")
        } else if text != NONE && text.bytes().all(is_plain) {
            f.write_str(text)
        } else {
            text.bytes().try_for_each(|byte| match byte {
                byte if is_plain(byte) && text != NONE => f.write_char(char::from(byte)),
                byte => write!(f, "%{byte:02x}"),
            })
        }
    }
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
            NONE => Some(None),
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
            let word = Word(text).to_string();
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
            assert_eq!(time_of(&Time(then).to_string()), Some(then));
        }
    }

    #[test]
    fn a_time_reads_as_chrono_reads_it_or_not_at_all() {
        let mut random = Random::new(3);
        let parts = ["2024", "2023", "-", "02", "29", "30", "T", "23", "24", ":", "59", "60", ".", "5", "Z", "+", " "];
        for _ in 0..20_000 {
            let day = DateTime::from_timestamp(random.below(8_000_000_000) as i64, random.below(1_000_000_000) as u32);
            let mut text = Time(day.expect("within chrono's range")).to_string();
            if random.once_in(2) {
                text = random.mutated(&text, &parts);
            }
            let theirs = text.parse::<DateTime<Utc>>().ok();
            assert_eq!(time_of(&text), theirs, "{text}");
            assert!(usual_time_of(text.as_bytes()).is_none_or(|ours| Some(ours) == theirs), "{text}");
        }
    }
}
