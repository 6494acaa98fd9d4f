//! The daemon's end: it shows out whoever may not speak, reads one request of each peer, and
//! passes on what the answer consists of as fast as the peer reads, never waiting for one.
//!
//! One thread serves all peers. Those who answer put their replies into an outbox, which takes a
//! limited amount from them at once; a peer that has not read so much is dropped.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{self, REQUEST_MAX, Received};
use super::{Reply, Request};
use crate::error::Error;
use crate::log;
use crate::socket::{Bound, EXHAUSTED_PAUSE, Reach};
use crate::sys::{self, Interest, Peer, Watched};

/// More peers at once wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// For a whole request.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// How long a peer may leave what is sent to it unread.
const STALL_TIME: Duration = Duration::from_secs(10);

/// What waits for a peer that follows a run, in bytes. Answers of one piece may be larger.
const OUTBOX_MAX: usize = 1 << 20;

/// How long the end of the daemon waits for peers to read what has been said.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The control socket.
pub struct Listener {
    bound: Bound,
    woken: PipeReader,
    waker: Arc<PipeWriter>,
    closing: AtomicBool,
}

/// A peer that waits for an answer.
#[derive(Clone)]
pub struct Client {
    outbox: Arc<Outbox>,
    pub session: i32,
}

struct Outbox {
    waiting: Mutex<Waiting>,
    waker: Arc<PipeWriter>,
}

/// What is still to be sent to a peer.
#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// Nothing more will come.
    complete: bool,
    /// Nobody reads it any more.
    gone: bool,
}

impl Client {
    /// Sends a reply; nothing follows one that ends the answer.
    pub fn send(&self, reply: &Reply) {
        self.send_all(std::slice::from_ref(reply));
    }

    /// As `send`, of several at once. False: the peer is gone.
    pub fn send_all(&self, replies: &[Reply]) -> bool {
        let mut waiting = self.outbox.waiting();
        if waiting.gone || waiting.complete {
            return false;
        }
        if waiting.text.len() > OUTBOX_MAX {
            waiting.gone = true;
        } else {
            for reply in replies {
                waiting.text.extend_from_slice(wire::reply_line(reply).as_bytes());
                waiting.complete |= reply.is_last();
            }
        }
        let sent = !waiting.gone;
        drop(waiting);
        self.outbox.wake();
        sent
    }
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full pipe has woken the listener already.
    fn wake(&self) {
        let _ = (&*self.waker).write(&[0]);
    }
}

impl Listener {
    pub fn bind(path: &Path) -> Result<Listener, Error> {
        let bound = Bound::new(path, Reach::Own)?;
        let failed = |error: io::Error| Error::new("pipe", error);
        let (woken, waker) = io::pipe().map_err(failed)?;
        sys::set_nonblocking(&woken).and_then(|()| sys::set_nonblocking(&waker)).map_err(failed)?;
        Ok(Listener { bound, woken, waker: Arc::new(waker), closing: AtomicBool::new(false) })
    }

    /// Takes nobody in any more; `serve` ends soon, when all have heard what was said to them.
    pub fn close(&self) {
        self.bound.close();
        self.closing.store(true, Ordering::Relaxed);
        let _ = (&*self.waker).write(&[0]);
    }

