//! Users and groups: who this process is, who somebody is, and becoming somebody else.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::check;
use super::database::{group_by_id, user_by_id};

/// Where the system's own tools are, whatever `PATH` says.
pub(super) const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// A user's entry (passwd(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: OsString,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub shell: OsString,
}

/// The user whose rights this process has.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether the group `gid` is the own group of the user `owner`, as most Linux systems give each
/// user one: it is the user's primary group, has the user's name, and no other member but root.
/// The name is asked for because primary members are not listed in a group's entry (macOS's
/// `staff` looks empty there, and holds everyone).
pub fn group_is_private(gid: u32, owner: u32) -> bool {
    let Some(user) = user_by_id(owner) else {
        return false;
    };
    user.gid == gid
        && group_by_id(gid).is_some_and(|(group_name, members)| {
            group_name == user.name && members.iter().all(|member| *member == user.name || member == "root")
        })
}

/// All groups of `user`, as id(1) tells them from whatever databases the system has.
pub fn groups_of(user: &User) -> io::Result<Vec<u32>> {
    let mut command = Command::new("id");
    command.arg("-G").arg(&user.name).env_clear().env("PATH", SYSTEM_PATH).stdin(Stdio::null());
    let answer = command.output()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let groups: Option<Vec<u32>> = text.split_whitespace().map(|group| group.parse().ok()).collect();
    match groups {
        Some(groups) if answer.status.success() && !groups.is_empty() => Ok(groups),
        _ => Err(io::Error::other("`id -G` does not tell its groups")),
    }
}

/// Gives up all rights of root for those of a user, for good. For the launcher, which is alone in
/// its process.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    super::os::leave_keyring();
    // SAFETY: the pointer and the count describe `groups`, which outlives the call.
    check(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr().cast()) })?;
    // SAFETY: setgid takes an integer.
    check(unsafe { libc::setgid(gid) })?;
    // SAFETY: setuid takes an integer.
    check(unsafe { libc::setuid(uid) })?;
    super::os::drop_capabilities()?;
    // SAFETY: setuid takes an integer.
    if uid != 0 && check(unsafe { libc::setuid(0) }).is_ok() {
        return Err(io::Error::other("the rights of root came back"));
    }
    // The kernel has set this anew, to what `fs.suid_dumpable` says (prctl(2)).
    super::os::forbid_inspection();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_nobody_has_is_not_private() {
        assert!(!group_is_private(4_000_000_123, effective_uid()));
        assert!(!group_is_private(0, 4_000_000_123));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_group_of_root_is_roots_own_on_linux() {
        assert!(group_is_private(0, 0));
    }

    #[test]
    fn root_has_an_entry_and_groups() {
        let root = user_by_id(0).expect("root");
        assert_eq!(root.name, "root");
        assert_eq!(super::super::user_by_name("root").as_ref(), Some(&root));
        assert!(groups_of(&root).expect("its groups").contains(&root.gid));
    }
}
