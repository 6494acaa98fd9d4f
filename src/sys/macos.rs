//! What only macOS has: libproc, LOCAL_PEERPID, its clocks.

use std::ffi::{CStr, OsStr};
use std::fs::{self, Metadata};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use super::process::exec_path;
use super::{Process, Protection, check, session_of};

/// Rust's runtime ignores SIGPIPE, which is all that a flag could do here.
pub const SEND_FLAGS: libc::c_int = 0;
pub const RECEIVE_FLAGS: libc::c_int = 0;

/// NSIG of signal.h.
pub const SIGNALS_END: libc::c_int = 32;

/// minherit(2), from mach/vm_inherit.h.
const VM_INHERIT_NONE: libc::c_int = 2;

unsafe extern "C" {
    fn minherit(addr: *mut libc::c_void, len: libc::size_t, inherit: libc::c_int) -> libc::c_int;
}

/// Maps `len` zero bytes; there is no `memfd_secret` here.
pub fn map_protected(protection: Protection, len: usize) -> io::Result<NonNull<u8>> {
    if protection == Protection::Secret {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range was mapped above.
    let locked = check(unsafe { libc::mlock(start, len) });
    // SAFETY: as above; children get no mapping at all.
    let protected = locked.and_then(|_| check(unsafe { minherit(start, len, VM_INHERIT_NONE) }));
    if let Err(error) = protected {
        // SAFETY: a whole mapping that this function has just made, which nobody else knows.
        unsafe { libc::munmap(start, len) };
        return Err(error);
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// ptrace(2), PT_DENY_ATTACH: no debugger, no dtrace.
pub fn forbid_inspection() {
    // SAFETY: this request takes no pointer.
    unsafe { libc::ptrace(libc::PT_DENY_ATTACH, 0, std::ptr::null_mut(), 0) };
}

/// clock_gettime(3): this one goes on while asleep here.
pub const BOOT_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
pub const AWAKE_CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW;

/// Access lists here have nothing to do with the group's permission, which is all that this is asked for.
pub fn has_access_list(_: &Path) -> bool {
    false
}

/// Names this boot of this machine.
pub fn boot_id() -> String {
    system_value(c"kern.bootsessionuuid")
}

/// Names this machine.
pub fn machine_id() -> String {
    system_value(c"kern.uuid")
}

fn system_value(name: &CStr) -> String {
    let mut buffer = [0u8; 128];
    let mut len = buffer.len();
    // SAFETY: `buffer` has `len` bytes and both outlive the call; nothing is set.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), buffer.as_mut_ptr().cast(), &mut len, std::ptr::null_mut(), 0) };
    if result != 0 {
        return String::new();
    }
    CStr::from_bytes_until_nul(&buffer).map_or(String::new(), |text| text.to_string_lossy().into_owned())
}

/// The per-user temporary folder (confstr(3), _CS_DARWIN_USER_TEMP_DIR).
pub fn default_runtime_directory() -> Option<PathBuf> {
    let mut buffer = [0u8; 1024];
    // SAFETY: the pointer and the length describe `buffer`.
    let len = unsafe { libc::confstr(libc::_CS_DARWIN_USER_TEMP_DIR, buffer.as_mut_ptr().cast(), buffer.len()) };
    if len == 0 || len > buffer.len() {
        return None;
    }
    Some(OsStr::from_bytes(&buffer[..len - 1]).into())
}

/// The address of a socket; there are only paths here.
pub fn socket_address(name: &OsStr) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

/// The executable from which launchers start: the file itself, which System Integrity Protection
/// and PT_DENY_ATTACH keep from being looked into.
pub struct LauncherImage {
    path: PathBuf,
    pub fallback: Option<io::Error>,
}

impl LauncherImage {
    pub fn new() -> LauncherImage {
        match std::env::current_exe() {
            Ok(path) => LauncherImage { path, fallback: None },
            Err(error) => LauncherImage { path: PathBuf::new(), fallback: Some(error) },
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A program that is about to be executed. There is no way here but by its path.
pub struct OpenProgram(Metadata);

impl OpenProgram {
    /// Looks at the file at `path`, its links followed.
    pub fn open(path: &Path) -> io::Result<OpenProgram> {
        fs::metadata(path).map(OpenProgram)
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        Ok(self.0.clone())
    }

    /// Replaces this process by the program at `path`. Comes back only with an error.
    pub fn exec(&self, path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> io::Error {
        exec_path(path, arguments, environment)
    }
}

/// The process at the other end of a socket.
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub session: i32,
    started: u64,
}

/// Who connected (unix(4): LOCAL_PEERPID; getpeereid(3)).
pub fn peer(socket: &UnixStream) -> io::Result<Peer> {
    let mut pid: libc::pid_t = 0;
    let mut len = mem::size_of_val(&pid) as libc::socklen_t;
    // SAFETY: `pid` has `len` bytes and both outlive the call.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_LOCAL, libc::LOCAL_PEERPID, (&raw mut pid).cast(), &mut len)
    })?;
    if pid <= 0 {
        return Err(io::Error::other("the peer has no pid"));
    }
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: both pointers are valid for the call.
    check(unsafe { libc::getpeereid(socket.as_raw_fd(), &mut uid, &mut gid) })?;
    let gone = || io::Error::other("the peer is gone");
    let session = session_of(pid).ok_or_else(gone)?;
    let started = process(pid).ok_or_else(gone)?.started;
    Ok(Peer { pid, uid, session, started })
}

impl Peer {
    /// Whether the same process still has the peer's pid and session.
    pub fn is_alive(&self) -> bool {
        session_of(self.pid) == Some(self.session)
            && process(self.pid).is_some_and(|process| process.started == self.started && !process.zombie)
    }
}

/// The pids of all processes (libproc.h).
pub fn pids() -> io::Result<Vec<i32>> {
    // Room for processes that start between the two calls.
    const SLACK: usize = 64;
    // SAFETY: with a null buffer it only counts.
    let count = check(unsafe { libc::proc_listallpids(std::ptr::null_mut(), 0) })? as usize;
    let mut pids: Vec<libc::pid_t> = vec![0; count + SLACK];
    let bytes = mem::size_of_val(pids.as_slice()) as libc::c_int;
    // SAFETY: the pointer and the size describe `pids`.
    let count = check(unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), bytes) })? as usize;
    pids.truncate(count);
    Ok(pids)
}

/// One process, `None` if there is none with this pid.
pub fn process(pid: i32) -> Option<Process> {
    // SAFETY: all-zero bytes are a valid proc_bsdinfo.
    let mut info: libc::proc_bsdinfo = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info) as libc::c_int;
    // SAFETY: `info` has `size` bytes and outlives the call.
    let len = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, (&raw mut info).cast(), size) };
    if len != size {
        return None;
    }
    let name: Vec<u8> = info.pbi_comm.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    Some(Process {
        pid,
        parent: info.pbi_ppid as i32,
        session: session_of(pid)?,
        started: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
        name: String::from_utf8_lossy(&name).into_owned(),
        called: String::new(),
        zombie: info.pbi_status == libc::SZOMB,
    })
}

