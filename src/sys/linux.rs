//! What only Linux has: memfd_secret, sealed memfds, pidfds, /proc.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use super::process::{exec_path, null_terminated};
use super::{Interest, Process, Protection, Watched, boot_clock, check, check_size, poll, session_of};

pub const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
pub const RECEIVE_FLAGS: libc::c_int = libc::MSG_CMSG_CLOEXEC;

/// One past the last real-time signal (signal(7)).
pub const SIGNALS_END: libc::c_int = 65;

/// Maps `len` zero bytes under `protection`.
pub fn map_protected(protection: Protection, len: usize) -> io::Result<NonNull<u8>> {
    match protection {
        Protection::Secret => map_secret(len),
        Protection::Locked => map_locked(len),
    }
}

fn map_secret(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: memfd_secret takes flags only.
    let raw = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let raw = check(raw as libc::c_int)?;
    // SAFETY: the call has just made this descriptor. It is closed at the end of this function,
    // so that nobody can find the memory through /proc.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
    file.set_len(len as u64)?;
    let start = map(len, libc::MAP_SHARED, file.as_raw_fd())?;
    kept(start, len, advise(start, len, libc::MADV_DONTFORK))
}

fn map_locked(len: usize) -> io::Result<NonNull<u8>> {
    let start = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    // SAFETY: the range was mapped above.
    let locked = check(unsafe { libc::mlock(start.as_ptr().cast(), len) });
    let advised = locked
        .and_then(|_| advise(start, len, libc::MADV_DONTDUMP))
        .and_then(|()| advise(start, len, libc::MADV_WIPEONFORK));
    kept(start, len, advised)
}

/// The mapping, if all that protects it was `done`; otherwise it is gone.
fn kept(start: NonNull<u8>, len: usize, done: io::Result<()>) -> io::Result<NonNull<u8>> {
    if done.is_err() {
        // SAFETY: a whole mapping that this module has just made, which nobody else knows.
        unsafe { libc::munmap(start.as_ptr().cast(), len) };
    }
    done.map(|()| start)
}

fn map(len: usize, flags: libc::c_int, fd: RawFd) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn advise(start: NonNull<u8>, len: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the range is a whole mapping made by this module; none of the advice used changes
    // what this process itself reads from it.
    check(unsafe { libc::madvise(start.as_ptr().cast(), len, advice) })?;
    Ok(())
}

/// prctl(2), PR_SET_DUMPABLE: no core file, and /proc/PID of this process belongs to root.
pub fn forbid_inspection() {
    // SAFETY: this option takes an integer.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

pub const BOOT_CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
pub const AWAKE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Whether more than owner, group and others have permissions of their own on the file at `path` (acl(5)).
pub fn has_access_list(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both names are C strings; without room for the value the call only tells its length.
    let len = unsafe { libc::getxattr(path.as_ptr(), c"system.posix_acl_access".as_ptr(), std::ptr::null_mut(), 0) };
    len > 0
}

/// Names this boot of this machine (random(4)).
pub fn boot_id() -> String {
    first_line("/proc/sys/kernel/random/boot_id")
}

/// Names this machine (machine-id(5)); empty where there is no such file.
pub fn machine_id() -> String {
    first_line("/etc/machine-id")
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// On Linux the folder comes with `$XDG_RUNTIME_DIR` or not at all.
pub fn default_runtime_directory() -> Option<PathBuf> {
    None
}

/// The address of a datagram socket as sd_notify(3) names it: a path, or behind an `@` a name that
/// is in no file system (unix(7)).
pub fn socket_address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_encoded_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(name),
    }
}

/// This program, also after its file was replaced or removed.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The executable from which launchers start: a sealed copy of this program that nobody can
/// read, so that nobody can look into a launcher between its exec and its `main`.
pub struct LauncherImage {
    /// Kept open for as long as launchers are to be started.
    _file: Option<File>,
    path: PathBuf,
    /// Why it is the readable file itself, where it is.
    pub fallback: Option<io::Error>,
}

