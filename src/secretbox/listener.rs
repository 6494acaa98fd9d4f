//! The socket at which tokens are redeemed: who is there is settled before a byte is read.
//!
//! One thread serves all peers, waiting for whichever is ready, so that a slow one holds up
//! nobody and a fast one waits for no thread to be made.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{self, REQUEST_MAX, Request};
use super::{Caller, Redeemed, Refusal, Secretbox};
use crate::error::Error;
use crate::log;
use crate::socket::{Bound, EXHAUSTED_PAUSE, Reach};
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
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
        let request = match secretbox.arena().block(REQUEST_MAX) {
            Ok(request) => request,
            Err(error) => {
                log::warn("token refused", &[("reason", &error), ("pid", &peer.pid)]);
                return Ok(());
            }
        };
        let since = Instant::now();
        let deadline = since + REQUEST_TIME;
        let mut connection = Connection { stream, peer, request, filled: 0, answer: None, since, deadline };
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
    request: Block,
    /// How much of the request has come.
    filled: usize,
    answer: Option<Answer>,
    since: Instant,
    deadline: Instant,
}

struct Answer {
    head: String,
    redeemed: Option<Redeemed>,
    written: usize,
}

impl Connection {
    fn interest(&self) -> Interest {
        if self.answer.is_some() { Interest::Write } else { Interest::Read }
    }

    /// Goes on as far as it can without waiting. False: it is over.
    fn advance(&mut self, ready: bool, secretbox: &Secretbox) -> bool {
        let goes_on = match &mut self.answer {
            Some(answer) => answer.send(&mut self.stream, &self.peer),
            None if ready => self.hear(secretbox),
            None => true,
        };
        goes_on && self.in_time(secretbox)
    }

    /// Reads what is there, and answers it once it is whole. False: it is over.
    fn hear(&mut self, secretbox: &Secretbox) -> bool {
        let count = match sys::peek(&self.stream, &mut self.request[self.filled..]) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return true,
            Err(_) => {
                refuse(secretbox, Refusal::Gone, &self.peer);
                return false;
            }
        };
        let heard = self.filled + count;
        let goes_on = match answer_to(&self.request[..heard], count, &self.peer, secretbox) {
            Ok(None) => true,
            Ok(Some(answer)) => self.answer.insert(answer).send(&mut self.stream, &self.peer),
            Err(refusal) => {
                refuse(secretbox, refusal, &self.peer);
                false
            }
        };
        // The client waits for its secret, and for nothing of what follows. To take the request from the socket wakes
        // it, which would be in vain before the answer was sent.
        let is_taken = self.stream.read_exact(&mut self.request[self.filled..heard]).is_ok();
        self.filled = heard;
        if let Some(Answer { redeemed: Some(redeemed), .. }) = &self.answer {
            log_redemption(redeemed, &self.peer);
        }
        goes_on && is_taken
    }

    /// Until when it may go on while others wait.
    fn patience(&self) -> Instant {
        if self.filled == 0 { self.deadline.min(self.since + SILENCE_MAX) } else { self.deadline }
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
}

/// The answer to what a peer has said so far, if that is a whole request; `new` bytes of it have just come.
fn answer_to(heard: &[u8], new: usize, peer: &Peer, secretbox: &Secretbox) -> Result<Option<Answer>, Refusal> {
    let token = match wire::parse_request(heard) {
        // It has closed its end.
        Request::Incomplete if new == 0 => return Err(Refusal::Malformed),
        Request::Incomplete => return Ok(None),
        Request::Malformed => return Err(Refusal::Malformed),
        Request::OtherVersion => {
            refuse(secretbox, Refusal::OtherVersion, peer);
            return Ok(Some(Answer { head: wire::version_head(), redeemed: None, written: 0 }));
        }
        Request::Token(token) => token,
    };
    if !peer.is_alive() {
        return Err(Refusal::Gone);
    }
    let redeemed = secretbox.redeem(token, caller(peer), sys::boot_clock())?;
    Ok(Some(Answer { head: wire::secret_head(redeemed.secret.len()), redeemed: Some(redeemed), written: 0 }))
}

impl Answer {
    /// Writes what the socket takes. False: it is over.
    fn send(&mut self, stream: &mut UnixStream, peer: &Peer) -> bool {
        let value = self.redeemed.as_ref().map_or(&[][..], |redeemed| redeemed.secret.expose());
        loop {
            let mut parts = [IoSlice::new(self.head.as_bytes()), IoSlice::new(value)];
            let mut rest = &mut parts[..];
            IoSlice::advance_slices(&mut rest, self.written);
            if rest.is_empty() {
                return false;
            }
            match stream.write_vectored(rest) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug("the client went away", &[("pid", &peer.pid), ("error", &error)]);
                    return false;
                }
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