    /// Serves peers until `close`; `handle` answers what they ask for, and must not wait.
    pub fn serve(&self, mut handle: impl FnMut(Request, Client)) {
        let mut connections: Vec<Connection> = Vec::new();
        let mut accept_from = Instant::now();
        let mut end: Option<Instant> = None;
        loop {
            if self.closing.load(Ordering::Relaxed) {
                let end = *end.get_or_insert_with(|| Instant::now() + CLOSE_TIME);
                connections.retain(Connection::has_something_to_send);
                if connections.is_empty() || Instant::now() >= end {
                    return;
                }
            }
            let accepting = connections.len() < CONNECTIONS_MAX && Instant::now() >= accept_from && end.is_none();
            let full = connections.len() >= CONNECTIONS_MAX;
            let until =
                [end, (!accepting && !full && end.is_none()).then_some(accept_from)].into_iter().flatten().min();
            let ready = self.wait(&connections, accepting, until);
            if ready.new_peer
                && let Err(error) = self.accept(&mut connections)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                log::warn("cannot accept a connection", &[("error", &error)]);
                accept_from = Instant::now() + EXHAUSTED_PAUSE;
            }
            let mut index = 0;
            connections.retain_mut(|connection| {
                // Who has just come has most likely sent the request by now.
                let is_ready = ready.connections.get(index).copied().unwrap_or(true);
                index += 1;
                connection.advance(is_ready, &self.waker, &mut handle)
            });
        }
    }

    fn wait(&self, connections: &[Connection], accepting: bool, until: Option<Instant>) -> Ready {
        let mut watched: Vec<Watched<'_>> =
            connections.iter().map(|c| Watched::new(c.stream.as_fd(), c.interest())).collect();
        watched.push(Watched::new(self.woken.as_fd(), Interest::Read));
        if accepting {
            watched.push(Watched::new(self.bound.socket.as_fd(), Interest::Read));
        }
        let deadlines = connections.iter().filter_map(|connection| connection.deadline);
        let timeout = deadlines.chain(until).min().map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = sys::poll(&mut watched, timeout) {
            log::warn("cannot wait for connections", &[("error", &error)]);
            std::thread::sleep(EXHAUSTED_PAUSE);
        }
        let mut bytes = [0; 256];
        while matches!((&self.woken).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        Ready {
            new_peer: accepting && watched.last().is_some_and(|listener| listener.ready),
            connections: watched[..connections.len()].iter().map(|item| item.ready).collect(),
        }
    }

    /// Takes one peer in, or shows it out before it has said anything.
    fn accept(&self, connections: &mut Vec<Connection>) -> io::Result<()> {
        let (stream, peer) = self.bound.accept()?;
        let peer = match peer {
            Ok(peer) => peer,
            Err(error) => {
                log::debug("a control client is not known", &[("error", &error)]);
                return Ok(());
            }
        };
        if peer.uid != sys::effective_uid() && peer.uid != 0 {
            log::warn("control refused to another user", &[("pid", &peer.pid), ("uid", &peer.uid)]);
            return Ok(());
        }
        let deadline = Some(Instant::now() + REQUEST_TIME);
        connections.push(Connection { stream, peer, state: State::Asking(Vec::new()), deadline });
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
    /// When patience with the peer is over.
    deadline: Option<Instant>,
}

enum State {
    Asking(Vec<u8>),
    Answering(Arc<Outbox>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let State::Answering(outbox) = &self.state {
            let mut waiting = outbox.waiting();
            waiting.gone = true;
            waiting.text = Vec::new();
        }
    }
}

impl Connection {
    fn has_something_to_send(&self) -> bool {
        matches!(&self.state, State::Answering(outbox) if !outbox.waiting().text.is_empty())
    }

    /// A peer that waits for more to come says nothing, unless it goes away.
    fn interest(&self) -> Interest {
        if self.has_something_to_send() { Interest::Write } else { Interest::Read }
    }

    /// Goes on as far as it can without waiting. False: it is over.
    fn advance(&mut self, ready: bool, waker: &Arc<PipeWriter>, handle: &mut impl FnMut(Request, Client)) -> bool {
        let goes_on = match &self.state {
            State::Asking(_) if ready => self.receive(waker, handle),
            State::Asking(_) => true,
            State::Answering(outbox) => {
                let outbox = outbox.clone();
                self.send(&outbox, ready)
            }
        };
        let in_time = self.deadline.is_none_or(|deadline| Instant::now() < deadline);
        if goes_on && !in_time {
            log::debug("a control client took too long", &[("pid", &self.peer.pid)]);
        }
        goes_on && in_time
    }

    fn receive(&mut self, waker: &Arc<PipeWriter>, handle: &mut impl FnMut(Request, Client)) -> bool {
        let State::Asking(received) = &mut self.state else { return true };
        let mut bytes = [0; REQUEST_MAX];
        match self.stream.read(&mut bytes[received.len()..]) {
            Ok(0) => return false,
            Ok(count) => received.extend_from_slice(&bytes[received.len()..][..count]),
            Err(error) => return is_passing(&error),
        }
        let request = match wire::parse_request(received) {
            Received::Incomplete => return true,
            Received::Malformed => {
                log::warn("not a control request", &[("pid", &self.peer.pid)]);
                return false;
            }
            Received::OtherVersion => None,
            Received::Request(request) => Some(request),
        };
        let outbox = Arc::new(Outbox { waiting: Mutex::default(), waker: waker.clone() });
        self.state = State::Answering(outbox.clone());
        self.deadline = None;
        let client = Client { outbox: outbox.clone(), session: self.peer.session };
        match request {
            Some(request) => handle(request, client),
            None => client.send(&Reply::OtherVersion),
        }
        self.send(&outbox, false)
    }

    /// Writes what the socket takes. False: all has been said, or nobody listens.
    fn send(&mut self, outbox: &Outbox, ready: bool) -> bool {
        let mut waiting = outbox.waiting();
        if waiting.gone {
            log::debug("a control client does not read, dropping it", &[("pid", &self.peer.pid)]);
            return false;
        }
        if waiting.text.is_empty() {
            // It was watched for words that nobody asked for, or for its end.
            return !ready || !self.is_over();
        }
        match self.stream.write(&waiting.text) {
            Ok(count) => {
                waiting.text.drain(..count);
                self.deadline = (!waiting.text.is_empty()).then(|| Instant::now() + STALL_TIME);
            }
            Err(error) if is_passing(&error) => {
                self.deadline.get_or_insert_with(|| Instant::now() + STALL_TIME);
            }
            Err(_) => return false,
        }
        !(waiting.complete && waiting.text.is_empty())
    }

    fn is_over(&mut self) -> bool {
        !matches!(self.stream.read(&mut [0]), Err(error) if is_passing(&error))
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
