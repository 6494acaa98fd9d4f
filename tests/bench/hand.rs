//! What a scheduler cannot be better than: `clock_nanosleep`, fork and exec by hand, in a small process of its own.
//!
//! The one file of the benchmark that is unsafe.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Sleeps until `wall`, since 1970 (clock_nanosleep(2)); no signal is handled here, so none ends it early.
fn sleep_until(wall: Duration) {
    let time = libc::timespec {
        tv_sec: wall.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(wall.subsec_nanos() as i32),
    };
    // SAFETY: `time` outlives the call, and no remaining time is asked for.
    unsafe { libc::clock_nanosleep(libc::CLOCK_REALTIME, libc::TIMER_ABSTIME, &time, std::ptr::null_mut()) };
}

/// At `wall`, starts `program FILE` so many times, one after the other, then waits for all of them.
pub fn start_at(wall: Duration, count: usize, program: &OsStr, file: &OsStr) {
    let strings = [program, file].map(|text| CString::new(text.as_bytes()).expect("no zero byte"));
    let arguments = [strings[0].as_ptr(), strings[1].as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null()];
    sleep_until(wall);
    for _ in 0..count {
        // SAFETY: this process has one thread, and the child does nothing but exec or end.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: both arrays end in null, and their strings were made before the fork.
            unsafe {
                libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
                libc::_exit(127);
            }
        }
    }
    for _ in 0..count {
        // SAFETY: no status is asked for.
        unsafe { libc::wait(std::ptr::null_mut()) };
    }
}
