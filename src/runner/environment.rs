//! Which variables a command gets, as a pure function of what there is.
//!
//! A command gets a short list of the daemon's variables, then its own, then those that tell it
//! about its run; nothing by which a service manager talks to the daemon is ever passed on.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::plan::{self, PassEnvironment};

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

    /// What a command gets of them.
    pub fn passed<'a>(&'a self, asked: &'a PassEnvironment) -> impl Iterator<Item = (&'a OsStr, &'a OsStr)> {
        self.0
            .iter()
            .filter(|(name, _)| is_passed(name, asked))
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

/// Also what a parent daemon's commands are told of their own run.
fn is_private(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    plan::is_never_passed_on(&name) || name.starts_with("BACKUPNIZZA_")
}

fn is_passed(name: &OsStr, asked: &PassEnvironment) -> bool {
    let asked_for = match asked {
        PassEnvironment::All => true,
        PassEnvironment::Named(names) => names.iter().any(|asked| name == asked.as_str()),
    };
    asked_for || matches(name, PASSED, PASSED_PREFIXES)
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
        inherited().passed(asked).map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_command_gets_the_short_list_and_what_it_asks_for() {
        assert_eq!(names(&PassEnvironment::Named(vec![])), ["HOME", "LC_TIME", "PATH"]);
        assert_eq!(names(&PassEnvironment::Named(vec!["EDITOR".into()])), ["EDITOR", "HOME", "LC_TIME", "PATH"]);
    }

    #[test]
    fn what_is_the_daemons_own_is_never_passed_on() {
        assert_eq!(names(&PassEnvironment::All), ["EDITOR", "HOME", "LC_TIME", "PATH"]);
        let asked = PassEnvironment::Named(vec!["NOTIFY_SOCKET".into(), "B2_KEY".into()]);
        assert_eq!(names(&asked), ["HOME", "LC_TIME", "PATH"]);
    }
}
