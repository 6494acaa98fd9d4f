//! Asks each password manager once.
//!
//! `ask` has the branches, a file beside it does the work for each kind of source. A value goes
//! from where it comes straight into protected memory; neither it nor what the configuration
//! says about it (a reference, an argument) is repeated in a message, but for the path of a file.

mod file;
mod prompt;
mod tool;
mod variable;
mod words;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::str;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::plan::{SecretSpec, Source};
use crate::secret::{self, ReadError, SECRET_MAX, Secret};
use crate::sys::Arena;

pub use variable::Variables;

/// Shorter values are not redacted from output: they would blacken half of it.
const REDACTED_MIN: usize = 6;

/// How often a wait for a tool or a person looks whether it has been called off, or whether the
/// tool has ended though its pipe is still open.
const LOOK: Duration = Duration::from_millis(100);

/// What sources need to know of the process around them.
pub struct Surroundings<'a> {
    /// The values of `env:` sources, taken out of the environment when the process started.
    pub variables: &'a Variables,
    /// `$CREDENTIALS_DIRECTORY`, where it is set.
    pub credentials: Option<PathBuf>,
    /// Set by another thread or a signal handler: no answer is wanted any more.
    pub stop: &'a AtomicBool,
}

/// What a source gave, and what is odd about it.
#[derive(Debug)]
pub struct Answer {
    pub secret: Secret,
    pub warnings: Vec<Error>,
}

/// Why a source gave nothing.
#[derive(Debug)]
pub struct Failure {
    pub kind: FailureKind,
    pub error: Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It stays as it is until somebody changes the configuration or what it names: no such
    /// program, a file that others may read, a variable or credential that was not given, an
    /// answer that is empty or too long, `prompt` without a terminal.
    Wrong,
    /// Asked again later it may answer: a locked keyring, no network, a drive not yet mounted,
    /// a person who was away.
    Unavailable,
    /// It was called off: by `Surroundings::stop`, or by a signal or key at a prompt.
    Stopped,
}

/// Asks the source of `spec` and waits for its answer, at most `spec.timeout` for a tool or a
/// person. `program` is the resolved path of the source's program, `None` where it was not found.
pub fn ask(
    spec: &SecretSpec,
    program: Option<&Path>,
    around: &Surroundings<'_>,
    arena: &'static Arena,
) -> Result<Answer, Failure> {
    let object = format!("secret {}", spec.name);
    match ask_source(spec, program, around, arena) {
        Ok((secret, found)) => {
            let remarks = found.into_iter().chain(remarks_on(secret.expose()));
            let warnings = remarks.map(|remark| remark.about(&object)).collect();
            Ok(Answer { secret, warnings })
        }
        Err(reason) => Err(Failure { kind: reason.kind, error: reason.remark.about(&object) }),
    }
}

fn ask_source(
    spec: &SecretSpec,
    program: Option<&Path>,
    around: &Surroundings<'_>,
    arena: &'static Arena,
) -> Result<(Secret, Option<Remark>), Reason> {
    let patience = Patience::new(spec.timeout, around.stop);
    let run = |arguments: &[&str]| {
        let program = program.ok_or_else(|| Reason::wrong("there is no such program"))?;
        tool::ask(&spec.name, program, arguments, around.variables, &patience, arena)
    };
    let only = |secret| (secret, None);
    match &spec.source {
        Source::Command { arguments, .. } => run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).map(only),
        // A reference begins with `op://`, so it is never taken for an option.
        Source::OnePassword { reference, .. } => run(&["read", "--no-newline", reference]).map(only),
        Source::Keychain { service, account, .. } => {
            let secret = run(&keychain_arguments(service, account.as_deref()))?;
            let remark = hex_remark(arena, secret.expose())?;
            Ok((secret, remark))
        }
        Source::SecretService { attributes, .. } => {
            let pairs = attributes.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
            run(&["lookup", "--"].into_iter().chain(pairs).collect::<Vec<_>>()).map(only)
        }
        Source::Env(name) => around.variables.value(name, arena).map(only),
        Source::File(path) => file::ask(path, arena),
        Source::Credential(name) => file::ask_credential(around.credentials.as_deref(), name, arena).map(only),
        Source::Prompt(text) => prompt::ask(text, &patience, arena).map(only),
    }
}

fn keychain_arguments<'a>(service: &'a str, account: Option<&'a str>) -> Vec<&'a str> {
    let mut arguments = vec!["find-generic-password", "-s", service];
    arguments.extend(account.into_iter().flat_map(|account| ["-a", account]));
    arguments.push("-w");
    arguments
}

/// What is odd about a value, and legal.
fn remarks_on(value: &[u8]) -> impl Iterator<Item = Remark> {
    let trimmed = match str::from_utf8(value) {
        Ok(text) => text.trim().len(),
        Err(_) => value.trim_ascii().len(),
    };
    let blanks = (trimmed < value.len())
        .then(|| Remark::new("begins or ends with blanks or line endings, which restic and others take away"));
    let short = (value.len() < REDACTED_MIN)
        .then(|| Remark::new(format!("shorter than {REDACTED_MIN} bytes, so it is not redacted from output")));
    blanks.into_iter().chain(short)
}

