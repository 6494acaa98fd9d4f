//! How a command is started: by way of this program itself, so that no code runs between fork
//! and exec and no secret passes through buffers that nobody wipes.
//!
//! The daemon starts a launcher with an empty environment and a socket as its standard input.
//! The launcher leads a new session and says so; only then the daemon makes the step's tokens
//! and sends one frame (arguments, environment, folder, umask, the program's identity) and the
//! descriptors. End of file on the socket tells the daemon that exec worked.

use std::ffi::{CStr, OsStr};
use std::io::{self, IoSlice, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use zeroize::Zeroize;

use crate::error::Error;
use crate::log;
use crate::plan::RunAs;
use crate::program::Identity;
use crate::sys::{self, LauncherImage, OpenProgram};

/// The hidden command by which this program is told that it is a launcher.
pub const COMMAND: &str = "__launch";

/// How long a launcher may take for its part; it does nothing that waits.
const LAUNCH_TIME: Duration = Duration::from_secs(10);

/// Arguments and environment together; Linux takes 2 MiB by default (execve(2)).
const FRAME_MAX: usize = 8 * 1024 * 1024;

/// The pipe of the first `as: file` secret has this number in the command, those of others follow:
/// above what shells use for redirections of their own.
pub const FIRST_FILE: RawFd = 30;

/// The launcher's own end of the socket stands above all that it lays out, and no higher: the limit
/// of descriptors may be low.
const SOCKET_FLOOR: RawFd = FIRST_FILE + FILES_MAX as RawFd;

/// The most `as: file` secrets of one command.
pub const FILES_MAX: usize = 32;

/// Standard input, output and error come before the files.
const STREAMS: usize = 3;

/// The most launchers that stand ready; each is a process.
const READY_MAX: usize = 256;

/// The launchers of this process's commands. To start one takes longer than all the rest of a command's start, so
/// those that will be needed in a moment are started before.
#[derive(Default)]
pub struct Launchers {
    image: OnceLock<LauncherImage>,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    ready: Vec<Launcher>,
    /// How many are to be ready.
    wanted: usize,
}

impl Launchers {
    /// Makes the executable from which they start, if nobody has; whoever comes meanwhile waits.
    pub fn image(&self) -> &LauncherImage {
        self.image.get_or_init(|| {
            let image = LauncherImage::new();
            if let Some(reason) = &image.fallback {
                log::warn("launchers start from a file that others can read", &[("reason", reason)]);
            }
            image
        })
    }

    /// Says that so many more will be needed in a moment; `fill` is to be called then.
    pub fn want(&self, more: usize) {
        let mut stock = self.stock();
        stock.wanted = (stock.wanted + more).min(READY_MAX);
    }

    /// Starts those that are wanted. Whoever takes one meanwhile and finds none starts it himself.
    pub fn fill(&self) {
        while self.stock().lacks_some() {
            let Ok(launcher) = Launcher::start(self.image()) else {
                return;
            };
            let mut stock = self.stock();
            if stock.lacks_some() {
                stock.ready.push(launcher);
            } else {
                drop(stock);
                launcher.end();
            }
        }
    }

    /// Ends those that stand ready and were not needed after all.
    pub fn dismiss(&self) {
        let stock = mem::take(&mut *self.stock());
        stock.ready.into_iter().for_each(Launcher::end);
    }

    /// One for a command, which is alive and leads its session.
    pub fn take(&self) -> Result<Launcher, Error> {
        while let Some(launcher) = self.stock().take() {
            if let Ok(launcher) = launcher.greet() {
                return Ok(launcher);
            }
        }
        Launcher::start(self.image())?.greet()
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn lacks_some(&self) -> bool {
        self.ready.len() < self.wanted
    }

    fn take(&mut self) -> Option<Launcher> {
        self.wanted = self.wanted.saturating_sub(1);
        self.ready.pop()
    }
}

/// What the launcher becomes.
pub struct Frame<'a> {
    pub program: &'a Path,
    pub identity: Identity,
    pub directory: &'a Path,
    pub umask: u32,
    /// As whom it runs, if not as the daemon's user.
    pub user: Option<&'a RunAs>,
    /// Whether its output goes into the daemon's own pipes, or where the caller's does.
    pub has_own_output: bool,
    /// The first is the name by which the program was called.
    pub arguments: Vec<&'a [u8]>,
    /// Each variable in parts that together read `NAME=value`, so that no secret is copied.
    pub environment: Vec<Vec<&'a [u8]>>,
    /// Its standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// Become `FIRST_FILE` and so on.
    pub files: Vec<BorrowedFd<'a>>,
}

/// A process that will become a command: it leads a session of its own and waits for its frame.
pub struct Launcher {
    child: Child,
    socket: UnixStream,
    /// As `sys::Process::started`.
    pub started: u64,
    /// As `sys::watch_exit`.
    exit: OwnedFd,
}

/// Where a launcher stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Session = 1,
    Frame,
    Directory,
    Descriptors,
    User,
    Identity,
    Exec,
}

