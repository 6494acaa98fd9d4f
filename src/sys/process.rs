//! Processes: sessions, signals, waiting, and becoming another program.

use std::ffi::{CStr, c_char};
use std::io;
use std::mem;

use super::check;

/// A process as a listing of all processes shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    /// When it started, in a unit and from an origin of the system's own: with the pid it names
    /// one process of this boot.
    pub started: u64,
    /// The base name of its program's file, cut to 15 bytes; of a script the script's.
    pub name: String,
    /// The base name by which the leader of a session was called: the program that a launcher becomes may have a file
    /// of another name. Empty for others, and where it cannot be told.
    pub called: String,
    pub zombie: bool,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    Code(u8),
    Signal(i32),
}

/// Waits until the child `pid` has ended, and leaves it as a zombie, so that its pid and session
/// cannot be given to another process until it is reaped.
pub fn wait_without_reaping(pid: i32) -> io::Result<ExitKind> {
    loop {
        // SAFETY: all-zero bytes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: `info` outlives the call.
        let result =
            check(unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {
                // SAFETY: waitid has filled in the fields of SIGCHLD.
                let status = unsafe { info.si_status() };
                return Ok(if info.si_code == libc::CLD_EXITED {
                    ExitKind::Code(status as u8)
                } else {
                    ExitKind::Signal(status)
                });
            }
        }
    }
}

/// The session of process `pid`, `None` if there is no such process.
pub fn session_of(pid: i32) -> Option<i32> {
    // SAFETY: getsid takes an integer.
    check(unsafe { libc::getsid(pid) }).ok()
}

/// Makes this process the leader of a new session without a terminal.
pub fn lead_session() -> io::Result<()> {
    // SAFETY: setsid takes nothing.
    check(unsafe { libc::setsid() })?;
    Ok(())
}

/// Sends `signal` to `pid`; 0 only asks whether it exists.
pub fn kill_process(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes integers.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Sets the mask of this process (umask(2)); returns the one before.
#[allow(clippy::useless_conversion)] // It has 16 bits on macOS.
pub fn set_umask(mask: u32) -> u32 {
    // SAFETY: umask takes an integer and cannot fail.
    let before = unsafe { libc::umask(mask as libc::mode_t) };
    u32::from(before)
}

/// How many descriptors this process may have (getrlimit(2)).
pub fn descriptors_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call, which fills it.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if done == 0 { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 0 }
}

/// No core file of this process or of what it becomes, and no look at its memory by others of
/// the same user.
pub fn forbid_core_files() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` outlives the call. Lowering a limit cannot fail.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    super::os::forbid_inspection();
}

/// Default handlers for all signals and none of them blocked, as a program expects to be started.
pub fn restore_signals() {
    for signal in 1..super::os::SIGNALS_END {
        // SAFETY: SIG_DFL is no function of ours; KILL, STOP and the C library's own signals are
        // refused, which is right.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Replaces this process by the program at `path`. Comes back only with an error.
pub(super) fn exec_path(path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> io::Error {
    let arguments = null_terminated(arguments);
    let environment = null_terminated(environment);
    // SAFETY: both arrays end in null and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

pub(super) fn null_terminated(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}
