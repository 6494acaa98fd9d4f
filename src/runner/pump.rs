//! What flows between the daemon and one command: its output here, its secrets there.
//!
//! One thread per command does both without ever waiting for one of them alone, so neither a
//! command that reads nothing nor one that prints without end holds anything up. There is none
//! before there is something to do: most secrets fit into their pipes, and many commands are silent.

use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::STACK;
use super::redaction::{Redaction, Valid};
use crate::output::Redactor;
use crate::plan::Wrap;
use crate::secret::Secret;
use crate::sys::{self, Interest, Watched};

/// How long output is still read after its command has ended: a process that stayed behind may
/// hold the pipe open for ever.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// How much a pipe holds, in bytes (pipe(7)): what is there when a command ends is its own.
const PIPE_LEN: usize = 64 * 1024;

/// A secret with the text around it, or a text alone, on its way to a command.
pub struct Outgoing {
    channel: Channel,
    prefix: String,
    secret: Option<Arc<Secret>>,
    suffix: String,
    written: usize,
}

/// What it goes through.
pub enum Channel {
    /// `as: file`.
    Pipe(PipeWriter),
    /// `stdin:`.
    Socket(UnixStream),
}

impl Outgoing {
    pub fn secret(channel: Channel, wrap: Wrap, secret: Arc<Secret>) -> io::Result<Outgoing> {
        sys::set_nonblocking(channel.as_fd())?;
        Ok(Outgoing { channel, prefix: wrap.prefix, secret: Some(secret), suffix: wrap.suffix, written: 0 })
    }

    pub fn text(channel: Channel, text: String) -> io::Result<Outgoing> {
        sys::set_nonblocking(channel.as_fd())?;
        Ok(Outgoing { channel, prefix: text, secret: None, suffix: String::new(), written: 0 })
    }

    /// Writes what the command takes at the moment. False: nothing more is to be written.
    fn advance(&mut self) -> bool {
        loop {
            let mut parts = [
                IoSlice::new(self.prefix.as_bytes()),
                IoSlice::new(self.secret.as_ref().map_or(&[], |secret| secret.expose())),
                IoSlice::new(self.suffix.as_bytes()),
            ];
            let mut rest = &mut parts[..];
            IoSlice::advance_slices(&mut rest, self.written);
            if rest.is_empty() {
                return false;
            }
            let result = match &mut self.channel {
                Channel::Pipe(pipe) => pipe.write_vectored(rest),
                Channel::Socket(socket) => socket.write_vectored(rest),
            };
            match result {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The command has closed its end: it wants no more.
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Channel::Pipe(pipe) => pipe.as_fd(),
            Channel::Socket(socket) => socket.as_fd(),
        }
    }
}

/// A command's output, and where its lines go once they are fit to be seen.
pub struct Intake<'a> {
    output: PipeReader,
    redactor: Redactor,
    /// Those that one read has brought.
    lines: String,
    /// May wait for a reader of the log, so it is called once for each read at most.
    sink: Box<dyn FnMut(&str) + Send + 'a>,
}

/// What to keep out of a command's output, as it is at present.
pub struct Lookout<'a> {
    pub redaction: &'a Redaction,
    pub valid: Arc<Valid>,
    /// The command was given secrets: what it prints after they were wiped is shown to nobody.
    pub has_secrets: bool,
}

impl Lookout<'_> {
    /// Something else is to be looked for. True: all secrets were wiped.
    fn renew(&mut self, intake: Option<&mut Intake<'_>>) -> bool {
        let now = self.redaction.valid();
        let wiped = now.wipes != self.valid.wipes;
        match intake {
            Some(intake) if wiped && self.has_secrets => intake.redactor.withhold(&mut intake.sink),
            Some(intake) => intake.redactor.look_for(now.patterns.clone()),
            None => {}
        }
        self.valid = now;
        wiped
    }
}

/// All that flows.
pub struct Flow<'a> {
    pub intake: Option<Intake<'a>>,
    pub outgoing: Vec<Outgoing>,
    pub lookout: Lookout<'a>,
}

