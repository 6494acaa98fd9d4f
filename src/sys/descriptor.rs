//! File descriptors: passing them, moving them, waiting for them.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::{check, check_size};

/// The most descriptors that one message carries: standard input and a pipe for each `as: file`.
pub const DESCRIPTORS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
}

/// A descriptor to wait for, and whether it was found ready (or broken, which a read or write will tell).
pub struct Watched<'fd> {
    pub fd: BorrowedFd<'fd>,
    pub interest: Interest,
    pub ready: bool,
}

impl<'fd> Watched<'fd> {
    pub fn new(fd: BorrowedFd<'fd>, interest: Interest) -> Self {
        Watched { fd, interest, ready: false }
    }
}

/// Waits until one of `watched` is ready or `timeout` has passed (`None`: for ever). An
/// interruption by a signal counts as a wake-up with nothing ready.
pub fn poll(watched: &mut [Watched<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut entries: Vec<libc::pollfd> = watched
        .iter()
        .map(|item| libc::pollfd {
            fd: item.fd.as_raw_fd(),
            events: match item.interest {
                Interest::Read => libc::POLLIN,
                Interest::Write => libc::POLLOUT,
            },
            revents: 0,
        })
        .collect();
    // Rounded up, so that a wait never ends before its time.
    let milliseconds = timeout.map_or(-1, |time| i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the pointer and the count describe `entries`, which outlives the call.
    let result = check(unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) });
    match result {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    for (item, entry) in watched.iter_mut().zip(&entries) {
        item.ready = entry.revents != 0;
    }
    Ok(())
}

pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: F_GETFL takes no pointer; the descriptor is open for as long as it is borrowed.
    let flags = check(unsafe { libc::fcntl(raw, libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(raw, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// A copy of `fd` numbered `lowest` or above, closed on exec.
pub fn duplicate_above(fd: impl AsFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    let raw = check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: the call has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes `number` refer to what `fd` refers to, kept open across exec. For the launcher, which
/// is alone in its process and lays out descriptors for the program to come.
pub fn move_descriptor(fd: OwnedFd, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: F_SETFD takes an integer.
        check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
        mem::forget(fd);
        return Ok(());
    }
    // SAFETY: dup2 takes integers; the launcher holds nothing that it still needs at `number`.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// Sends the first of `parts` together with `descriptors`; returns how many bytes went.
pub fn send_with_descriptors(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let payload = mem::size_of_val(descriptors);
    // SAFETY: these macros only compute sizes.
    let space = unsafe { libc::CMSG_SPACE(payload as libc::c_uint) } as usize;
    let mut control = vec![0u64; space.div_ceil(8)];
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // An IoSlice is laid out as an iovec, as the standard library promises.
    message.msg_iov = parts.as_ptr() as *mut libc::iovec;
    message.msg_iovlen = parts.len() as _;
    if !descriptors.is_empty() {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = space as _;
        // SAFETY: `msg_control` has room for one header and its payload, so the first header
        // exists and its data may be written; descriptors are plain integers.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload as libc::c_uint) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (index, fd) in descriptors.iter().enumerate() {
                data.add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: `message` points at `parts` and `control`, which outlive the call and are only read.
        let sent = check_size(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, super::os::SEND_FLAGS) });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent,
        }
    }
}

/// Receives up to `buffer.len()` bytes and the descriptors that came with them (closed on exec).
pub fn receive_with_descriptors(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // SAFETY: this macro only computes a size.
    let space = unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * mem::size_of::<RawFd>()) as libc::c_uint) } as usize;
    let mut control = vec![0u64; space.div_ceil(8)];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: `message` points at `part` and `control`, which outlive the call.
    let len = check_size(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, super::os::RECEIVE_FLAGS) })?;
    let mut descriptors = Vec::new();
    // SAFETY: the headers are walked by the macros made for it within what the kernel filled in;
    // every descriptor in an SCM_RIGHTS message is new and ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / mem::size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    super::os::close_on_exec(&descriptors)?;
    Ok((len, descriptors))
}

/// Whether a call failed because the process or the system has no descriptor left.
pub fn lacks_descriptor(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Reads what the next read will read again (recv(2), MSG_PEEK).
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the size describe `buffer`, which outlives the call.
    check_size(unsafe { libc::recv(raw, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_PEEK) })
}

/// The controlling terminal, for a conversation that must not mix with redirected streams.
pub fn open_controlling_terminal() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// Opens a file for reading, and comes back at once should it be a pipe that nobody writes to.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}
