//! The socket at which tokens are redeemed: who is there is settled before a byte is read.
//!
//! One thread serves all peers, waiting for whichever is ready, so that a slow one holds up
//! nobody and a fast one waits for no thread to be made.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{self, REQUEST_MAX, Request};
use super::{Caller, Redeemed, Refusal, Secretbox};
use crate::error::Error;
use crate::log;
use crate::socket::{Bound, Reach};
use crate::sys::{self, Block, Interest, Peer, Watched};

/// Tokens are redeemed in well under a millisecond; more peers at once wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// So many are accepted in a row: under load most have asked by then and are served without another wait.
const ACCEPTS_MAX: usize = 8;

/// How long a peer may say nothing while others wait to be accepted: a step that opens connections
/// and keeps silent must not keep the others from their secrets.
const SILENCE_MAX: Duration = Duration::from_millis(100);

/// For a whole request and its answer.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// How long to leave the socket alone when the process has no descriptor left for a peer.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The socket for tokens.
pub struct Listener {
    bound: Bound,
}

impl Listener {
    pub fn bind(path: &Path, reach: Reach) -> Result<Listener, Error> {
        Ok(Listener { bound: Bound::new(path, reach)? })
    }

    /// Removes the socket from its folder; peers that are being served are served on.
    pub fn close(&self) {
        self.bound.close();
    }

    /// Serves peers for as long as the process lives.
    pub fn serve(&self, secretbox: &Secretbox) {
        let mut connections: Vec<Connection> = Vec::new();
        let mut accept_from = Instant::now();
        loop {
            let accepting = connections.len() < CONNECTIONS_MAX && Instant::now() >= accept_from;
            let ready = self.wait(&connections, accepting, accept_from);
            if ready.new_peer
                && let Err(error) = self.accept_all(secretbox, &mut connections)
            {
                log::warn("cannot accept a connection", &[("error", &error)]);
                accept_from = Instant::now() + EXHAUSTED_PAUSE;
            }
            let is_full = connections.len() == CONNECTIONS_MAX;
            let mut index = 0;
            connections.retain_mut(|connection| {
                let is_ready = ready.connections.get(index).copied().unwrap_or(false);
                index += 1;
                connection.advance(is_ready, secretbox) && !(is_full && connection.is_in_the_way(secretbox))
            });
        }
    }

    fn wait(&self, connections: &[Connection], accepting: bool, accept_from: Instant) -> Ready {
        let mut watched: Vec<Watched<'_>> =
            connections.iter().map(|c| Watched::new(c.stream.as_fd(), c.interest())).collect();
        if accepting {
            watched.push(Watched::new(self.bound.socket.as_fd(), Interest::Read));
        }
        let is_full = connections.len() == CONNECTIONS_MAX;
        let deadlines =
            connections.iter().map(|connection| if is_full { connection.patience() } else { connection.deadline });
        let next = deadlines.chain((!accepting && connections.len() < CONNECTIONS_MAX).then_some(accept_from)).min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = sys::poll(&mut watched, timeout) {
            log::warn("cannot wait for connections", &[("error", &error)]);
            std::thread::sleep(EXHAUSTED_PAUSE);
        }
        Ready {
            new_peer: accepting && watched.last().is_some_and(|listener| listener.ready),
            connections: watched[..connections.len()].iter().map(|item| item.ready).collect(),
        }
    }

    /// Takes in those that wait, up to a bound, so that those who are in have their turn too.
    fn accept_all(&self, secretbox: &Secretbox, connections: &mut Vec<Connection>) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            match self.accept(secretbox, connections) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
                Ok(()) if connections.len() == CONNECTIONS_MAX => break,
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes one peer in, or shows it out before it has said anything.
    fn accept(&self, secretbox: &Secretbox, connections: &mut Vec<Connection>) -> io::Result<()> {
        let (stream, peer) = self.bound.accept()?;
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                tell_of_refusal(secretbox, Refusal::Gone, &[("reason", &error)]);
                return Ok(());
            }
        };
        if !secretbox.admits(caller(&peer)) {
            refuse(secretbox, Refusal::Outsider, &peer);
            return Ok(());
        }
        stream.set_nonblocking(true)?;
        let request = match secretbox.arena().block(REQUEST_MAX) {
            Ok(request) => request,
            Err(error) => {
                log::warn("token refused", &[("reason", &error), ("pid", &peer.pid)]);
                return Ok(());
            }
        };
        let since = Instant::now();
        let state = State::Asking { request, filled: 0 };
        let mut connection = Connection { stream, peer, state, since, deadline: since + REQUEST_TIME };
        // Most clients have sent their request by now.
        if connection.advance(true, secretbox) {
            connections.push(connection);
        }
        Ok(())
    }
}

/// Which of the watched sockets have something to do.
struct Ready {
    new_peer: bool,
    connections: Vec<bool>,
}

struct Connection {
    stream: UnixStream,
    peer: Peer,
    state: State,
    since: Instant,
    deadline: Instant,
}

enum State {
    Asking { request: Block, filled: usize },
    Answering { answer: Answer, written: usize },
}

struct Answer {
    head: String,
    redeemed: Option<Redeemed>,
}

