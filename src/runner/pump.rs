//! What flows between the daemon and one command: its output here, its secrets there.
//!
//! One thread per command does both without ever waiting for one of them alone, so neither a
//! command that reads nothing nor one that prints without end holds anything up.

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

/// What to keep out of a command's output, as it is at present.
pub struct Lookout<'a> {
    pub redaction: &'a Redaction,
    pub valid: Arc<Valid>,
    /// The command was given secrets: what it prints after they were wiped is shown to nobody.
    pub has_secrets: bool,
}

impl Lookout<'_> {
    /// Something else is to be looked for. True: all secrets were wiped.
    fn renew(&mut self, redactor: &mut Redactor, sink: &mut impl FnMut(&str)) -> bool {
        let now = self.redaction.valid();
        let wiped = now.wipes != self.valid.wipes;
        if wiped && self.has_secrets {
            redactor.withhold(sink);
        } else {
            redactor.look_for(now.patterns.clone());
        }
        self.valid = now;
        wiped
    }
}

/// Moves output into `redactor` and secrets out until the output has ended, or, once `ended` is
/// closed from the other side, until it has been drained for long enough. What `lookout` says comes
/// before what is read after it.
pub fn run(
    output: Option<PipeReader>,
    mut outgoing: Vec<Outgoing>,
    ended: &PipeReader,
    mut redactor: Redactor,
    mut lookout: Lookout<'_>,
    mut sink: impl FnMut(&str),
) {
    let mut output = output;
    let mut drain_until: Option<Instant> = None;
    while drain_until.is_none() || output.is_some() {
        outgoing.retain_mut(|outgoing| drain_until.is_none() && outgoing.advance());
        let ended = drain_until.is_none().then_some(ended);
        let ready = match wait(output.as_ref(), &outgoing, ended, &lookout.valid.over, drain_until) {
            Ok(ready) => ready,
            Err(_) => break,
        };
        if ready.over && lookout.renew(&mut redactor, &mut sink) {
            outgoing.clear();
        }
        if ready.ended {
            drain_until = Some(Instant::now() + DRAIN_TIME);
        }
        if ready.output && !read(&mut output, &mut redactor, &mut sink) {
            output = None;
        }
        if drain_until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    redactor.finish(&mut sink);
}

struct Ready {
    output: bool,
    ended: bool,
    over: bool,
}

fn wait(
    output: Option<&PipeReader>,
    outgoing: &[Outgoing],
    ended: Option<&PipeReader>,
    over: &PipeReader,
    until: Option<Instant>,
) -> io::Result<Ready> {
    let mut watched: Vec<Watched<'_>> = Vec::with_capacity(3 + outgoing.len());
    watched.push(Watched::new(over.as_fd(), Interest::Read));
    watched.extend(output.map(|output| Watched::new(output.as_fd(), Interest::Read)));
    watched.extend(ended.map(|ended| Watched::new(ended.as_fd(), Interest::Read)));
    watched.extend(outgoing.iter().map(|outgoing| Watched::new(outgoing.channel.as_fd(), Interest::Write)));
    let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
    sys::poll(&mut watched, timeout)?;
    let mut ready = watched.iter().map(|item| item.ready);
    Ok(Ready {
        over: ready.next().unwrap_or(false),
        output: output.is_some() && ready.next().unwrap_or(false),
        ended: ended.is_some() && ready.next().unwrap_or(false),
    })
}

/// Reads once. False: there is no more.
fn read(output: &mut Option<PipeReader>, redactor: &mut Redactor, sink: &mut impl FnMut(&str)) -> bool {
    let Some(output) = output else {
        return false;
    };
    match output.read(redactor.space()) {
        Ok(0) => false,
        Ok(count) => {
            redactor.advance(count, sink);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}
