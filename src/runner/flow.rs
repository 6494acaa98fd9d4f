//! What flows between the daemon and one command: its output here, its secrets there.
//!
//! Both are moved together with the wait for the command's end, and none of it is ever waited for
//! alone, so neither a command that reads nothing nor one that prints without end holds anything up.

use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::redaction::{Redaction, Valid};
use crate::output::Redactor;
use crate::plan::Wrap;
use crate::secret::Secret;
use crate::sys::{self, Interest, Watched};

/// How long output is still read after its command has ended: a process that stayed behind may
/// hold the pipe open for ever.
const DRAIN_TIME: Duration = Duration::from_secs(2);

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
    intake: Option<Intake<'a>>,
    /// More output may come.
    is_open: bool,
    outgoing: Vec<Outgoing>,
    lookout: Lookout<'a>,
}

/// What else is waited for.
#[derive(Clone, Copy, Default)]
pub struct Signs<'fd> {
    /// The command's end.
    pub exit: Option<BorrowedFd<'fd>>,
    /// Something for the one who watches it.
    pub orders: Option<BorrowedFd<'fd>>,
}

/// What of it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub exit: bool,
    pub orders: bool,
}

impl<'a> Flow<'a> {
    pub fn new(intake: Option<Intake<'a>>, outgoing: Vec<Outgoing>, lookout: Lookout<'a>) -> Self {
        Flow { is_open: intake.is_some(), intake, outgoing, lookout }
    }

    /// Waits until something can be moved, one of `signs` has come or `until` has passed, and moves what there is.
    pub fn turn(&mut self, signs: Signs<'_>, until: Option<Instant>) -> io::Result<Seen> {
        self.outgoing.retain_mut(Outgoing::advance);
        let ready = self.wait(signs, until)?;
        // Before anything more is read.
        if ready.over && self.lookout.renew(self.intake.as_mut()) {
            self.outgoing.clear();
        }
        if ready.output {
            self.is_open = self.intake.as_mut().is_some_and(Intake::read);
        }
        Ok(ready.seen)
    }

    /// The command has ended: takes in what it has printed, for a while at most, and passes on the last of it.
    pub fn finish(mut self) {
        self.outgoing.clear();
        let until = Instant::now() + DRAIN_TIME;
        while self.is_open && Instant::now() < until && self.turn(Signs::default(), Some(until)).is_ok() {}
        if let Some(Intake { redactor, mut sink, .. }) = self.intake {
            redactor.finish(&mut sink);
        }
    }

    fn wait(&self, signs: Signs<'_>, until: Option<Instant>) -> io::Result<Ready> {
        let output = self.intake.as_ref().filter(|_| self.is_open).map(|intake| intake.output.as_fd());
        let mut watched: Vec<Watched<'_>> = Vec::with_capacity(4 + self.outgoing.len());
        watched.push(Watched::new(self.lookout.valid.over.as_fd(), Interest::Read));
        let read = [output, signs.exit, signs.orders];
        watched.extend(read.into_iter().flatten().map(|fd| Watched::new(fd, Interest::Read)));
        watched.extend(self.outgoing.iter().map(|out| Watched::new(out.channel.as_fd(), Interest::Write)));
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        sys::poll(&mut watched, timeout)?;
        let mut ready = watched.iter().map(|item| item.ready);
        let over = ready.next().unwrap_or(false);
        let [output, exit, orders] = read.map(|fd| fd.is_some() && ready.next().unwrap_or(false));
        Ok(Ready { over, output, seen: Seen { exit, orders } })
    }
}

struct Ready {
    over: bool,
    output: bool,
    seen: Seen,
}

impl<'a> Intake<'a> {
    pub fn new(output: PipeReader, redactor: Redactor, sink: Box<dyn FnMut(&str) + Send + 'a>) -> Self {
        // So that it is never waited for: a command may open its end anew and take out what it has written. Of a pipe
        // that is open this cannot fail (fcntl(2)).
        let _ = sys::set_nonblocking(&output);
        Intake { output, redactor, sink }
    }

    /// Reads once what is there. False: there is no more.
    fn read(&mut self) -> bool {
        match self.output.read(self.redactor.space()) {
            Ok(0) => false,
            Ok(count) => {
                self.redactor.advance(count, &mut self.sink);
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::output::Patterns;
    use crate::secret::{Protection, protect};

    #[test]
    fn output_that_somebody_else_took_is_not_waited_for() {
        let arena = protect(Protection::Locked).expect("locked memory").arena;
        let patterns = Arc::new(Patterns::new(arena, Vec::new()).expect("patterns"));
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let lines = std::sync::Mutex::new(String::new());
        let sink = Box::new(|text: &str| lines.lock().expect("lines").push_str(text));
        let mut intake = Intake::new(reader, Redactor::new(arena, patterns), sink);
        assert!(intake.read(), "there may be more");
        writer.write_all(b"a line\n").expect("room");
        assert!(intake.read());
        drop(writer);
        assert!(!intake.read(), "the end");
        drop(intake);
        assert_eq!(lines.into_inner().expect("lines"), "a line\n");
    }
}
