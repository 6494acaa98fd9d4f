//! The process's own environment block, as the kernel shows it to others.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

use zeroize::Zeroize;

unsafe extern "C" {
    static mut environ: *mut *mut libc::c_char;
}

/// Overwrites the value of variable `name` with zeros where it stands (also what
/// `/proc/PID/environ` shows) and hands it to `take` first. Says whether there was one. A variable
/// that stands there several times has its first value, and all are overwritten.
///
/// To be called before the process has a second thread, and before anything else may have
/// copied or moved the environment.
pub fn overwrite_variable(name: &OsStr, take: impl FnOnce(&[u8])) -> bool {
    let mut values = values_in_place(name);
    let Some(value) = values.next() else {
        return false;
    };
    take(value);
    value.zeroize();
    values.for_each(|value| value.zeroize());
    true
}

/// The names and values of all variables, without copying any.
pub fn variables() -> impl Iterator<Item = (&'static OsStr, &'static OsStr)> {
    entries().filter_map(|entry| {
        let at = entry.iter().position(|&byte| byte == b'=')?;
        Some((OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(&entry[at + 1..])))
    })
}

fn entries() -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: `environ` is a null-terminated array of C strings that lives as long as the
    // process; this program never calls setenv, so it is never reallocated.
    let mut next = unsafe { environ };
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `next` points at an element of the array or at its null.
        let entry = unsafe { *next };
        if entry.is_null() {
            return None;
        }
        // SAFETY: it was not the last element, so there is one behind it.
        next = unsafe { next.add(1) };
        // SAFETY: every element is a C string of the process's own environment block.
        Some(unsafe { CStr::from_ptr(entry) }.to_bytes())
    })
}

fn values_in_place(name: &OsStr) -> impl Iterator<Item = &'static mut [u8]> {
    entries().filter_map(move |entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(|value| {
        // SAFETY: the block is writable memory of this process (execve(2) puts it on the stack); the
        // caller promises that no other thread runs, so nobody reads these bytes meanwhile.
        unsafe { std::slice::from_raw_parts_mut(value.as_ptr().cast_mut(), value.len()) }
    })
}