/// `security … -w` prints a password as lower-case hexadecimal digits, and does not say so, once
/// it holds anything but printable ASCII (SecurityTool, keychain_find.c; negative bytes as
/// `ffffffXX` where it prints them as C's `char`). A password may be made of such digits itself,
/// so that is never undone, only pointed out where the digits spell a text.
fn hex_remark(arena: &'static Arena, value: &[u8]) -> Result<Option<Remark>, Reason> {
    if !value.len().is_multiple_of(2) || !value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(None);
    }
    let mut spelled =
        arena.block(value.len() / 2).map_err(|error| ReadError::Memory(error).into_reason("the answer"))?;
    for (byte, digits) in spelled.iter_mut().zip(value.chunks_exact(2)) {
        *byte =
            digits.iter().fold(0, |sum, &digit| sum * 16 + if digit > b'9' { digit - b'a' + 10 } else { digit - b'0' });
    }
    let text = str::from_utf8(&spelled).is_ok_and(|text| text.chars().any(|c| c.is_control() || !c.is_ascii()));
    let negative = value.windows(6).any(|digits| digits == b"ffffff");
    Ok((text || negative).then(|| {
        Remark::new("looks like the hexadecimal form in which security prints what is not plain ASCII")
            .hint("if so, give the keychain item a password of printable ASCII characters")
    }))
}

/// How long to wait for a source, and whether its answer is still wanted.
struct Patience<'a> {
    limit: Option<Duration>,
    until: Option<Instant>,
    stop: &'a AtomicBool,
}

/// Why a wait has ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Timeout,
    Stopped,
}

impl<'a> Patience<'a> {
    /// A limit beyond what the clock can tell is none.
    fn new(limit: Option<Duration>, stop: &'a AtomicBool) -> Self {
        Patience { limit, until: limit.and_then(|limit| Instant::now().checked_add(limit)), stop }
    }

    fn over(&self) -> Option<Over> {
        if self.stop.load(Ordering::Relaxed) {
            Some(Over::Stopped)
        } else {
            self.until.is_some_and(|until| Instant::now() >= until).then_some(Over::Timeout)
        }
    }

    /// How long to wait before looking again, `LOOK` at most.
    fn pause(&self) -> Duration {
        self.until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()).min(LOOK))
    }

    /// The reason why `who` gave nothing.
    fn reason(&self, over: Over, who: &str) -> Reason {
        match over {
            Over::Stopped => Reason::stopped(),
            Over::Timeout => {
                let seconds = self.limit.unwrap_or_default().as_secs_f64();
                Reason::unavailable(format!("{who} gave no answer within {seconds} s"))
            }
        }
    }
}

/// Something to say of a secret: an `Error` whose object is still to come.
#[derive(Debug)]
struct Remark {
    what: String,
    hint: Option<String>,
}

impl Remark {
    fn new(what: impl Into<String>) -> Remark {
        Remark { what: what.into(), hint: None }
    }

    fn hint(self, hint: impl Into<String>) -> Remark {
        Remark { hint: Some(hint.into()), ..self }
    }

    fn about(self, object: &str) -> Error {
        Error { object: object.to_owned(), what: self.what, hint: self.hint }
    }
}

/// A `Failure` whose object is still to come.
#[derive(Debug)]
struct Reason {
    kind: FailureKind,
    remark: Remark,
}

impl Reason {
    fn wrong(what: impl Into<String>) -> Reason {
        Reason { kind: FailureKind::Wrong, remark: Remark::new(what) }
    }

    fn unavailable(what: impl Into<String>) -> Reason {
        Reason { kind: FailureKind::Unavailable, remark: Remark::new(what) }
    }

    fn stopped() -> Reason {
        Reason { kind: FailureKind::Stopped, remark: Remark::new("interrupted while it was asked for") }
    }

    fn hint(self, hint: impl Into<String>) -> Reason {
        Reason { remark: self.remark.hint(hint), ..self }
    }
}

impl ReadError {
    /// The reason why what `who` gave is no value.
    fn into_reason(self, who: &str) -> Reason {
        match self {
            ReadError::Empty => Reason::wrong(format!("{who} is empty")),
            ReadError::TooLong => Reason::wrong(format!("{who} is longer than {} KiB", SECRET_MAX / 1024)),
            ReadError::Io(error) => Reason::unavailable(format!("{who} cannot be read: {error}")),
            ReadError::Memory(error) => {
                let error = secret::no_memory(&error);
                let reason = Reason::unavailable(error.what);
                error.hint.into_iter().fold(reason, Reason::hint)
            }
        }
    }
}

/// When to ask again for what is unavailable: after 10 s, doubling to 10 min.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(10 * 60);

    pub fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// How long to wait after one more failure.
    pub fn after_failure(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(Backoff::LONGEST);
        delay
    }
}