impl Connection {
    fn interest(&self) -> Interest {
        match self.state {
            State::Asking { .. } => Interest::Read,
            State::Answering { .. } => Interest::Write,
        }
    }

    /// Goes on as far as it can without waiting. False: it is over.
    fn advance(&mut self, ready: bool, secretbox: &Secretbox) -> bool {
        let goes_on = match self.state {
            State::Asking { .. } if ready => self.hear(secretbox),
            State::Asking { .. } => true,
            State::Answering { .. } => self.reply(),
        };
        goes_on && self.in_time(secretbox)
    }

    /// Reads what is there, and answers it once it is whole. False: it is over.
    fn hear(&mut self, secretbox: &Secretbox) -> bool {
        let answer = match self.receive(secretbox) {
            Ok(None) => return true,
            Ok(Some(answer)) => answer,
            Err(refusal) => {
                refuse(secretbox, refusal, &self.peer);
                return false;
            }
        };
        self.state = State::Answering { answer, written: 0 };
        let goes_on = self.reply();
        // Only now: the client waits for its secret, nobody for the log.
        if let State::Answering { answer: Answer { redeemed: Some(redeemed), .. }, .. } = &self.state {
            log_redemption(redeemed, &self.peer);
        }
        goes_on
    }

    /// Writes what the socket takes of the answer. False: it is over.
    fn reply(&mut self) -> bool {
        match self.send() {
            Ok(is_sent) => !is_sent,
            Err(error) => {
                log::debug("the client went away", &[("pid", &self.peer.pid), ("error", &error)]);
                false
            }
        }
    }

    /// Until when it may go on while others wait.
    fn patience(&self) -> Instant {
        match self.state {
            State::Asking { filled: 0, .. } => self.deadline.min(self.since + SILENCE_MAX),
            _ => self.deadline,
        }
    }

    fn is_in_the_way(&self, secretbox: &Secretbox) -> bool {
        let in_the_way = Instant::now() >= self.patience();
        if in_the_way {
            refuse(secretbox, Refusal::Silent, &self.peer);
        }
        in_the_way
    }

    fn in_time(&self, secretbox: &Secretbox) -> bool {
        let in_time = Instant::now() < self.deadline;
        if !in_time {
            refuse(secretbox, Refusal::TooSlow, &self.peer);
        }
        in_time
    }

    /// Reads what is there. The answer, if that is a whole request.
    fn receive(&mut self, secretbox: &Secretbox) -> Result<Option<Answer>, Refusal> {
        let State::Asking { request, filled } = &mut self.state else {
            return Ok(None);
        };
        match self.stream.read(&mut request[*filled..]) {
            Ok(0) => return Err(Refusal::Malformed),
            Ok(count) => *filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(_) => return Err(Refusal::Gone),
        }
        let token = match wire::parse_request(&request[..*filled]) {
            Request::Incomplete => return Ok(None),
            Request::Malformed => return Err(Refusal::Malformed),
            Request::OtherVersion => {
                refuse(secretbox, Refusal::OtherVersion, &self.peer);
                return Ok(Some(Answer { head: wire::version_head(), redeemed: None }));
            }
            Request::Token(token) => token,
        };
        if !self.peer.is_alive() {
            return Err(Refusal::Gone);
        }
        let redeemed = secretbox.redeem(token, caller(&self.peer), sys::boot_clock())?;
        Ok(Some(Answer { head: wire::secret_head(redeemed.secret.len()), redeemed: Some(redeemed) }))
    }

    /// Writes what the socket takes. True: all of it is written.
    fn send(&mut self) -> io::Result<bool> {
        let State::Answering { answer: Answer { head, redeemed }, written } = &mut self.state else {
            return Ok(true);
        };
        let value = redeemed.as_ref().map_or(&[][..], |redeemed| redeemed.secret.expose());
        loop {
            let mut parts = [IoSlice::new(head.as_bytes()), IoSlice::new(value)];
            let mut rest = &mut parts[..];
            IoSlice::advance_slices(&mut rest, *written);
            if rest.is_empty() {
                return Ok(true);
            }
            match self.stream.write_vectored(rest) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn caller(peer: &Peer) -> Caller {
    Caller { session: peer.session, uid: peer.uid }
}

fn log_redemption(redeemed: &Redeemed, peer: &Peer) {
    let Redeemed { name, holder, .. } = redeemed;
    log::info(
        "secret handed out",
        &[("secret", name), ("task", &holder.task), ("step", &holder.step), ("run", &holder.run), ("pid", &peer.pid)],
    );
}

fn refuse(secretbox: &Secretbox, refusal: Refusal, peer: &Peer) {
    let reason = refusal.reason();
    tell_of_refusal(secretbox, refusal, &[("reason", &reason), ("pid", &peer.pid), ("uid", &peer.uid)]);
}

/// Counts a refusal, and logs it unless there were too many of late.
fn tell_of_refusal(secretbox: &Secretbox, refusal: Refusal, fields: &[log::Field<'_>]) {
    let Some(unsaid) = secretbox.count(refusal, sys::boot_clock()) else {
        return;
    };
    let mut fields = fields.to_vec();
    if unsaid > 0 {
        fields.push(("others_not_logged", &unsaid));
    }
    log::warn("token refused", &fields);
}
