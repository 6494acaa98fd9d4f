//! What a launcher is told: who it is to become, with which arguments, environment and descriptors. One frame, both
//! ends.

use std::ffi::CStr;
use std::io::{self, IoSlice, Read};
use std::iter;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::FILES_MAX;
use crate::plan::RunAs;
use crate::program::Identity;
use crate::sys;

/// Arguments and environment together; Linux takes 2 MiB by default (execve(2)).
const FRAME_MAX: usize = 8 * 1024 * 1024;

/// Standard input, output and error come before the files.
pub const STREAMS: usize = 3;

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
    pub streams: [BorrowedFd<'a>; STREAMS],
    /// Become `FIRST_FILE` and so on.
    pub files: Vec<BorrowedFd<'a>>,
}

impl Frame<'_> {
    /// Sends it whole, with its descriptors.
    pub fn send(&self, socket: &mut UnixStream) -> io::Result<()> {
        if self.files.len() > FILES_MAX {
            return Err(io::Error::other("too many secrets as files"));
        }
        let header = Header {
            umask: self.umask,
            has_own_output: u32::from(self.has_own_output),
            arguments: self.arguments.len() as u32,
            environment: self.environment.len() as u32,
            identity: self.identity.to_bytes(),
            user: self.user.map(Credentials::of),
        }
        .to_bytes();
        let parts = self.parts(&header);
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > FRAME_MAX {
            return Err(io::Error::other("arguments and environment are too long"));
        }
        let descriptors: Vec<BorrowedFd<'_>> = self.streams.iter().chain(&self.files).copied().collect();
        let prefix = (len as u32).to_le_bytes();
        let whole: Vec<&[u8]> = iter::once(&prefix[..]).chain(parts).collect();
        send_all_parts(socket, &whole, &descriptors)
    }

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

/// The descriptors go with the first bytes, and as much else as does, so that who waits is woken once.
fn send_all_parts(socket: &mut UnixStream, parts: &[&[u8]], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // What the kernel takes in one call (writev(2), IOV_MAX).
    const PARTS_MAX: usize = 1024;
    let mut descriptors = descriptors;
    for parts in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Empty parts would look like a socket that takes nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match sys::send_with_descriptors(&*socket, rest, mem::take(&mut descriptors))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => IoSlice::advance_slices(&mut rest, count),
            }
        }
    }
    Ok(())
}

/// The numbers at the head of a frame.
pub struct Header {
    pub umask: u32,
    pub has_own_output: u32,
    arguments: u32,
    environment: u32,
    pub identity: [u8; Identity::BYTES],
    pub user: Option<Credentials>,
}

/// Whose rights a command has (credentials(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Credentials {
    fn of(user: &RunAs) -> Credentials {
        Credentials { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
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

/// The next frame, with its descriptors.
pub fn receive(socket: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut prefix = [0; 4];
    let (len, descriptors) = sys::receive_with_descriptors(&*socket, &mut prefix)?;
    if len < prefix.len() {
        socket.read_exact(&mut prefix[len..])?;
    }
    let len = u32::from_le_bytes(prefix) as usize;
    if !(Header::BYTES..=FRAME_MAX).contains(&len) || descriptors.len() < STREAMS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Ordinary memory: nobody may look into this process, and all of it goes with the exec, by which the program is
    // given the same. Of its final size at once, so that no copy is left behind where there is no exec.
    let mut frame = vec![0; len];
    socket.read_exact(&mut frame)?;
    Ok((frame, descriptors))
}

/// A frame as the launcher reads it: everything points into the bytes received.
pub struct Received<'a> {
    pub header: Header,
    pub program: &'a CStr,
    pub directory: &'a CStr,
    pub arguments: Vec<&'a CStr>,
    pub environment: Vec<&'a CStr>,
}

impl<'a> Received<'a> {
    pub fn parse(frame: &'a [u8]) -> io::Result<Received<'a>> {
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
