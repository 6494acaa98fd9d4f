//! Which variables a command gets, as a pure function of what there is.
//!
//! A command gets a short list of the daemon's variables, then its own, then those that tell it
//! about its run; nothing by which a service manager talks to the daemon is ever passed on. One that
//! runs as another user gets nothing that is the daemon's user's, but that user's own in its place.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::plan::{self, PassEnvironment, RunAs};

/// Passed on without being asked for.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
const PASSED_PREFIXES: &[&str] = &["LC_", "XDG_", "SSL_CERT_"];

/// Of these, what belongs to the daemon's user.
const PERSONAL: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS"];
const PERSONAL_PREFIXES: &[&str] = &["XDG_"];

/// The daemon's own variables, as far as any command may ever see them.
#[derive(Debug, Clone)]
pub struct Inherited(BTreeMap<OsString, OsString>);

impl Inherited {
    /// Of `variables`, what is not private to the daemon; `secret_names` are those of `env:` secrets.
    pub fn new<'a>(
        variables: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
        secret_names: &[&str],
        home: &OsStr,
    ) -> Inherited {
        let mut kept: BTreeMap<OsString, OsString> = variables
            .filter(|(name, _)| !is_private(name) && !secret_names.iter().any(|secret| name == secret))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        kept.insert("HOME".into(), home.to_owned());
        Inherited(kept)
    }

    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Where programs are looked for.
    pub fn path(&self) -> &OsStr {
        self.get("PATH").unwrap_or(OsStr::new("/usr/bin:/bin"))
    }

    /// What a command gets of them that runs as `user`, if not as the daemon's own.
    pub fn passed<'a>(
        &'a self,
        asked: &'a PassEnvironment,
        user: Option<&'a RunAs>,
    ) -> impl Iterator<Item = (&'a OsStr, &'a OsStr)> {
        let passed = self.0.iter().filter(move |(name, _)| match user {
            None => is_passed(name, asked),
            Some(_) => is_asked_for_by_name(name, asked) || (is_passed(name, asked) && !is_personal(name)),
        });
        let of_user = user.into_iter().flat_map(own);
        passed
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .filter(move |(name, _)| user.is_none() || !is_own(name))
            .chain(of_user)
    }
}

/// What says who a user is: login(1) sets the same.
fn own(user: &RunAs) -> [(&OsStr, &OsStr); 4] {
    let own = [("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name), ("SHELL", &user.shell)];
    own.map(|(name, value)| (OsStr::new(name), OsStr::new(value)))
}

fn is_own(name: &OsStr) -> bool {
    ["HOME", "USER", "LOGNAME", "SHELL"].iter().any(|own| name == *own)
}

fn is_personal(name: &OsStr) -> bool {
    matches(name, PERSONAL, PERSONAL_PREFIXES)
}

/// Also what a parent daemon's commands are told of their own run.
fn is_private(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    plan::is_never_passed_on(&name) || name.starts_with("BACKUPNIZZA_")
}

fn is_passed(name: &OsStr, asked: &PassEnvironment) -> bool {
    *asked == PassEnvironment::All || is_asked_for_by_name(name, asked) || matches(name, PASSED, PASSED_PREFIXES)
}

fn is_asked_for_by_name(name: &OsStr, asked: &PassEnvironment) -> bool {
    matches!(asked, PassEnvironment::Named(names) if names.iter().any(|asked| name == asked.as_str()))
}

fn matches(name: &OsStr, names: &[&str], prefixes: &[&str]) -> bool {
    names.iter().any(|known| name == *known)
        || prefixes.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherited() -> Inherited {
        let variables = [
            ("PATH", "/bin"),
            ("LC_TIME", "C"),
            ("XDG_RUNTIME_DIR", "/run/user/0"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("EDITOR", "vi"),
            ("B2_KEY", "secret"),
            ("NOTIFY_SOCKET", "/run/notify"),
            ("LISTEN_FDS", "1"),
            ("BACKUPNIZZA_SOCKET", "/tmp/other"),
            ("CREDENTIALS_DIRECTORY", "/run/credentials"),
            ("WATCHDOG_USEC", "1"),
        ];
        let variables = variables.map(|(name, value)| (OsStr::new(name), OsStr::new(value)));
        Inherited::new(variables.into_iter(), &["B2_KEY"], OsStr::new("/home/me"))
    }

    fn names(asked: &PassEnvironment) -> Vec<String> {
        inherited().passed(asked, None).map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_command_gets_the_short_list_and_what_it_asks_for() {
        let always = ["HOME", "LC_TIME", "PATH", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"];
        assert_eq!(names(&PassEnvironment::Named(vec![])), always);
        let with_editor = names(&PassEnvironment::Named(vec!["EDITOR".into()]));
        assert_eq!(with_editor[0], "EDITOR");
        assert_eq!(with_editor[1..], always);
    }

    #[test]
    fn what_is_the_daemons_own_is_never_passed_on() {
        let all = ["EDITOR", "HOME", "LC_TIME", "PATH", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"];
        assert_eq!(names(&PassEnvironment::All), all);
        let asked = PassEnvironment::Named(vec!["NOTIFY_SOCKET".into(), "B2_KEY".into()]);
        assert_eq!(names(&asked), all[1..]);
    }

    #[test]
    fn another_user_gets_his_own_and_nothing_of_the_daemons_user() {
        let me = RunAs {
            name: "me".into(),
            uid: 1000,
            gid: 100,
            groups: vec![100],
            home: "/home/me".into(),
            shell: "/bin/zsh".into(),
        };
        let variables = |asked: &PassEnvironment| -> Vec<String> {
            let passed = inherited();
            let passed = passed.passed(asked, Some(&me));
            passed.map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
        };
        let own = ["HOME=/home/me", "USER=me", "LOGNAME=me", "SHELL=/bin/zsh"];
        let all = variables(&PassEnvironment::All);
        assert_eq!(all[..3], ["EDITOR=vi", "LC_TIME=C", "PATH=/bin"]);
        assert_eq!(all[3..], own);
        let asked = variables(&PassEnvironment::Named(vec!["HOME".into(), "SSH_AUTH_SOCK".into()]));
        assert_eq!(asked[..3], ["LC_TIME=C", "PATH=/bin", "SSH_AUTH_SOCK=/run/agent"]);
        assert_eq!(asked[3..], own);
    }
}