impl Flow<'_> {
    fn output(&self) -> Option<&PipeReader> {
        self.intake.as_ref().map(|intake| &intake.output)
    }

    /// Moves output in and secrets out until the command has ended, which `ended` tells by being closed from the other
    /// side (`None`: it has), and then drains the output: all that it left, and what others print within `drain_time`.
    fn run(self, ended: Option<PipeReader>, drain_time: Duration) {
        let Flow { mut intake, mut outgoing, mut lookout } = self;
        let mut is_open = intake.is_some();
        let mut is_over = false;
        // How many bytes of what it left may be unread, however long the reader of the log takes for the others.
        let mut left: usize = 0;
        // Where it has ended already, nothing is waited for before what is there is read.
        let mut until = ended.is_none().then(Instant::now);
        while !is_over || (is_open && (left > 0 || until.is_none_or(|until| Instant::now() < until))) {
            let output = intake.as_ref().filter(|_| is_open).map(|intake| &intake.output);
            let Ok(ready) = wait(output, &outgoing, &lookout.valid.over, ended.as_ref().filter(|_| !is_over), until)
            else {
                break;
            };
            // Before anything more is read or written.
            if ready.over && lookout.renew(intake.as_mut()) {
                outgoing.clear();
            }
            let count = if ready.output { intake.as_mut().and_then(Intake::read) } else { Some(0) };
            is_open = is_open && count.is_some();
            left = match count {
                None | Some(0) => 0,
                Some(count) => left.saturating_sub(count),
            };
            if !is_over && (ready.ended || ended.is_none()) {
                is_over = true;
                outgoing.clear();
                left = PIPE_LEN;
                until = Some(Instant::now() + drain_time);
            }
            outgoing.retain_mut(Outgoing::advance);
        }
        if let Some(Intake { redactor, mut sink, .. }) = intake {
            redactor.finish(&mut sink);
        }
    }
}

/// Who moves it: nobody yet, or a thread.
pub struct Pump<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// As long as there is no thread.
    flow: Option<Flow<'scope>>,
    /// Closed to tell the thread that the command has ended.
    until_end: Option<PipeWriter>,
}

impl<'scope, 'env> Pump<'scope, 'env> {
    /// Gives the command what it takes at once.
    pub fn new(scope: &'scope Scope<'scope, 'env>, mut flow: Flow<'scope>) -> Self {
        flow.outgoing.retain_mut(Outgoing::advance);
        Pump { scope, flow: Some(flow), until_end: None }
    }

    /// What to watch for as long as there is no thread: one that is ready has something to do.
    pub fn calls(&self) -> impl Iterator<Item = Watched<'_>> {
        let flow = self.flow.iter();
        flow.flat_map(|flow| watched(flow.output(), &flow.outgoing, &flow.lookout.valid.over))
    }

    /// Has a thread for it from now on.
    ///
    /// # Errors
    /// If there is none to be had; nothing is lost then, and it may be tried again.
    pub fn run(&mut self) -> io::Result<()> {
        let (ended, until_end) = io::pipe()?;
        let (hand_over, handed_over) = mpsc::channel::<Flow<'scope>>();
        let work = move || {
            if let Ok(flow) = handed_over.recv() {
                flow.run(Some(ended), DRAIN_TIME);
            }
        };
        thread::Builder::new().stack_size(STACK).spawn_scoped(self.scope, work)?;
        if let Some(flow) = self.flow.take() {
            // It is received, as that is all that the thread begins with.
            let _ = hand_over.send(flow);
            self.until_end = Some(until_end);
        }
        Ok(())
    }

    /// The command has ended. What is left is moved before the scope ends.
    pub fn finish(mut self) {
        drop(self.until_end.take());
        if let Some(flow) = self.flow.take() {
            flow.run(None, DRAIN_TIME);
        }
    }
}

impl<'a> Intake<'a> {
    pub fn new(output: PipeReader, redactor: Redactor, sink: Box<dyn FnMut(&str) + Send + 'a>) -> Self {
        // So that it is never waited for: a command may open its end anew and take out what it has written. Of a pipe
        // that is open this cannot fail (fcntl(2)).
        let _ = sys::set_nonblocking(&output);
        Intake { output, redactor, lines: String::new(), sink }
    }

