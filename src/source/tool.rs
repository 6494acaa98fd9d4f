//! Sources that are programs: what one prints on standard output is the value.
//!
//! The tool runs in this process's session, process group and terminal (1Password grants a
//! terminal session), with its standard input and environment. What it says on standard error
//! is passed on as it comes if that is a terminal, for it may ask something there; else it is logged
//! at its end, without the answer. Its last line goes into the message if it fails.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGTERM;
use signal_hook::low_level::signal_name;

use crate::log;
use crate::secret::{ReadError, Secret, read_value};
use crate::sys::{self, Arena, Interest, TerminalModes, Watched};

use super::words::Words;
use super::{LOOK, Over, Patience, Reason, Variables};

/// How long a tool that has ended may be outlived by something that keeps its pipe open, an
/// agent that it started, say.
const LINGER: Duration = Duration::from_millis(500);

/// How long a tool gets to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Asks `program`; `secret` is the name of what it is to give.
pub(super) fn ask(
    secret: &str,
    program: &Path,
    arguments: &[&str],
    hidden: &Variables,
    patience: &Patience<'_>,
    arena: &'static Arena,
) -> Result<Secret, Reason> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let words = Words::new(arena).map_err(|error| ReadError::Memory(error).into_reason("its tool"))?;
    let mut tool = Tool::start(program, arguments, hidden, patience, words)
        .map_err(|error| cannot_start(&name, program, &error))?;
    let answer = read_value(arena, &mut tool);
    if let Err(ReadError::TooLong | ReadError::Memory(_) | ReadError::Io(_)) = answer {
        tool.end();
    }
    let status = tool.wait();
    let words = tool.tell(secret, &answer);
    // Ctrl-C goes to the tool as well, which may be the first to end.
    let called_off = patience.over().filter(|&over| over == Over::Stopped);
    if let Some(over) = tool.over.or(called_off) {
        return Err(patience.reason(over, &name));
    }
    match (answer, status) {
        (Ok(_) | Err(ReadError::Empty), Ok(status)) if !status.success() => {
            Err(failed(&name, status, words.last().map_or("", String::as_str)))
        }
        (_, Err(error)) => Err(Reason::unavailable(format!("{name} cannot be waited for: {error}"))),
        (answer, Ok(_)) => answer.map_err(|error| error.into_reason(&format!("the answer of {name}"))),
    }
}

/// A tool that is being asked.
struct Tool<'a> {
    child: Child,
    /// Until its end.
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    words: Words,
    patience: &'a Patience<'a>,
    /// Why it was given up.
    over: Option<Over>,
    ended: Option<(ExitStatus, Instant)>,
    terminal: Option<TerminalModes>,
}

impl<'a> Tool<'a> {
    fn start(
        program: &Path,
        arguments: &[&str],
        hidden: &Variables,
        patience: &'a Patience<'a>,
        words: Words,
    ) -> io::Result<Tool<'a>> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in hidden.names() {
            command.env_remove(name);
        }
        let terminal = TerminalModes::keep();
        let mut child = command.spawn()?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        Ok(Tool { child, output, errors, words, patience, over: None, ended: None, terminal })
    }

    /// Waits up to `pause` for output, and passes on what comes on standard error meanwhile. Says
    /// whether there is output to read.
    fn listen(&mut self, pause: Duration) -> io::Result<bool> {
        let output = self.output.as_ref().map(|pipe| Watched::new(pipe.as_fd(), Interest::Read));
        let errors = self.errors.as_ref().map(|pipe| Watched::new(pipe.as_fd(), Interest::Read));
        let expected = output.is_some();
        let mut watched: Vec<Watched<'_>> = output.into_iter().chain(errors).collect();
        sys::poll(&mut watched, Some(pause))?;
        let ready = expected && watched[0].ready;
        if self.errors.is_some() && watched.last().is_some_and(|pipe| pipe.ready) {
            self.pass_on();
        }
        Ok(ready)
    }

    fn pass_on(&mut self) {
        let Some(pipe) = &mut self.errors else { return };
        match pipe.read(self.words.space()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => self.errors = None,
            Ok(count) => {
                let heard = self.words.hear(count);
                if io::stderr().is_terminal() {
                    let _ = io::stderr().write_all(heard);
                }
            }
        }
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?.map(|status| (status, Instant::now()));
        }
        Ok(self.ended.is_some())
    }

    /// Waits for its end, but no longer than there is patience; then it is ended.
    fn wait(&mut self) -> io::Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        while !self.has_ended()? {
            self.over = self.over.or(self.patience.over());
            if self.over.is_some() {
                self.end();
                break;
            }
            self.listen(pause.min(self.patience.pause()))?;
            pause = (pause * 2).min(LOOK);
        }
        self.hear_last_words();
        let status = self.ended.map_or_else(|| self.child.wait(), |(status, _)| Ok(status))?;
        if status.code().is_none() {
            self.restore_terminal();
        }
        Ok(status)
    }

    /// What it had written to standard error when it ended. Others may hold the pipe open and go
    /// on writing, which is not waited for.
    fn hear_last_words(&mut self) {
        self.output = None;
        let until = Instant::now() + LINGER;
        while let Some(pipe) = &self.errors
            && Instant::now() < until
        {
            let mut watched = [Watched::new(pipe.as_fd(), Interest::Read)];
            if sys::poll(&mut watched, Some(Duration::ZERO)).is_err() || !watched[0].ready {
                break;
            }
            self.pass_on();
        }
        // Whatever comes next on our standard error begins a line.
        if self.words.ends_within_line() && io::stderr().is_terminal() {
            let _ = io::stderr().write_all(b"\n");
        }
    }

    /// Logs its words, unless they stand on a terminal already, and returns them: without the answer,
    /// or not at all where that is not known.
    fn tell(&self, secret: &str, answer: &Result<Secret, ReadError>) -> Vec<String> {
        let lines = match answer {
            Ok(answer) => self.words.lines(answer.expose(), &format!("[secret {secret}]")),
            Err(ReadError::Empty) => self.words.lines(b"", ""),
            Err(_) => Vec::new(),
        };
        if !io::stderr().is_terminal() {
            lines.iter().for_each(|line| log::quote(secret, line));
        }
        lines
    }

    /// Asks it to end, then makes it. It may have been asking something without echo.
    fn end(&mut self) {
        self.output = None;
        let until = Instant::now() + GRACE;
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = sys::kill_process(pid, SIGTERM);
        }
        while matches!(self.has_ended(), Ok(false)) && Instant::now() < until {
            let _ = self.listen(LOOK / 10);
        }
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok().map(|status| (status, Instant::now()));
        }
        self.restore_terminal();
    }

    fn restore_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
    }
}

