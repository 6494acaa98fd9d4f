//! Asking on a terminal without echo, and giving it back as it was, whatever happens.
//!
//! As readpassphrase(3) does it: while a terminal is silent, the signals that would end or stop
//! this process are only noted; once the terminal is as it was they are sent again, and do what
//! they would have done.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{check, open_controlling_terminal};

/// The longest line, in bytes and without its ending, that a terminal hands over whole: it drops
/// what goes beyond (termios(3), canonical mode; on macOS MAX_CANON of sys/syslimits.h).
#[cfg(target_os = "linux")]
pub const LINE_MAX: usize = 4095;
#[cfg(target_os = "macos")]
pub const LINE_MAX: usize = 1023;

/// The signals that a terminal's keys or its end bring about, and the usual one to end a process.
const CAUGHT: [libc::c_int; 7] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Those of `CAUGHT` after which a process is continued.
const STOPPING: u32 = bit(libc::SIGTSTP) | bit(libc::SIGTTIN) | bit(libc::SIGTTOU);

/// The signals that came while a terminal was silent, as bits by their numbers.
static NOTED: AtomicU32 = AtomicU32::new(0);

const fn bit(signal: libc::c_int) -> u32 {
    1 << signal
}

extern "C" fn note(signal: libc::c_int) {
    NOTED.fetch_or(bit(signal), Ordering::Relaxed);
}

/// What a signal that came while a terminal was silent asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// To end, as by Ctrl-C.
    End,
    /// To pause until continued, as by Ctrl-Z.
    Pause,
}

/// A terminal whose echo is off for as long as this lives. There may be one at a time.
pub struct HiddenInput<'terminal> {
    terminal: &'terminal File,
    before: libc::termios,
    handlers: [libc::sigaction; CAUGHT.len()],
}

impl<'terminal> HiddenInput<'terminal> {
    /// Turns echo off, and line editing and the keys that send signals on.
    pub fn begin(terminal: &'terminal File) -> io::Result<Self> {
        let before = modes(terminal)?;
        NOTED.store(0, Ordering::Relaxed);
        let guard = HiddenInput { terminal, before, handlers: CAUGHT.map(catch) };
        let mut silent = before;
        silent.c_lflag &= !(libc::ECHO | libc::ECHONL);
        silent.c_lflag |= libc::ICANON | libc::ISIG;
        silent.c_iflag |= libc::ICRNL;
        // What was typed ahead was echoed, so it is no passphrase: it is thrown away.
        set_modes(terminal, &silent)?;
        Ok(guard)
    }

    /// Whether a signal has come, and what it asks for. It is sent again when this is dropped.
    pub fn interruption(&self) -> Option<Interruption> {
        match NOTED.load(Ordering::Relaxed) {
            0 => None,
            noted if noted & !STOPPING == 0 => Some(Interruption::Pause),
            _ => Some(Interruption::End),
        }
    }
}

impl Drop for HiddenInput<'_> {
    fn drop(&mut self) {
        // What was typed but not read must not reach a shell that echoes it: it is thrown away.
        // In the background the terminal is another's, who has set it as they like.
        let _ = in_foreground(self.terminal).then(|| set_modes(self.terminal, &self.before));
        for (signal, handler) in CAUGHT.into_iter().zip(&self.handlers) {
            // SAFETY: `handler` is what sigaction filled in for this signal.
            unsafe { libc::sigaction(signal, handler, ptr::null_mut()) };
        }
        let noted = NOTED.swap(0, Ordering::Relaxed);
        for signal in CAUGHT.into_iter().filter(|&signal| noted & bit(signal) != 0) {
            // SAFETY: raise takes an integer. It acts on this thread, so before it comes back.
            unsafe { libc::raise(signal) };
        }
    }
}

/// Has `signal` noted from now on, unless this process ignores it; returns what was to happen before.
fn catch(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: all-zero bytes are a valid sigaction. Without SA_RESTART, so that calls are interrupted.
    let (mut before, mut noting): (libc::sigaction, libc::sigaction) = unsafe { (mem::zeroed(), mem::zeroed()) };
    noting.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: both outlive the call, and `note` only changes an atomic.
    unsafe { libc::sigaction(signal, &noting, &mut before) };
    if before.sa_sigaction == libc::SIG_IGN {
        // SAFETY: as above.
        unsafe { libc::sigaction(signal, &before, ptr::null_mut()) };
    }
    before
}

fn modes(terminal: &File) -> io::Result<libc::termios> {
    // SAFETY: all-zero bytes are a valid termios.
    let mut modes: libc::termios = unsafe { mem::zeroed() };
    // SAFETY: `modes` outlives the call.
    check(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut modes) })?;
    Ok(modes)
}

/// Sets `modes` and throws away what was typed and not read. From the background the terminal
/// answers with a signal, which ends the attempt.
fn set_modes(terminal: &File, modes: &libc::termios) -> io::Result<()> {
    loop {
        // SAFETY: `modes` outlives the call.
        match check(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSAFLUSH, modes) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && in_foreground(terminal) => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Whether this process may talk to `terminal`: one of another group that does is stopped.
pub fn in_foreground(terminal: &File) -> bool {
    // SAFETY: both take integers at most.
    let (foreground, own) = unsafe { (libc::tcgetpgrp(terminal.as_raw_fd()), libc::getpgrp()) };
    foreground == own
}

/// How many columns the terminal `fd` has; `None` if it is none or does not tell.
pub fn terminal_width(fd: impl AsFd) -> Option<usize> {
    // SAFETY: all-zero bytes are a valid winsize.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: `size` outlives the call, which fills it in.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) }).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Waits up to `time` until `terminal` has a line to read; says whether it has. A signal ends the
/// wait. By select(2), as poll(2) of macOS knows no terminals.
pub fn wait_for_line(terminal: &File, time: Duration) -> io::Result<bool> {
    let fd = terminal.as_raw_fd();
    if fd as usize >= libc::FD_SETSIZE {
        return Err(io::Error::other("too many open files"));
    }
    let mut timeout = libc::timeval {
        tv_sec: time.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: time.subsec_micros() as libc::suseconds_t,
    };
    // SAFETY: all-zero bytes are an empty fd_set, and `fd` is within its size.
    let mut readable: libc::fd_set = unsafe { mem::zeroed() };
    // SAFETY: as above.
    unsafe { libc::FD_SET(fd, &mut readable) };
    // SAFETY: the set and the time outlive the call; the others may be null.
    let ready = check(unsafe { libc::select(fd + 1, &mut readable, ptr::null_mut(), ptr::null_mut(), &mut timeout) });
    match ready {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        result => result.map(|count| count > 0),
    }
}

/// The controlling terminal as it is now, for when a program that is killed leaves it silent.
pub struct TerminalModes {
    terminal: File,
    modes: libc::termios,
}

impl TerminalModes {
    /// `None` where there is no terminal.
    pub fn keep() -> Option<TerminalModes> {
        let terminal = open_controlling_terminal().ok()?;
        let modes = modes(&terminal).ok()?;
        Some(TerminalModes { terminal, modes })
    }

    /// Sets the terminal as it was, if it is this process's turn to do so.
    pub fn restore(&self) {
        if in_foreground(&self.terminal) {
            let _ = set_modes(&self.terminal, &self.modes);
        }
    }
}
