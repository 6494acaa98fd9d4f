//! The client's end: asks the daemon, and follows what it answers.

use std::io::{self, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Reply, Request, socket_beside, wire};
use crate::clock;
use crate::error::Error;
use crate::ledger::Past;
use crate::outcome::{Outcome, RunId};
use crate::report::Status;
use crate::socket;

/// For answers that the daemon gives at once.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// A daemon that has been asked.
pub struct Conversation {
    reader: BufReader<UnixStream>,
}

impl Conversation {
    /// Asks the daemon whose socket for tokens is the first of `sockets` that has one for control beside it.
    ///
    /// # Errors
    /// If no daemon can be reached.
    pub fn begin(sockets: &[PathBuf], request: &Request) -> Result<Conversation, Error> {
        let line = wire::request_line(request).ok_or_else(|| Error::new("TASK", "no task can have such a name"))?;
        let sockets: Vec<PathBuf> = sockets.iter().map(|path| socket_beside(path)).collect();
        let mut stream = socket::connect(socket::find(&sockets)?)?;
        match stream.write_all(line.as_bytes()) {
            // The daemon may have said why.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(no_answer(error)),
            _ => Ok(Conversation { reader: BufReader::new(stream) }),
        }
    }

    /// The next part of the answer; an answer that ends without its last part is an error.
    fn next(&mut self) -> Result<Reply, Error> {
        match wire::read_reply(&mut self.reader).map_err(no_answer)? {
            Some(Reply::Failed(error)) => Err(error),
            Some(Reply::OtherVersion) => Err(Error::new("the daemon", "is of another version than this program")
                .hint("restart the daemon after an upgrade")),
            Some(reply) => Ok(reply),
            None => Err(no_answer(ErrorKind::UnexpectedEof.into())),
        }
    }

    fn expects_soon(&self) -> Result<(), Error> {
        self.reader.get_ref().set_read_timeout(Some(ANSWER_TIME)).map_err(no_answer)
    }

    /// The answer to `Request::Status`.
    pub fn status(mut self) -> Result<Status, Error> {
        self.expects_soon()?;
        let (mut daemon, mut secrets, mut tasks) = (None, Vec::new(), Vec::new());
        loop {
            match self.next()? {
                Reply::Daemon(status) => daemon = Some(status),
                Reply::Secret(secret) => secrets.push(secret),
                Reply::Task(task) => tasks.push(*task),
                _ => break,
            }
        }
        let daemon = daemon.ok_or_else(|| no_answer(ErrorKind::InvalidData.into()))?;
        Ok(Status { daemon, secrets, tasks })
    }

    /// The answer to `Request::History`, and the zone of its daemon.
    pub fn history(mut self) -> Result<(Vec<Past>, clock::Zone), Error> {
        self.expects_soon()?;
        let (mut zone, mut all) = (clock::Zone::Local, Vec::new());
        loop {
            match self.next()? {
                Reply::Daemon(daemon) => zone = daemon.zone,
                Reply::Past(past) => all.push(*past),
                _ => return Ok((all, zone)),
            }
        }
    }

    /// The answer to `Request::Lock` and `Request::Refresh`: notes, and an end.
    pub fn finish(mut self, note: &mut impl FnMut(&str)) -> Result<(), Error> {
        loop {
            match self.next()? {
                Reply::Note(text) => note(&text),
                Reply::Done => return Ok(()),
                _ => {}
            }
        }
    }

    /// Follows a run to its end. Output goes to `output`, all else to `note`; an interruption, or an
    /// `output` that takes no more, lets go of the run, which goes on.
    pub fn follow(mut self, output: &mut impl Write, note: &mut impl FnMut(&str)) -> Result<Followed, Error> {
        let interrupted = self.watch_signals()?;
        let mut run = None;
        loop {
            let reply = match self.next() {
                Err(_) if interrupted.load(Ordering::Relaxed) => return Ok(Followed::Detached(run)),
                reply => reply?,
            };
            match reply {
                Reply::Note(text) => note(&text),
                Reply::Started(id) => {
                    note(&format!("run {id} started"));
                    run = Some(id);
                }
                Reply::Output(line) => {
                    if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
                        return Ok(Followed::Detached(run));
                    }
                }
                Reply::Ended { run, outcome, exit_code, took } => {
                    note(&end_text(run, outcome, exit_code, took));
                    return Ok(Followed::ToEnd(outcome));
                }
                _ => return Ok(Followed::Told),
            }
        }
    }

    /// INT, TERM and HUP end the conversation.
    fn watch_signals(&self) -> Result<Arc<AtomicBool>, Error> {
        let failed = |error: io::Error| Error::new("signals", error);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let stream = self.reader.get_ref().try_clone().map_err(failed)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let told = interrupted.clone();
        let work = move || {
            if signals.forever().next().is_some() {
                told.store(true, Ordering::Relaxed);
                let _ = stream.shutdown(Shutdown::Both);
            }
        };
        thread::Builder::new().spawn(work).map_err(failed)?;
        Ok(interrupted)
    }
}

/// How following a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    ToEnd(Outcome),
    /// The run goes on, or is still to start.
    Detached(Option<RunId>),
    /// There was nothing to follow, as wanted.
    Told,
}

fn end_text(run: Option<RunId>, outcome: Outcome, exit_code: Option<i32>, took: Option<Duration>) -> String {
    let run = run.map_or("ended without a run".to_owned(), |run| format!("run {run} ended"));
    let code = exit_code.filter(|_| outcome != Outcome::Success).map(|code| format!(" (exit {code})"));
    let took = took.map(|took| format!(" after {}", clock::format_duration(took)));
    format!("{run}: {outcome}{}{}", code.unwrap_or_default(), took.unwrap_or_default())
}

fn no_answer(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            Error::new("the daemon", "its answer broke off").hint("the daemon's log may say why")
        }
        ErrorKind::WouldBlock => Error::new("the daemon", format!("gave no answer within {} s", ANSWER_TIME.as_secs())),
        _ => Error::new("the daemon", format!("no answer: {error}")),
    }
}
