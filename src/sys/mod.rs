//! Everything that is unsafe or differs between systems, as safe functions with plain types.
//!
//! Nothing here decides; it asks the kernel and reports. `linux` and `macos` offer the same
//! functions, the other files hold what POSIX shares.
#![allow(unsafe_code)]

mod arena;
mod clocks;
mod descriptor;
mod environment;
mod memory;
mod process;
mod terminal;
mod user;

#[cfg(target_os = "macos")]
mod directory;
#[cfg(target_os = "macos")]
use directory as database;
#[cfg(target_os = "linux")]
mod passwd;
#[cfg(target_os = "linux")]
use passwd as database;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as os;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as os;

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "backupnizza runs on Linux and macOS only: it relies on their ways to protect memory and to identify a peer"
);

pub use arena::{Arena, Block, MemoryError, Protection};
pub use clocks::{awake_clock, boot_clock, wall_clock};
pub use database::{user_by_id, user_by_name};
pub use descriptor::{
    Interest, Watched, duplicate_above, lacks_descriptor, move_descriptor, open_controlling_terminal,
    open_without_waiting, peek, poll, receive_with_descriptors, send_with_descriptors, set_nonblocking,
};
pub use environment::{overwrite_variable, variables};
pub use memory::{give_back_memory, share_one_heap};
pub use os::{
    LauncherImage, OpenProgram, Peer, age, boot_id, close_range, default_runtime_directory, give_pipe, has_access_list,
    is_in_use, machine_id, pass_on, peer, pids, process, send_signal_in_session, socket_address, start_of, was_given,
    watch_exit,
};
pub use process::{
    ExitKind, Process, descriptors_max, forbid_core_files, kill_process, lead_session, restore_signals, session_of,
    set_umask, wait_without_reaping,
};
pub use terminal::{HiddenInput, Interruption, LINE_MAX, TerminalModes, in_foreground, terminal_width, wait_for_line};
pub use user::{User, become_user, effective_uid, group_is_private, groups_of};

use std::ffi::CStr;
use std::io;

/// Whether there is a file at `path` (access(2)); less than `Path::exists` needs for it.
pub fn is_there(path: &CStr) -> bool {
    // SAFETY: a C string, which is only read.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// The result of a system call that reports failure by -1 and `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As `check`, for calls that count bytes.
fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