/// As `Process::started`.
pub fn start_of(pid: i32) -> Option<u64> {
    process(pid).map(|process| process.started)
}

/// Nothing here moves bytes from a socket into a pipe.
pub fn pass_on(_: &impl AsFd, _: &impl AsFd, _: usize) -> io::Result<bool> {
    Ok(false)
}

/// Whether `number` stands for anything. Nothing tells here, short of looking at all processes.
pub fn is_in_use(_: i32, _: &impl AsFd) -> bool {
    true
}

/// What becomes readable when the child `pid` has ended, whoever reaps it: a queue of that one event (kqueue(2),
/// EVFILT_PROC), which poll(2) can wait for as for any other descriptor.
pub fn watch_exit(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: kqueue takes nothing.
    let raw = check(unsafe { libc::kqueue() })?;
    // SAFETY: the call has just made this descriptor. It is never inherited by a child (kqueue(2)).
    let queue = unsafe { OwnedFd::from_raw_fd(raw) };
    let event = libc::kevent {
        ident: pid as libc::uintptr_t,
        filter: libc::EVFILT_PROC,
        flags: libc::EV_ADD,
        fflags: libc::NOTE_EXIT,
        data: 0,
        udata: std::ptr::null_mut(),
    };
    // SAFETY: the one event that is described outlives the call, and none is asked for.
    check(unsafe { libc::kevent(raw, &event, 1, std::ptr::null_mut(), 0, std::ptr::null()) })?;
    Ok(queue)
}

/// For how long `process` has been there, by the wall clock; a program that replaced another counts from that one's
/// start.
pub fn age(process: &Process) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(process.started))
}

/// Other processes' environments are not shown here.
pub fn was_given(_: i32, _: &str) -> bool {
    false
}

/// Sends `signal` to `process` if it still is that process and still belongs to `session`.
pub fn send_signal_in_session(process: &Process, session: i32, signal: i32) -> io::Result<bool> {
    let same = self::process(process.pid).is_some_and(|now| now.started == process.started && now.session == session);
    if !same {
        return Ok(false);
    }
    match super::kill_process(process.pid, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        result => result.map(|()| true),
    }
}

/// There are no keyrings of the kernel here.
pub fn leave_keyring() {}

/// There are no capabilities here.
pub fn drop_capabilities() -> io::Result<()> {
    Ok(())
}

/// Names such as `/dev/stderr` open what is open already here (fd(4)), whoever made it.
pub fn give_pipe(_: RawFd, _: u32, _: u32) -> io::Result<()> {
    Ok(())
}

/// Closes the descriptors `first..=last`, as far as this process can have any.
pub fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: getdtablesize takes nothing.
    let end = unsafe { libc::getdtablesize() };
    for fd in first..=last.min(end) {
        // SAFETY: the launcher is alone in its process and uses none of these descriptors any more.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// There is no flag for it on receipt here, and the launcher has one thread.
pub fn close_on_exec(descriptors: &[OwnedFd]) -> io::Result<()> {
    for fd in descriptors {
        // SAFETY: F_SETFD takes an integer.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    Ok(())
}
