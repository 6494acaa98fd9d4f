//! `backupnizza secretbox TOKEN`: redeems a token and prints the secret, nothing else.
//!
//! Into a pipe, which is what tools give it, the kernel moves the secret by itself: it never comes into this process.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::wire::{self, Head};
use crate::error::Error;
use crate::secret::{self, Protection};
use crate::socket;
use crate::sys;

/// For the daemon's answer; it gives up a request after 2 s itself.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Redeems `token` at the first of `sockets` that exists and writes the secret to `output`.
pub fn redeem(sockets: &[PathBuf], token: &[u8], output: &mut File) -> Result<(), Error> {
    let path = socket::find(sockets)?;
    let mut stream = socket::connect(path)?;
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
            .hint("the daemon's log says why; a token works in the session of the command that it was made for, never by hand")),
        Head::OtherVersion => Err(Error::new("secretbox", "the daemon is of another version than this program")
            .hint("restart the daemon after an upgrade")),
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
fn pass_on(stream: &mut UnixStream, len: usize, output: &mut File) -> Result<(), Error> {
    let not_written = |error: io::Error| Error::new("standard output", error);
    if sys::pass_on(stream, output, len).map_err(not_written)? {
        return Ok(());
    }
    let arena = secret::protect(Protection::Secret)?.arena;
    let mut value = arena.block(len).map_err(|error| secret::no_memory(&error))?;
    stream
        .read_exact(&mut value)
        .map_err(|error| Error::new("secretbox", format!("the daemon's answer broke off: {error}")))?;
    output.write_all(&value).map_err(not_written)
}
