//! `backupnizza secretbox TOKEN`: redeems a token and prints the secret, nothing else.

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{self, Head};
use crate::error::Error;
use crate::secret::{self, Protection};
use crate::sys;

/// A daemon may be restarting, or have its hands full.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// For the daemon's answer; it gives up a request after 2 s itself.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Redeems `token` at the first of `sockets` that exists and writes the secret to `output`.
pub fn redeem(sockets: &[PathBuf], token: &[u8], output: &mut impl Write) -> Result<(), Error> {
    let path = find_socket(sockets)?;
    let mut stream = connect(path)?;
    let failed = |error: io::Error| Error::new(path.display(), format!("no answer from the daemon: {error}"));
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER_TIME)).map_err(failed)?;
    match send_request(&mut stream, token) {
        Err(error) if !wire::is_hang_up(&error) => return Err(failed(error)),
        _ => {}
    }
    match wire::read_head(&mut stream).map_err(failed)? {
        Head::Secret(len) => pass_on(&mut stream, len, output),
        Head::Refused => Err(Error::new("secretbox", "the daemon refused the token")
            .hint("the daemon's log says why; tokens work in the session of the command that they were made for")),
        Head::OtherVersion => Err(Error::new("secretbox", "the daemon is of another version than this program")
            .hint("restart the daemon after an upgrade")),
    }
}

fn find_socket(sockets: &[PathBuf]) -> Result<&Path, Error> {
    let found = sockets.iter().find(|path| path.exists()).or(sockets.first());
    let path = found.ok_or_else(|| {
        Error::new("secretbox", "no socket known").hint("set BACKUPNIZZA_SOCKET or give --socket PATH")
    })?;
    check_owner(path)?;
    Ok(path)
}

/// A socket of another user's would get to know the token.
fn check_owner(path: &Path) -> Result<(), Error> {
    let missing = |error: io::Error| Error::new(path.display(), error).hint("is the daemon running?");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for place in [path, folder] {
        let uid = fs::metadata(place).map_err(missing)?.uid();
        if uid != sys::effective_uid() && uid != 0 {
            return Err(Error::new(place.display(), "belongs to another user"));
        }
    }
    Ok(())
}

fn connect(path: &Path) -> Result<UnixStream, Error> {
    let until = Instant::now() + CONNECT_TIME;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => {
                std::thread::sleep(CONNECT_PAUSE);
            }
            Err(error) => {
                return Err(
                    Error::new(path.display(), format!("cannot connect: {error}")).hint("is the daemon running?")
                );
            }
        }
    }
}

fn send_request(stream: &mut UnixStream, token: &[u8]) -> io::Result<()> {
    let request = wire::request(token);
    let mut parts = request.map(IoSlice::new);
    let mut rest = &mut parts[..];
    while !rest.is_empty() {
        let count = stream.write_vectored(rest)?;
        IoSlice::advance_slices(&mut rest, count);
    }
    Ok(())
}

/// Nothing is written before the whole secret is there: a tool must not take half of one for it.
fn pass_on(stream: &mut UnixStream, len: usize, output: &mut impl Write) -> Result<(), Error> {
    let memory = secret::protect(Protection::Secret)?;
    let mut value = memory.arena.block(len).map_err(|error| secret::no_memory(&error))?;
    stream
        .read_exact(&mut value)
        .map_err(|error| Error::new("secretbox", format!("the daemon's answer broke off: {error}")))?;
    output.write_all(&value).and_then(|()| output.flush()).map_err(|error| Error::new("standard output", error))
}
