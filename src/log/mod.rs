//! Lines on stderr: one event, one line, for people or for machines.
//!
//! A line that cannot be written is dropped: losing stderr must never stop a backup. Nothing
//! secret comes here; values that came from outside are escaped.

mod journal;
mod writer;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use chrono::{Local, SecondsFormat, Utc};

use crate::error::{Error, printable};

pub use writer::{finish, start};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    Text,
    Json,
}

/// The process's one log. Set once the configuration is known; until then it is text at `info`.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);
/// Whether a person looks on: lines are shorter then.
static ON_TERMINAL: AtomicBool = AtomicBool::new(false);

pub fn configure(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
    ON_TERMINAL.store(std::io::stderr().is_terminal(), Ordering::Relaxed);
}

fn on_terminal() -> bool {
    ON_TERMINAL.load(Ordering::Relaxed)
}

pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// A value of a field: names and numbers, never a secret.
pub type Field<'a> = (&'static str, &'a dyn fmt::Display);

/// Writes one event with its fields (`task`, `run`, `step`, …) in the order given.
pub fn event(level: Level, message: &str, fields: &[Field<'_>]) {
    if !enabled(level) {
        return;
    }
    writer::write(line(level, message, fields));
}

/// What the journal reads a line's priority from, sd-daemon(3); it has times of its own.
fn priority(level: Level) -> &'static str {
    match level {
        _ if !journal::reads_stderr() => "",
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

fn line(level: Level, message: &str, fields: &[Field<'_>]) -> String {
    if is_json() { json_line(level, message, fields) } else { text_line(level, message, fields) }
}

fn is_json() -> bool {
    FORMAT.load(Ordering::Relaxed) == Format::Json as u8
}

pub fn error(message: &str, fields: &[Field<'_>]) {
    event(Level::Error, message, fields);
}

pub fn warn(message: &str, fields: &[Field<'_>]) {
    event(Level::Warn, message, fields);
}

pub fn info(message: &str, fields: &[Field<'_>]) {
    event(Level::Info, message, fields);
}

pub fn debug(message: &str, fields: &[Field<'_>]) {
    event(Level::Debug, message, fields);
}

/// Warnings that were found together, in one write: each may wake whoever reads the log.
pub fn warnings(warnings: &[Error]) {
    if warnings.is_empty() || !enabled(Level::Warn) {
        return;
    }
    let lines = warnings.iter().map(|warning| match &warning.hint {
        Some(hint) => line(Level::Warn, &warning.to_string(), &[("hint", hint)]),
        None => line(Level::Warn, &warning.to_string(), &[]),
    });
    writer::write(lines.collect());
}

/// From now on a panic is told by its place alone: what it says may be made of data.
pub fn report_panics() {
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location().map_or("nowhere".to_owned(), ToString::to_string);
        error("a panic; this is a defect of backupnizza", &[("place", &place)]);
    }));
}

/// The message of a command line's end: `backupnizza: error: OBJECT: what`, and its hint below.
pub fn complain(error: &Error) {
    say(Level::Error, "error", error);
}

/// As `complain`, of what is legal but surely not meant.
pub fn caution(warning: &Error) {
    say(Level::Warn, "warning", warning);
}

fn say(level: Level, kind: &str, error: &Error) {
    let head = priority(level);
    let mut text = format!("{head}backupnizza: {kind}: {error}\n");
    if let Some(hint) = &error.hint {
        let _ = writeln!(text, "{head}backupnizza: hint: {}", printable(hint));
    }
    writer::write(text);
}

/// A line that the tool of a source said: as it is for people, who know their tool's words; whatever `log.level` is,
/// since it may ask for something.
pub fn quote(secret: &str, said: &str) {
    if is_json() {
        writer::write(line(Level::Info, "a source says", &[("secret", &secret), ("line", &said)]));
    } else {
        writer::write(format!("{}{said}\n", priority(Level::Info)));
    }
}

/// Writes lines of a command's output, each ended by a line feed and fit to be shown, as events
/// that share a time and their fields.
pub fn output(lines: &str, fields: &[Field<'_>]) {
    if !enabled(Level::Info) {
        return;
    }
    let is_json = is_json();
    // For people the fields stand before the text, so that a command's tables keep their columns.
    let (head, tail) = match is_json {
        true => (json_head(Level::Info), json_tail(fields)),
        false if on_terminal() => (text_time() + " " + &whose(fields) + " | ", String::new()),
        false => (text_head(Level::Info) + text_fields(fields).trim_start() + " | ", String::new()),
    };
    let mut text = String::with_capacity(lines.len() + (head.len() + tail.len()) * 8);
    for line in lines.split_inclusive('\n') {
        text.push_str(&head);
        if is_json {
            text.push_str(&escape_json(line.trim_end_matches('\n')));
            text.push_str(&tail);
        } else {
            text.push_str(line);
        }
    }
    writer::write_output(text);
}

fn text_line(level: Level, message: &str, fields: &[Field<'_>]) -> String {
    text_head(level) + &printable(message) + &text_fields(fields) + "\n"
}

fn text_head(level: Level) -> String {
    if journal::reads_stderr() {
        return format!("{}{:<5} ", priority(level), level.name());
    }
    format!("{} {:<5} ", text_time(), level.name())
}

fn text_time() -> String {
    let now = Local::now();
    if on_terminal() { now.format("%H:%M:%S").to_string() } else { now.to_rfc3339_opts(SecondsFormat::Millis, false) }
}

/// `documents/restic`: which task and step printed something.
fn whose(fields: &[Field<'_>]) -> String {
    let names = fields.iter().filter(|(key, _)| matches!(*key, "task" | "step")).map(|(_, value)| value.to_string());
    names.collect::<Vec<_>>().join("/")
}

fn text_fields(fields: &[Field<'_>]) -> String {
    let (mut line, mut value) = (String::new(), String::new());
    for (key, field) in fields {
        value.clear();
        let _ = write!(value, "{field}");
        let plain = !value.is_empty() && !value.contains([' ', '"', '=']) && !value.chars().any(char::is_control);
        let _ = if plain { write!(line, " {key}={value}") } else { write!(line, " {key}=\"{}\"", escape_json(&value)) };
    }
    line
}

fn json_line(level: Level, message: &str, fields: &[Field<'_>]) -> String {
    json_head(level) + &escape_json(message) + &json_tail(fields)
}

fn json_head(level: Level) -> String {
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    format!("{}{{\"time\":\"{time}\",\"level\":\"{}\",\"message\":\"", priority(level), level.name())
}

fn json_tail(fields: &[Field<'_>]) -> String {
    let mut line = String::from("\"");
    for (key, value) in fields {
        let _ = write!(line, ",\"{key}\":\"{}\"", escape_json(&value.to_string()));
    }
    line.push_str("}\n");
    line
}

/// `text` as the inside of a JSON string (RFC 8259, section 7).
pub fn escape_json(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(escaped, "\\u{:04x}", c as u32);
            }
            c => escaped.push(c),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    #[ignore = "the process that the test below starts"]
    fn panicking() {
        super::report_panics();
        panic!("{}", ["hunter", "2"].concat());
    }

    #[test]
    fn a_panic_is_told_without_what_it_says() {
        let mut process = Command::new(std::env::current_exe().expect("this program"));
        let output = process.args(["--exact", "log::tests::panicking", "--ignored", "--nocapture"]).output();
        let said = String::from_utf8(output.expect("this program").stderr).expect("text");
        assert!(said.contains("error a panic; this is a defect of backupnizza place=src/log/mod.rs:"), "{said}");
        assert!(!said.contains("hunter"), "{said}");
    }
}
