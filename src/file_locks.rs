//! Locks that outlive nobody: files in the state folder, held by the kernel for as long as their
//! holder lives. They keep a second daemon away, and a daemon and `once` out of each other's way.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// That this process is the one daemon of a folder.
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock at `path`, or says who has it.
    pub fn take(path: &Path) -> Result<InstanceLock, Error> {
        let failed = |error: io::Error| Error::new(path.display(), format!("cannot be locked: {error}"));
        let mut file = open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The pid is for people; on a full disk there is none.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(InstanceLock { _file: file })
    }
}

fn taken(path: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    let _ = file.take(20).read_to_string(&mut pid);
    let holder = match pid.trim() {
        "" => String::new(),
        pid => format!(" (pid {pid})"),
    };
    Error::new(path.display(), format!("another backupnizza is running{holder}"))
        .hint("stop it first, or give this one a `state_dir` and a `secretbox.socket` of its own")
}

/// A lock as a run asks for it.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub shared: bool,
}

/// Locks held; they are free again when this is dropped.
pub struct Held {
    _files: Vec<File>,
}

/// Why locks were not taken.
pub enum NotTaken {
    /// The one of this index is not free.
    Busy(usize),
    Failed(io::Error),
}

/// Takes all of `wanted` or none, without waiting.
pub fn try_take(folder: &Path, wanted: &[Wanted<'_>]) -> Result<Held, NotTaken> {
    let mut files = Vec::with_capacity(wanted.len());
    for (index, lock) in wanted.iter().enumerate() {
        let file = open(&path_of(folder, lock)).map_err(NotTaken::Failed)?;
        let result = if lock.shared { file.try_lock_shared() } else { file.try_lock() };
        match result {
            Ok(()) => files.push(file),
            Err(TryLockError::WouldBlock) => return Err(NotTaken::Busy(index)),
            Err(TryLockError::Error(error)) => return Err(NotTaken::Failed(error)),
        }
    }
    Ok(Held { _files: files })
}

/// Waits until `lock` is free, and lets it go again at once: what is wanted is taken all or none.
pub fn wait_for(folder: &Path, lock: &Wanted<'_>) -> io::Result<()> {
    let file = open(&path_of(folder, lock))?;
    if lock.shared { file.lock_shared() } else { file.lock() }
}

fn path_of(folder: &Path, lock: &Wanted<'_>) -> PathBuf {
    folder.join("locks").join(lock.name)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_keeps_no_daemon_from_starting() {
        let lock = InstanceLock::take(Path::new("/dev/full"));
        assert!(lock.is_ok(), "the pid could not be written, the lock is held all the same");
    }
}