impl LauncherImage {
    pub fn new() -> LauncherImage {
        let itself = |fallback| LauncherImage { path: OWN_EXECUTABLE.into(), _file: None, fallback };
        let source = match File::open(OWN_EXECUTABLE) {
            Ok(source) => source,
            // Installed as root's with mode 0711, it is as unreadable as a copy would be.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return itself(None),
            Err(error) => return itself(Some(error)),
        };
        match sealed_copy(source) {
            Ok(file) => LauncherImage {
                path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
                _file: Some(file),
                fallback: None,
            },
            Err(error) => itself(Some(error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn sealed_copy(mut source: File) -> io::Result<File> {
    let mut copy = executable_memfd()?;
    io::copy(&mut source, &mut copy)?;
    copy.flush()?;
    // SAFETY: fchmod takes integers.
    check(unsafe { libc::fchmod(copy.as_raw_fd(), 0o111) })?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(copy)
}

fn executable_memfd() -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know MFD_EXEC and need no leave to execute.
    let raw = memfd(flags | libc::MFD_EXEC).or_else(|_| memfd(flags))?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { File::from_raw_fd(raw) })
}

fn memfd(flags: libc::c_uint) -> io::Result<RawFd> {
    // SAFETY: the name is a C string.
    check(unsafe { libc::memfd_create(c"backupnizza".as_ptr(), flags) })
}

/// A program that is about to be executed: this very file, whatever stands at its path by then.
pub struct OpenProgram(File);

impl OpenProgram {
    /// Opens the file at `path`, its links followed. It need not be readable (open(2), O_PATH).
    pub fn open(path: &Path) -> io::Result<OpenProgram> {
        File::options().read(true).custom_flags(libc::O_PATH).open(path).map(OpenProgram)
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Replaces this process by the program. Comes back only with an error.
    ///
    /// A script goes by `path`: its interpreter would have to open the descriptor, which is closed on exec, so the
    /// kernel says ENOENT (execveat(2)). It does so too where a program's own loader is missing, and says the same
    /// again then.
    pub fn exec(&self, path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> io::Error {
        let (listed, variables) = (null_terminated(arguments), null_terminated(environment));
        // SAFETY: both arrays end in null and their strings outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                listed.as_ptr(),
                variables.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The last two from a filter of system calls; nobody can bring about any of them by exchanging the file.
            Some(libc::ENOENT | libc::ENOSYS | libc::EPERM) => exec_path(path, arguments, environment),
            _ => error,
        }
    }
}

/// The process at the other end of a socket, as it was when it connected.
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub session: i32,
    handle: OwnedFd,
}

/// Who connected (unix(7), SO_PEERCRED and SO_PEERPIDFD). A peer that has no pid here or that is
/// gone already is an error.
pub fn peer(socket: &UnixStream) -> io::Result<Peer> {
    let credentials: libc::ucred = option(socket, libc::SO_PEERCRED)?;
    if credentials.pid <= 0 {
        return Err(io::Error::other("the peer has no pid in this namespace"));
    }
    let handle = match option::<RawFd>(socket, libc::SO_PEERPIDFD) {
        // SAFETY: the call has just made this descriptor.
        Ok(raw) => unsafe { OwnedFd::from_raw_fd(raw) },
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => process_handle(credentials.pid)?,
        Err(error) => return Err(error),
    };
    let gone = || io::Error::other("the peer is gone");
    let session = session_of(credentials.pid).ok_or_else(gone)?;
    let peer = Peer { pid: credentials.pid, uid: credentials.uid, session, handle };
    // Only now is it sure that the session was not that of another process with a pid used again.
    if peer.is_alive() { Ok(peer) } else { Err(gone()) }
}

impl Peer {
    pub fn is_alive(&self) -> bool {
        is_running(&self.handle)
    }
}

fn option<T>(socket: &UnixStream, name: libc::c_int) -> io::Result<T> {
    // SAFETY: callers ask for options whose value is plain integers, for which zeros are valid.
    let mut value: T = unsafe { mem::zeroed() };
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has `len` bytes and both outlive the call.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

fn process_handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as libc::c_int)?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// What becomes readable when the child `pid` has ended, whoever reaps it: a pidfd.
pub fn watch_exit(pid: i32) -> io::Result<OwnedFd> {
    process_handle(pid)
}

/// A pidfd becomes readable when its process ends (pidfd_open(2)).
fn is_running(handle: &OwnedFd) -> bool {
    let mut watched = [Watched::new(handle.as_fd(), Interest::Read)];
    poll(&mut watched, Some(Duration::ZERO)).is_ok() && !watched[0].ready
}

/// The pids of all processes that /proc shows (proc(5)).
pub fn pids() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// One process, `None` if there is none with this pid.
pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let process = parse_stat(pid, &String::from_utf8_lossy(&stat))?;
    let leads = process.session == pid;
    Some(Process { called: if leads { called(pid) } else { String::new() }, ..process })
}

/// As `Process::started`.
pub fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&stat)).map(|process| process.started)
}