/// Its standard output, up to its end or the end of patience: what came by then is no answer, but
/// tells what is not to be shown.
impl Read for Tool<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.over = self.patience.over();
            if self.over.is_some() {
                return Ok(0);
            }
            let ready = self.listen(self.patience.pause())?;
            let Some(output) = &mut self.output else { return Ok(0) };
            if ready {
                return output.read(buffer);
            }
            self.has_ended()?;
            if self.ended.is_some_and(|(_, when)| when.elapsed() >= LINGER) {
                return Ok(0);
            }
        }
    }
}

/// However this goes, no tool is left behind.
impl Drop for Tool<'_> {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.end();
        }
    }
}

/// Most of what keeps a program from starting stays so; a lack of processes or memory passes.
fn cannot_start(name: &str, program: &Path, error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::NotFound if program.exists() => {
            Reason::wrong(format!("{name} cannot be started: there is no such interpreter as it names"))
        }
        io::ErrorKind::NotFound => Reason::wrong(format!("there is no such program: {name}")),
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::ExecutableFileBusy => {
            Reason::unavailable(format!("{name} cannot be started now: {error}"))
        }
        _ => Reason::wrong(format!("{name} cannot be started: {error}")),
    }
}

fn failed(name: &str, status: ExitStatus, words: &str) -> Reason {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal} ({})", signal_name(signal).unwrap_or("unnamed")),
        (None, None) => "did not end as a program does".to_owned(),
    };
    let what = if words.is_empty() { format!("{name} {end}") } else { format!("{name} {end}: {words}") };
    let reason = Reason::unavailable(what);
    hint(name, status.code(), words).into_iter().fold(reason, Reason::hint)
}

/// What to do about the failure of a tool that is known by its name.
///
/// `op` says why it failed. `secret-tool` exits with 1 and says nothing both when there is no such
/// item and when its keyring stays locked. `security` exits with the low byte of an OSStatus: 36
/// for errSecInteractionNotAllowed, 44 for errSecItemNotFound, 51 for errSecAuthFailed, 128 for
/// userCanceledErr.
fn hint(name: &str, code: Option<i32>, words: &str) -> Option<&'static str> {
    let says = |text: &str| words.to_ascii_lowercase().contains(text);
    match (name, code?) {
        ("op", _) if words.is_empty() || says("sign") || says("session") || says("authoriz") || says("desktop app") => {
            Some("run `op signin` or unlock 1Password, then try again")
        }
        ("security", 44) => Some("`security add-generic-password -s SERVICE -a ACCOUNT -w` adds the item"),
        ("security", 36 | 51) => Some("`security unlock-keychain` unlocks it"),
        ("security", 128) => Some("allow the access when macOS asks for it"),
        ("secret-tool", _) if words.is_empty() => Some(
            "unlock the keyring; `secret-tool search` with the same attributes tells whether there is such an item",
        ),
        ("secret-tool", _) if says("d-bus") || says("dbus") || says("secrets") => {
            Some("start backupnizza in a session with a D-Bus and a keyring, so that DBUS_SESSION_BUS_ADDRESS is set")
        }
        ("pass" | "gopass" | "gpg", _) if words.starts_with("gpg: ") => {
            Some("gpg-agent may be unable to ask: `export GPG_TTY=$(tty)`, or unlock the key before the start")
        }
        _ => None,
    }
}
