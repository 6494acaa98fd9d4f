//! The launcher's own life: from a fresh process to the program, by exec.

use std::ffi::{CStr, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use zeroize::Zeroize;

use super::frame::{self, Credentials, Received, STREAMS};
use super::{FILES_MAX, FIRST_FILE, Stage};
use crate::program::Identity;
use crate::sys::{self, OpenProgram};

/// The launcher's own end of the socket stands above all that it lays out, and no higher: the limit
/// of descriptors may be low.
const SOCKET_FLOOR: RawFd = FIRST_FILE + FILES_MAX as RawFd;

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
    let (mut bytes, descriptors) = at(Stage::Frame, frame::receive(socket))?;
    let failed = become_received(&bytes, descriptors, socket);
    bytes.zeroize();
    failed
}

fn become_received(
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
    socket: &UnixStream,
) -> Result<std::convert::Infallible, Failure> {
    let received = at(Stage::Frame, Received::parse(bytes))?;
    let files = (descriptors.len() - STREAMS) as RawFd;
    at(Stage::Descriptors, lay_out(descriptors, socket))?;
    if let Some(user) = &received.header.user {
        let outputs = if received.header.has_own_output != 0 { 1..3 } else { 1..1 };
        let pipes = outputs.chain(FIRST_FILE..FIRST_FILE + files);
        at(Stage::User, give_pipes(user, pipes).and_then(|()| take_on(user)))?;
    }
    at(Stage::Directory, std::env::set_current_dir(OsStr::from_bytes(received.directory.to_bytes())))?;
    sys::set_umask(received.header.umask);
    let program = at(Stage::Identity, open_known(received.program, &received.header.identity))?;
    Err((Stage::Exec, program.exec(received.program, &received.arguments, &received.environment)))
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

fn take_on(user: &Credentials) -> io::Result<()> {
    sys::become_user(user.uid, user.gid, &user.groups)
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