    fn pass_on(&mut self) {
        if !self.lines.is_empty() {
            (self.sink)(&self.lines);
            self.lines.clear();
        }
    }

    /// Reads once; returns how many bytes were there. `None`: there is no more.
    fn read(&mut self) -> Option<usize> {
        match self.output.read(self.redactor.space()) {
            Ok(0) => None,
            Ok(count) => {
                self.redactor.advance(count, &mut |lines: &str| self.lines.push_str(lines));
                self.pass_on();
                Some(count)
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock).then_some(0),
        }
    }
}

struct Ready {
    over: bool,
    output: bool,
    ended: bool,
}

fn wait(
    output: Option<&PipeReader>,
    outgoing: &[Outgoing],
    over: &PipeReader,
    ended: Option<&PipeReader>,
    until: Option<Instant>,
) -> io::Result<Ready> {
    let is_ended_watched = ended.is_some();
    let ended = ended.iter().map(|ended| Watched::new(ended.as_fd(), Interest::Read));
    let mut watched: Vec<Watched<'_>> = watched(output, outgoing, over).chain(ended).collect();
    let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
    sys::poll(&mut watched, timeout)?;
    let is_ready = |index: usize| watched[index].ready;
    Ok(Ready {
        over: is_ready(0),
        output: output.is_some() && is_ready(1),
        ended: is_ended_watched && is_ready(watched.len() - 1),
    })
}

fn watched<'f>(
    output: Option<&'f PipeReader>,
    outgoing: &'f [Outgoing],
    over: &'f PipeReader,
) -> impl Iterator<Item = Watched<'f>> {
    let read = iter::once(over).chain(output).map(|pipe| Watched::new(pipe.as_fd(), Interest::Read));
    read.chain(outgoing.iter().map(|outgoing| Watched::new(outgoing.channel.as_fd(), Interest::Write)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::output::Patterns;
    use crate::secret::{Protection, protect};

    fn intake<'a>(output: PipeReader, lines: &'a std::sync::Mutex<String>) -> Intake<'a> {
        let arena = protect(Protection::Locked).expect("locked memory").arena;
        let patterns = Arc::new(Patterns::new(arena, Vec::new()).expect("patterns"));
        let sink = Box::new(|text: &str| lines.lock().expect("lines").push_str(text));
        Intake::new(output, Redactor::new(arena, patterns), sink)
    }

    #[test]
    fn all_that_a_command_left_is_read_however_little_time_there_is() {
        let redaction = Redaction::new().expect("pipes");
        let text = "a line\n".repeat(PIPE_LEN / 7);
        for (stays_open, has_thread) in [(true, false), (false, false), (true, true), (false, true)] {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let lines = std::sync::Mutex::new(String::new());
            writer.write_all(text.as_bytes()).expect("room");
            // A process that stayed behind may hold it open.
            let kept = stays_open.then_some(writer);
            let lookout = Lookout { redaction: &redaction, valid: redaction.valid(), has_secrets: false };
            let flow = Flow { intake: Some(intake(reader, &lines)), outgoing: Vec::new(), lookout };
            let ended = has_thread.then(|| io::pipe().expect("a pipe").0);
            flow.run(ended, Duration::ZERO);
            assert_eq!(*lines.lock().expect("lines"), text, "{stays_open} {has_thread}");
            drop(kept);
        }
    }

    #[test]
    fn output_that_somebody_else_took_is_not_waited_for() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let lines = std::sync::Mutex::new(String::new());
        let mut intake = intake(reader, &lines);
        assert_eq!(intake.read(), Some(0), "there may be more");
        writer.write_all(b"a line\n").expect("room");
        assert_eq!(intake.read(), Some(7));
        drop(writer);
        assert_eq!(intake.read(), None, "the end");
        drop(intake);
        assert_eq!(lines.into_inner().expect("lines"), "a line\n");
    }
}
