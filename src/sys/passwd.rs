//! Users and groups on Linux: passwd(5) and group(5), and getent(1) for what other databases know.
//!
//! Not through the C library, which would load their modules into this process, and cannot where
//! it is linked statically.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use super::user::{SYSTEM_PATH, User};

pub fn user_by_id(uid: u32) -> Option<User> {
    let uid = uid.to_string();
    find("passwd", &uid, |fields| fields.get(2) == Some(&uid.as_bytes())).and_then(|line| user(&line))
}

pub fn user_by_name(name: &str) -> Option<User> {
    // Getent takes digits for a uid.
    let user = find("passwd", name, |fields| fields[0] == name.as_bytes()).and_then(|line| user(&line));
    user.filter(|user| user.name == name)
}

/// The name and listed members of a group.
pub fn group_by_id(gid: u32) -> Option<(OsString, Vec<OsString>)> {
    let gid = gid.to_string();
    let line = find("group", &gid, |fields| fields.get(2) == Some(&gid.as_bytes()))?;
    let fields = fields(&line);
    let members = fields.get(3)?.split(|&byte| byte == b',').filter(|name| !name.is_empty());
    Some((text(fields[0]), members.map(text).collect()))
}

/// The line of `database` that `is_it`: of the file below /etc, else what getent says of `key`.
fn find(database: &str, key: &str, is_it: impl Fn(&[&[u8]]) -> bool) -> Option<Vec<u8>> {
    let file = fs::read(format!("/etc/{database}")).unwrap_or_default();
    match file.split(|&byte| byte == b'\n').find(|line| is_it(&fields(line))) {
        Some(line) => Some(line.to_vec()),
        None => ask(database, key),
    }
}

fn ask(database: &str, key: &str) -> Option<Vec<u8>> {
    let mut command = Command::new("getent");
    command.args([database, key]).env_clear().env("PATH", SYSTEM_PATH).stdin(Stdio::null());
    let answer = command.output().ok().filter(|answer| answer.status.success())?;
    answer.stdout.split(|&byte| byte == b'\n').next().map(<[u8]>::to_vec)
}

fn user(line: &[u8]) -> Option<User> {
    let fields = fields(line);
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let number = |field: &[u8]| str::from_utf8(field).ok()?.parse().ok();
    Some(User { name: text(name), uid: number(uid)?, gid: number(gid)?, home: text(home).into(), shell: text(shell) })
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&byte| byte == b':').collect()
}

fn text(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_user_if_all_of_it_is_there() {
        let found = user(b"me:x:1000:100:My Name,,,:/home/me:/bin/zsh").expect("a user");
        assert_eq!((found.uid, found.gid, found.home.to_str()), (1000, 100, Some("/home/me")));
        assert_eq!((found.name.to_str(), found.shell.to_str()), (Some("me"), Some("/bin/zsh")));
        for line in ["", "me", "me:x:1000:100:", "me:x:-1:100::/home/me:/bin/sh", "+::::::"] {
            assert_eq!(user(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn nobody_is_found_by_what_is_no_name() {
        for name in ["", "0", "no-such-user", "root:x", "ro"] {
            assert_eq!(user_by_name(name), None, "{name:?}");
        }
    }
}