impl Launcher {
    fn start(image: &LauncherImage) -> Result<Launcher, Error> {
        let failed = |error: io::Error| Error::new("launcher", format!("cannot start: {error}"));
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        socket.set_read_timeout(Some(LAUNCH_TIME)).map_err(failed)?;
        socket.set_write_timeout(Some(LAUNCH_TIME)).map_err(failed)?;
        // Without a folder, user or group for it: with one the standard library forks, which copies what the kernel
        // knows of the daemon's memory; without, it lends it to the child until its exec (posix_spawn(3)).
        let child = Command::new(image.path())
            .arg0("backupnizza")
            .arg(COMMAND)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .map_err(failed)?;
        let pid = child.id() as i32;
        match sys::watch_exit(pid) {
            Ok(exit) => Ok(Launcher { child, socket, started: sys::start_of(pid).unwrap_or(0), exit }),
            Err(error) => {
                end(child);
                Err(failed(error))
            }
        }
    }

    /// Waits until it leads its session. One that failed, or that somebody has ended meanwhile, is an error.
    fn greet(mut self) -> Result<Launcher, Error> {
        let greeted = match self.child.try_wait() {
            Ok(Some(_)) => Err(Error::new("launcher", "has ended")),
            _ => self.await_session(),
        };
        match greeted {
            Ok(()) => Ok(self),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// The launcher's pid, which is also the session that the command will lead.
    pub fn session(&self) -> i32 {
        self.child.id() as i32
    }

    fn await_session(&mut self) -> Result<(), Error> {
        let mut word = [0];
        let answer = self.socket.read_exact(&mut word);
        answer.map_err(|error| Error::new("launcher", format!("does not answer: {error}")))?;
        if word != [0] {
            return Err(self.report(word[0]));
        }
        if sys::session_of(self.session()) != Some(self.session()) {
            return Err(Error::new("launcher", "does not lead a session of its own"));
        }
        Ok(())
    }

    /// Sends `frame` and waits until the launcher has become its program. With the child comes what tells of its end.
    pub fn launch(mut self, frame: &Frame<'_>) -> Result<(Child, OwnedFd), Error> {
        let sent = self.send(frame);
        // Also where it did not take the frame: it may have said why.
        let error = match (sent, self.await_exec()) {
            (Ok(()), Ok(None)) => return Ok((self.child, self.exit)),
            (_, Ok(Some(stage))) => self.report(stage),
            (Err(error), _) | (Ok(()), Err(error)) => {
                Error::new(frame.program.display(), format!("cannot be started: {error}"))
            }
        };
        self.end();
        Err(error)
    }

    /// The stage at which it stopped, `None` once it has become its program.
    fn await_exec(&mut self) -> io::Result<Option<u8>> {
        let mut stage = [0];
        loop {
            match self.socket.read(&mut stage) {
                Ok(count) => return Ok((count > 0).then_some(stage[0])),
                // A signal ends the wait of a socket that has a timeout, whatever its handler says (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::other("it does not answer"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The launcher ends without having become anything.
    pub fn end(self) {
        end(self.child);
    }

    fn send(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        if frame.files.len() > FILES_MAX {
            return Err(io::Error::other("too many secrets as files"));
        }
        let header = Header {
            umask: frame.umask,
            has_own_output: u32::from(frame.has_own_output),
            arguments: frame.arguments.len() as u32,
            environment: frame.environment.len() as u32,
            identity: frame.identity.to_bytes(),
            user: frame.user.map(Credentials::of),
        }
        .to_bytes();
        let parts = frame.parts(&header);
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > FRAME_MAX {
            return Err(io::Error::other("arguments and environment are too long"));
        }
        let descriptors: Vec<BorrowedFd<'_>> = frame.streams.iter().chain(&frame.files).copied().collect();
        let prefix = (len as u32).to_le_bytes();
        if sys::send_with_descriptors(&self.socket, &prefix, &descriptors)? != prefix.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        write_all_parts(&mut self.socket, &parts)
    }

    /// What the launcher says went wrong: a stage, then an errno.
    fn report(&mut self, stage: u8) -> Error {
        let mut errno = [0; 4];
        let reason = match self.socket.read_exact(&mut errno).map(|()| i32::from_le_bytes(errno)) {
            Ok(0) => String::new(),
            Ok(errno) => format!(": {}", io::Error::from_raw_os_error(errno)),
            Err(_) => ": no reason given".to_owned(),
        };
        let what = match stage {
            stage if stage == Stage::Directory as u8 => "cannot go to its working directory",
            stage if stage == Stage::Identity as u8 => "the program changed while it was being started",
            stage if stage == Stage::Exec as u8 => "cannot be executed",
            stage if stage == Stage::User as u8 => "cannot become its `user`",
            stage if stage == Stage::Session as u8 => "cannot lead a session",
            stage if stage == Stage::Frame as u8 => "the launcher did not understand the daemon",
            _ => "cannot lay out its descriptors",
        };
        Error::new("launcher", format!("{what}{reason}"))
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl<'a> Frame<'a> {
    /// All that follows the length, strings ended by a zero byte.
    fn parts<'p>(&'p self, header: &'p [u8]) -> Vec<&'p [u8]> {
        const END: &[u8] = b"\0";
        let mut parts: Vec<&[u8]> = vec![header];
        parts.extend([self.program.as_os_str().as_bytes(), END, self.directory.as_os_str().as_bytes(), END]);
        for argument in &self.arguments {
            parts.extend([argument, END]);
        }
        for variable in &self.environment {
            parts.extend(variable);
            parts.push(END);
        }
        parts
    }
}

fn write_all_parts(socket: &mut UnixStream, parts: &[&[u8]]) -> io::Result<()> {
    // What the kernel takes in one call (writev(2), IOV_MAX).
    const PARTS_MAX: usize = 1024;
    for parts in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Empty parts would look like a socket that takes nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match socket.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The numbers at the head of a frame.
struct Header {
    umask: u32,
    has_own_output: u32,
    arguments: u32,
    environment: u32,
    identity: [u8; Identity::BYTES],
    user: Option<Credentials>,
}

/// Whose rights a command has (credentials(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Credentials {
    fn of(user: &RunAs) -> Credentials {
        Credentials { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }

    fn take_on(&self) -> io::Result<()> {
        sys::become_user(self.uid, self.gid, &self.groups)
    }
}

impl Header {
    /// Without the user, for whom the numbers of its groups follow.
    const BYTES: usize = 16 + Identity::BYTES + 4;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        for number in [self.umask, self.has_own_output, self.arguments, self.environment] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.identity);
        // None, or uid and gid before the groups.
        let user =
            self.user.iter().flat_map(|user| [user.uid, user.gid].into_iter().chain(user.groups.iter().copied()));
        let user: Vec<u32> = user.collect();
        bytes.extend((user.len() as u32).to_le_bytes());
        bytes.extend(user.into_iter().flat_map(u32::to_le_bytes));
        bytes
    }

    /// The header, and what follows it.
    fn split_off(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (numbers, rest) = bytes.split_first_chunk::<16>()?;
        let (identity, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (user, rest) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(4)?)?;
        let [umask, has_own_output, arguments, environment] = words(numbers)[..] else { return None };
        let user = match words(user)[..] {
            [] => None,
            [uid, gid, ref groups @ ..] => Some(Credentials { uid, gid, groups: groups.to_vec() }),
            _ => return None,
        };
        Some((Header { umask, has_own_output, arguments, environment, identity: *identity, user }, rest))
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

/// Where a launcher stopped and why.
type Failure = (Stage, io::Error);

fn at<T>(stage: Stage, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| (stage, error))
}

/// The launcher's whole life. It comes back only if it could not become the program.
pub fn run() -> u8 {
    // Nobody else has use for this command: without the daemon's socket there is nothing to do.
    let Ok(socket) = sys::duplicate_above(io::stdin(), SOCKET_FLOOR) else {
        return 2;
    };
    let mut socket = UnixStream::from(socket);
    let Err((stage, error)) = become_program(&mut socket);
    let errno = error.raw_os_error().unwrap_or_default();
    let _ = socket.write_all(&[stage as u8]).and_then(|()| socket.write_all(&errno.to_le_bytes()));
    1
}

fn become_program(socket: &mut UnixStream) -> Result<std::convert::Infallible, Failure> {
    at(Stage::Session, sys::lead_session())?;
    // Before the frame, as it takes a while.
    sys::restore_signals();
    at(Stage::Session, socket.write_all(&[0]))?;
    let (mut frame, descriptors) = at(Stage::Frame, receive(socket))?;
    let received = at(Stage::Frame, Received::parse(&frame))?;
    let files = (descriptors.len() - STREAMS) as RawFd;
    at(Stage::Descriptors, lay_out(descriptors, socket))?;
    if let Some(user) = &received.header.user {
        let outputs = if received.header.has_own_output != 0 { 1..3 } else { 1..1 };
        let pipes = outputs.chain(FIRST_FILE..FIRST_FILE + files);
        at(Stage::User, give_pipes(user, pipes).and_then(|()| user.take_on()))?;
    }
    at(Stage::Directory, std::env::set_current_dir(OsStr::from_bytes(received.directory.to_bytes())))?;
    sys::set_umask(received.header.umask);
    let program = at(Stage::Identity, open_known(received.program, &received.header.identity))?;
    let error = program.exec(received.program, &received.arguments, &received.environment);
    frame.zeroize();
    Err((Stage::Exec, error))
}

fn receive(socket: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut prefix = [0; 4];
    let (len, descriptors) = sys::receive_with_descriptors(&*socket, &mut prefix)?;
    if len < prefix.len() {
        socket.read_exact(&mut prefix[len..])?;
    }
    let len = u32::from_le_bytes(prefix) as usize;
    if !(Header::BYTES..=FRAME_MAX).contains(&len) || descriptors.len() < STREAMS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Ordinary memory: nobody may look into this process, and all of it goes with the exec, by which the program is given
    // the same. Of its final size at once, so that no copy is left behind where there is no exec.
    let mut frame = vec![0; len];
    socket.read_exact(&mut frame)?;
    Ok((frame, descriptors))
}

/// A frame as the launcher reads it: everything points into the bytes received.
struct Received<'a> {
    header: Header,
    program: &'a CStr,
    directory: &'a CStr,
    arguments: Vec<&'a CStr>,
    environment: Vec<&'a CStr>,
}

impl<'a> Received<'a> {
    fn parse(frame: &'a [u8]) -> io::Result<Received<'a>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, strings) = Header::split_off(frame).ok_or_else(invalid)?;
        let mut strings = strings.split_inclusive(|&byte| byte == 0).map_while(|s| CStr::from_bytes_with_nul(s).ok());
        let program = strings.next().ok_or_else(invalid)?;
        let directory = strings.next().ok_or_else(invalid)?;
        let arguments: Vec<&CStr> = strings.by_ref().take(header.arguments as usize).collect();
        let environment: Vec<&CStr> = strings.by_ref().take(header.environment as usize).collect();
        let whole = arguments.len() == header.arguments as usize && environment.len() == header.environment as usize;
        if !whole || strings.next().is_some() {
            return Err(invalid());
        }
        Ok(Received { header, program, directory, arguments, environment })
    }
}

/// The streams and the `as: file` pipes get their numbers, everything else but the socket (closed on exec) is closed.
fn lay_out(mut descriptors: Vec<OwnedFd>, socket: &UnixStream) -> io::Result<()> {
    let files = descriptors.split_off(STREAMS);
    for (number, stream) in descriptors.into_iter().enumerate() {
        sys::move_descriptor(stream, number as RawFd)?;
    }
    // First out of the way of the numbers to come.
    let set_aside: Vec<OwnedFd> =
        files.iter().map(|fd| sys::duplicate_above(fd, SOCKET_FLOOR)).collect::<io::Result<_>>()?;
    drop(files);
    let end = FIRST_FILE + set_aside.len() as RawFd;
    for (number, file) in (FIRST_FILE..).zip(set_aside) {
        sys::move_descriptor(file, number)?;
    }
    let socket = socket.as_raw_fd();
    sys::close_range(3, FIRST_FILE - 1)?;
    sys::close_range(end, socket - 1)?;
    sys::close_range(socket + 1, RawFd::MAX)
}

/// The daemon's pipes, of output and of `as: file` secrets, become the user's own.
fn give_pipes(user: &Credentials, mut pipes: impl Iterator<Item = RawFd>) -> io::Result<()> {
    pipes.try_for_each(|fd| sys::give_pipe(fd, user.uid, user.gid))
}

/// Opens the program, which must be the file that the daemon looked at.
fn open_known(path: &CStr, identity: &[u8; Identity::BYTES]) -> io::Result<OpenProgram> {
    let program = OpenProgram::open(Path::new(OsStr::from_bytes(path.to_bytes())))?;
    let now = Identity::of(&program.metadata()?);
    if now.change(&Identity::from_bytes(identity)).is_some() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(program)
}
