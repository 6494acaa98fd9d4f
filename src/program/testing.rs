//! A temporary folder for the tests of `program`, with modes that no umask changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own for one test, gone when the test ends.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("backupnizza-program-{}-{count}", std::process::id());
        let temporary = fs::canonicalize(std::env::temp_dir()).expect("a temporary folder");
        let folder = Self(temporary.join(name));
        fs::create_dir(&folder.0).expect("make a folder");
        folder.mode(&folder.0, 0o755);
        folder
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("make a folder");
        self.mode(&path, 0o755);
        path
    }

    /// Writes a file beside the old one and puts it in its place, as package managers do.
    pub(super) fn file(&self, name: &str, contents: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("a folder above");
        fs::create_dir_all(folder).expect("make a folder");
        let new = folder.join("new");
        fs::write(&new, contents).expect("write a file");
        self.mode(&new, mode);
        fs::rename(&new, &path).expect("rename a file");
        path
    }

    pub(super) fn mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("change a mode");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
