//! Users and groups on macOS: its directory service, asked through the C library (getpwuid(3)).

use std::ffi::{CStr, CString, OsString, c_char};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use super::user::User;

/// Room for one entry of the user or group database. A group of ten thousand members needs some
/// 100 KiB; one that needs more than this is surely not private.
const ENTRY_MAX: usize = 1 << 20;

pub fn user_by_id(uid: u32) -> Option<User> {
    with_room(|room| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: `entry`, `room` (with its true length) and `found` are valid for writing during
        // the call, which keeps none of them.
        let status =
            unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found) };
        // SAFETY: what `found` says is about this `entry` and `room`, which are still there.
        unsafe { user(status, found, &entry) }
    })
}

pub fn user_by_name(name: &str) -> Option<User> {
    let name = CString::new(name).ok()?;
    with_room(|room| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: as above, and `name` ends with NUL and outlives the call.
        let status = unsafe {
            libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found)
        };
        // SAFETY: as above.
        unsafe { user(status, found, &entry) }
    })
}

/// # Safety
/// `status` and `found` are what a call of getpwuid_r or its sister gave for `entry`, whose room
/// still exists.
unsafe fn user(status: i32, found: *mut libc::passwd, entry: &MaybeUninit<libc::passwd>) -> Result<User, i32> {
    if status != 0 || found.is_null() {
        return Err(status);
    }
    // SAFETY: a status of 0 and a result that is not null mean that `entry` is filled in; its
    // strings end with NUL and lie in the room that the caller vouches for.
    unsafe {
        let entry = entry.assume_init_ref();
        Ok(User {
            name: OsString::from_vec(bytes(entry.pw_name)),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            home: OsString::from_vec(bytes(entry.pw_dir)).into(),
            shell: OsString::from_vec(bytes(entry.pw_shell)),
        })
    }
}

/// The name and listed members of a group.
pub fn group_by_id(gid: u32) -> Option<(OsString, Vec<OsString>)> {
    with_room(|room| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        // SAFETY: as for getpwuid_r above.
        let status =
            unsafe { libc::getgrgid_r(gid, entry.as_mut_ptr(), room.as_mut_ptr(), room.len(), &raw mut found) };
        if status != 0 || found.is_null() {
            return Err(status);
        }
        let mut members = Vec::new();
        // SAFETY: as above `entry` is filled in, and what it points to lies in `room`; gr_mem,
        // where it is not null, is an array that ends with a null pointer, so each step stays
        // inside it.
        unsafe {
            let entry = entry.assume_init_ref();
            let mut next = entry.gr_mem;
            while !next.is_null() && !(*next).is_null() {
                members.push(OsString::from_vec(bytes(*next)));
                next = next.add(1);
            }
            Ok((OsString::from_vec(bytes(entry.gr_name)), members))
        }
    })
}

/// Calls `look_up` with ever more room while it answers ERANGE.
fn with_room<T>(mut look_up: impl FnMut(&mut [c_char]) -> Result<T, i32>) -> Option<T> {
    let mut size = 4096;
    while size <= ENTRY_MAX {
        match look_up(&mut vec![0; size]) {
            Ok(entry) => return Some(entry),
            Err(libc::ERANGE) => size *= 4,
            Err(libc::EINTR) => {}
            Err(_) => return None,
        }
    }
    None
}

/// A copy of a C string.
///
/// # Safety
/// `text` is null, or points to a string that ends with NUL and stays as it is during the call.
unsafe fn bytes(text: *const c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, and the rest is the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()
}
