//! The socket at which tokens are redeemed: who is there is settled before a byte is read.
//!
//! One thread serves all peers, waiting for whichever is ready, so that a slow one holds up
//! nobody and a fast one waits for no thread to be made.

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroize;

use super::wire::{self, REQUEST_MAX, Request};
use super::{Caller, Redeemed, Refusal, Secretbox};
use crate::error::Error;
use crate::log;
use crate::secret::Secret;
use crate::sys::{self, Block, Interest, Peer, Watched};

/// Tokens are redeemed in well under a millisecond; more peers at once wait to be accepted.
const CONNECTIONS_MAX: usize = 32;

/// For a whole request and its answer.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// How long to leave the socket alone when the process has no descriptor left for a peer.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path` in a folder that only this user can write to, which is made if it is
    /// missing. A socket that nobody answers at is replaced; anything else there is an error.
    pub fn bind(path: &Path) -> Result<Listener, Error> {
        let folder = path.parent().ok_or_else(|| Error::new(path.display(), "not a path for a socket"))?;
        prepare_folder(folder)?;
        remove_stale(path)?;
        let failed = |error: io::Error| Error::new(path.display(), format!("cannot bind the socket: {error}"));
        // The folder keeps others out, and the process's umask keeps the socket from ever being wider.
        let socket = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Listener { socket, path: path.to_owned() })
    }

    /// Removes the socket from its folder; peers that are being served are served on.
    pub fn close(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Serves peers for as long as the process lives.
    pub fn serve(&self, secretbox: &Secretbox) {
        let mut connections: Vec<Connection> = Vec::new();
        let mut accept_from = Instant::now();
        loop {
            let accepting = connections.len() < CONNECTIONS_MAX && Instant::now() >= accept_from;
            let ready = self.wait(&connections, accepting, accept_from);
            if ready.new_peer
                && let Err(error) = self.accept(secretbox, &mut connections)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                log::warn("cannot accept a connection", &[("error", &error)]);
                accept_from = Instant::now() + EXHAUSTED_PAUSE;
            }
            let mut index = 0;
            connections.retain_mut(|connection| {
                let is_ready = ready.connections.get(index).copied().unwrap_or(false);
                index += 1;
                connection.advance(is_ready, secretbox)
            });
        }
    }

    fn wait(&self, connections: &[Connection], accepting: bool, accept_from: Instant) -> Ready {
        let mut watched: Vec<Watched<'_>> =
            connections.iter().map(|c| Watched::new(c.stream.as_fd(), c.interest())).collect();
        if accepting {
            watched.push(Watched::new(self.socket.as_fd(), Interest::Read));
        }
        let deadlines = connections.iter().map(|connection| connection.deadline);
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

    /// Takes one peer in, or shows it out before it has said anything.
    fn accept(&self, secretbox: &Secretbox, connections: &mut Vec<Connection>) -> io::Result<()> {
        let (stream, _) = self.socket.accept()?;
        let peer = match sys::peer(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                log::warn("token refused", &[("reason", &error)]);
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
        let deadline = Instant::now() + REQUEST_TIME;
        let mut connection = Connection { stream, peer, state: State::Asking { request, filled: 0 }, deadline };
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
    deadline: Instant,
}

enum State {
    Asking { request: Block, filled: usize },
    Answering { head: String, secret: Option<Arc<Secret>>, written: usize },
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
        if ready && matches!(self.state, State::Asking { .. }) {
            match self.receive(secretbox) {
                Ok(true) => {}
                Ok(false) => return self.in_time(secretbox),
                Err(refusal) => {
                    refuse(secretbox, refusal, &self.peer);
                    return false;
                }
            }
        }
        if matches!(self.state, State::Answering { .. }) {
            match self.send() {
                Ok(true) => return false,
                Ok(false) => {}
                Err(error) => {
                    log::debug("the client went away", &[("pid", &self.peer.pid), ("error", &error)]);
                    return false;
                }
            }
        }
        self.in_time(secretbox)
    }

    fn in_time(&self, secretbox: &Secretbox) -> bool {
        let in_time = Instant::now() < self.deadline;
        if !in_time {
            refuse(secretbox, Refusal::TooSlow, &self.peer);
        }
        in_time
    }

    /// Reads what is there. True: an answer stands ready.
    fn receive(&mut self, secretbox: &Secretbox) -> Result<bool, Refusal> {
        let State::Asking { request, filled } = &mut self.state else {
            return Ok(true);
        };
        match self.stream.read(&mut request[*filled..]) {
            Ok(0) => return Err(Refusal::Malformed),
            Ok(count) => *filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(_) => return Err(Refusal::Gone),
        }
        let token = match wire::parse_request(&request[..*filled]) {
            Request::Incomplete => return Ok(false),
            Request::Malformed => return Err(Refusal::Malformed),
            Request::OtherVersion => {
                refuse(secretbox, Refusal::OtherVersion, &self.peer);
                self.state = State::Answering { head: wire::version_head(), secret: None, written: 0 };
                return Ok(true);
            }
            Request::Token(token) => token,
        };
        if !self.peer.is_alive() {
            return Err(Refusal::Gone);
        }
        let redeemed = secretbox.redeem(token, caller(&self.peer), sys::boot_clock())?;
        request.zeroize();
        log_redemption(&redeemed, &self.peer);
        let head = wire::secret_head(redeemed.secret.len());
        self.state = State::Answering { head, secret: Some(redeemed.secret), written: 0 };
        Ok(true)
    }

    /// Writes what the socket takes. True: all of it is written.
    fn send(&mut self) -> io::Result<bool> {
        let State::Answering { head, secret, written } = &mut self.state else {
            return Ok(true);
        };
        let value = secret.as_ref().map_or(&[][..], |secret| secret.expose());
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
    secretbox.count(refusal);
    log::warn("token refused", &[("reason", &refusal.reason()), ("pid", &peer.pid), ("uid", &peer.uid)]);
}

/// Makes the socket's folder, or makes sure that nobody else can put anything there.
pub fn prepare_folder(folder: &Path) -> Result<(), Error> {
    let object = folder.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Error::new(&object, format!("cannot make the folder: {error}")))?;
    // Of the link itself: a folder reached through a link could be exchanged.
    let metadata = fs::symlink_metadata(folder).map_err(|error| Error::new(&object, error))?;
    if !metadata.is_dir() {
        return Err(Error::new(&object, "not a folder"));
    }
    if metadata.uid() != sys::effective_uid() {
        return Err(Error::new(&object, "belongs to another user").hint("name a folder of your own for it"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::new(&object, "writable by others").hint(format!("chmod 700 {object}")));
    }
    Ok(())
}

/// Clears the way for a new socket: a dead daemon's socket goes, anything else stays.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let object = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::new(object, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(object, "exists and is not a socket").hint("name another path, or move the file away"));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = sys::peer(&stream).map_or(String::new(), |peer| format!(" (pid {})", peer.pid));
            Err(Error::new(object, format!("another process answers there{pid}")))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| Error::new(object, error))
        }
        Err(error) => Err(Error::new(object, error)),
    }
}
