//! `file:` and `credential:` sources.
//!
//! What a path names is judged by its opened descriptor, so that it cannot be another file by
//! the time it is read, and the way to it as that to a program: who could put another file there
//! would choose the secret.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::program;
use crate::secret::{Secret, read_value};
use crate::sys::{self, Arena};

use super::{Reason, Remark};

/// Reads a secret out of a regular file of root's or this user's that others may not read. One
/// that is missing may be on a drive that is yet to be mounted, so it may come; anything else
/// that is wrong with it stays so until somebody changes it.
pub(super) fn ask(path: &Path, arena: &'static Arena) -> Result<(Secret, Option<Remark>), Reason> {
    let who = &format!("its file {}", path.display());
    let (mut file, about) = open(path, who)?;
    let remark = judge(&about, who)?.or(judge_way(path)?);
    let secret = read_value(arena, &mut file).map_err(|error| error.into_reason(who))?;
    Ok((secret, remark))
}

/// Reads a credential of the service manager's: systemd.exec(5), LoadCredential=. They are all in
/// place before a service starts, so a missing one never comes. Who may read them is systemd's
/// care; by access control lists, which a file's group bits do not tell from a group.
pub(super) fn ask_credential(directory: Option<&Path>, name: &str, arena: &'static Arena) -> Result<Secret, Reason> {
    let hint = "give the service a LoadCredential= or LoadCredentialEncrypted= of this name";
    let directory = directory.ok_or_else(|| {
        Reason::wrong("there are no credentials: CREDENTIALS_DIRECTORY is not set by a service manager").hint(hint)
    })?;
    let who = "its credential";
    let (mut file, _) = open(&directory.join(name), who).map_err(|mut reason| {
        reason.kind = super::FailureKind::Wrong;
        reason.hint(hint)
    })?;
    read_value(arena, &mut file).map_err(|error| error.into_reason(who))
}

fn open(path: &Path, who: &str) -> Result<(File, Metadata), Reason> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Reason::unavailable(format!("{who} is missing")),
        io::ErrorKind::PermissionDenied => Reason::wrong(format!("{who} may not be read by this user")),
        _ => Reason::unavailable(format!("{who} cannot be opened: {error}")),
    };
    let file = sys::open_without_waiting(path).map_err(cannot)?;
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() {
        return Err(Reason::wrong(format!("{who} is not a regular file")));
    }
    Ok((file, about))
}

/// Whom the folders and links on the way to a file trust.
fn judge_way(path: &Path) -> Result<Option<Remark>, Reason> {
    let way = program::trust_walk(path).map_err(|error| {
        let reason = Reason::wrong(format!("its file: {error}"));
        error.hint.into_iter().fold(reason, Reason::hint)
    })?;
    Ok(way.into_iter().next().map(|warning| {
        let remark = Remark::new(format!("its file: {}: {}", warning.object, warning.what));
        warning.hint.into_iter().fold(remark, Remark::hint)
    }))
}

/// Whom a file's owner and mode trust.
fn judge(about: &Metadata, who: &str) -> Result<Option<Remark>, Reason> {
    let (owner, mode) = (about.uid(), about.mode());
    if owner != 0 && owner != sys::effective_uid() {
        return Err(
            Reason::wrong(format!("{who} belongs to another user")).hint("chown the file to root or to this user")
        );
    }
    if mode & 0o004 != 0 {
        return Err(Reason::wrong(format!("{who} is readable by others")).hint("chmod o-r the file"));
    }
    if mode & 0o002 != 0 {
        return Err(Reason::wrong(format!("{who} is writable by others")).hint("chmod o-w the file"));
    }
    let shared = mode & 0o060 != 0 && !sys::group_is_private(about.gid(), owner);
    Ok(shared.then(|| Remark::new(format!("{who} is readable or writable by its group")).hint("chmod g-rw the file")))
}