/// Whether `number` stands for anything: a session keeps it for as long as one process belongs to it. Asked of `file`,
/// whose owner for signals nobody may be who is not there (fcntl(2), F_SETOWN; a kernel before 4.14 always says yes).
pub fn is_in_use(number: i32, file: &impl AsFd) -> bool {
    // SAFETY: F_SETOWN takes an integer; no signals were asked for, so the owner gets none.
    let result = check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETOWN, number) });
    !result.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// The base name of the first argument with which `pid` was started.
fn called(pid: i32) -> String {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = command_line.split(|&byte| byte == 0).next().unwrap_or_default();
    Path::new(OsStr::from_bytes(first)).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// For how long `process` has been there; a program that replaced another counts from that one's start.
pub fn age(process: &Process) -> Duration {
    // SAFETY: sysconf takes an integer.
    let ticks_per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    // proc_pid_stat(5): starttime is in ticks after boot, by the clock that counts suspends.
    let started = Duration::from_millis(process.started.saturating_mul(1_000) / ticks_per_second);
    boot_clock().saturating_sub(started)
}

/// Whether `pid` was started with the variable `entry` (`NAME=value`), as far as this user may know.
pub fn was_given(pid: i32, entry: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|variable| variable == entry.as_bytes())
}

/// `pid (name) state ppid pgrp session … starttime …`; the name may hold anything, also `)`.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    Some(Process {
        pid,
        name: name.to_owned(),
        called: String::new(),
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Sends `signal` to `process` if it still lives and still belongs to `session`. Through a pidfd,
/// so that a pid that was used again is never hit.
pub fn send_signal_in_session(process: &Process, session: i32, signal: i32) -> io::Result<bool> {
    let handle = match process_handle(process.pid) {
        Ok(handle) => handle,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
        Err(error) => return Err(error),
    };
    if session_of(process.pid) != Some(session) || !is_running(&handle) {
        return Ok(false);
    }
    // SAFETY: pidfd_send_signal takes integers and a siginfo, for which null means "as kill does".
    let result = check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    } as libc::c_int);
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        result => result.map(|_| true),
    }
}

/// A session keyring of its own, lest it possess the one in which root may keep keys (keyctl(2)).
pub fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: with a null name the call makes an anonymous keyring. A kernel without keyrings has none to leave.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Empties all sets of capabilities: setuid(2) clears all but the inheritable one (capabilities(7)).
pub fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    /// _LINUX_CAPABILITY_VERSION_3, which has two words a set.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let none = [0_u32; 6];
    // SAFETY: both have the layout of capset(2) and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } as libc::c_int)?;
    Ok(())
}

/// Makes a pipe `uid`'s own, who may then open it by a name such as `/dev/stderr`; other files stay as they are.
/// `number` is a descriptor that the launcher has laid out.
pub fn give_pipe(number: RawFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: the launcher, alone in its process, has opened this descriptor and closes it only by exec.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let is_pipe = File::from(fd.try_clone_to_owned()?).metadata()?.file_type().is_fifo();
    if is_pipe { std::os::unix::fs::fchown(fd, Some(uid), Some(gid)) } else { Ok(()) }
}

/// Moves `len` bytes that have come at `socket` into `pipe` without taking them into this process (splice(2)). False:
/// they have not all come, or `pipe` is none, and nothing was moved.
pub fn pass_on(socket: &impl AsFd, pipe: &impl AsFd, len: usize) -> io::Result<bool> {
    let (socket, pipe) = (socket.as_fd().as_raw_fd(), pipe.as_fd().as_raw_fd());
    let mut ready: libc::c_int = 0;
    // SAFETY: FIONREAD fills in the one integer that it is given (unix(7)).
    check(unsafe { libc::ioctl(socket, libc::FIONREAD, &raw mut ready) })?;
    if usize::try_from(ready).is_ok_and(|ready| ready < len) {
        return Ok(false);
    }
    let mut left = len;
    while left > 0 {
        // SAFETY: neither end has an offset, for which null stands; the rest are integers.
        let moved = unsafe { libc::splice(socket, std::ptr::null_mut(), pipe, std::ptr::null_mut(), left, 0) };
        match check_size(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => left -= moved,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && left == len => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Closes the descriptors `first..=last`.
pub fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the launcher is alone in its process and uses none of these descriptors any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last as libc::c_uint, 0) };
    check(result as libc::c_int)?;
    Ok(())
}

/// Received descriptors are closed on exec already, by MSG_CMSG_CLOEXEC.
pub fn close_on_exec(_: &[OwnedFd]) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_brackets_and_spaces() {
        let stat = "7 (a) (b c)) S 3 7 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let process = parse_stat(7, stat).expect("a process");
        assert_eq!(process.name, "a) (b c)");
        assert_eq!((process.parent, process.session, process.started), (3, 5, 4242));
    }
}
