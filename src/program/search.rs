//! From the word in the configuration to a path: relative to the command's folder if it holds a
//! slash, else on PATH like execvp(3), but for the elements of PATH that are relative or empty,
//! which would let a working folder choose the program.

use super::trust::{shown, unreachable_path};
use crate::error::Error;
use std::env::split_paths;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Finds the program that a command's first word names. `base` is the command's working folder,
/// absolute. The path found is absolute, its links are left unresolved.
pub fn find(name: &str, path_variable: &OsStr, base: &Path) -> Result<PathBuf, Error> {
    if name.is_empty() {
        return Err(Error::new("command", "the name of the program is empty"));
    }
    if name.contains('/') {
        return find_at(&base.join(name));
    }
    find_on_path(OsStr::new(name), path_variable)
}

fn find_at(path: &Path) -> Result<PathBuf, Error> {
    // Drops every `.`, which would only lengthen messages.
    let path: PathBuf = path.components().collect();
    let metadata = fs::metadata(&path).map_err(|e| {
        let error = unreachable_path(&path, &e);
        let words = path.as_os_str().to_string_lossy().contains(' ');
        if words { error.hint("the program and each argument are items of their own") } else { error }
    })?;
    match obstacle(&metadata) {
        None => Ok(path),
        Some(obstacle) => Err(obstacle.error(&path)),
    }
}

/// Finds a name that holds no slash.
pub(super) fn find_on_path(name: &OsStr, path_variable: &OsStr) -> Result<PathBuf, Error> {
    let mut first_problem = None;
    for folder in split_paths(path_variable).filter(|folder| folder.is_absolute()) {
        let path = folder.join(name);
        let problem = match fs::metadata(&path) {
            Ok(metadata) => match obstacle(&metadata) {
                None => return Ok(path),
                Some(obstacle) => obstacle.error(&path),
            },
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => unreachable_path(&path, &e),
            Err(_) => continue,
        };
        first_problem.get_or_insert(problem);
    }
    Err(first_problem.unwrap_or_else(|| not_found(name)))
}

fn not_found(name: &OsStr) -> Error {
    let words = name.to_string_lossy().contains(char::is_whitespace);
    if words {
        // A whole command line in one word may hold anything; it is not shown.
        return Error::new("command", "no such program on PATH")
            .hint("write the program and each argument as an item of its own");
    }
    Error::new(shown(name), "not found on PATH")
        .hint("install it, or write its absolute path; relative and empty elements of PATH are not searched")
}

/// Why a file that exists cannot be a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Folder,
    Special,
    NotExecutable,
}

/// The reason for which a file with this metadata cannot be run, if there is one. Any execute
/// permission counts: whose it must be is decided at exec, since a task may run as another user.
pub(super) fn obstacle(metadata: &Metadata) -> Option<Obstacle> {
    if metadata.is_dir() {
        Some(Obstacle::Folder)
    } else if !metadata.is_file() {
        Some(Obstacle::Special)
    } else if metadata.mode() & 0o111 == 0 {
        Some(Obstacle::NotExecutable)
    } else {
        None
    }
}

impl Obstacle {
    pub(super) fn error(self, path: &Path) -> Error {
        let shown = shown(path);
        match self {
            Self::Folder => Error::new(shown, "is a folder, expected a program").hint("name the program inside of it"),
            Self::Special => Error::new(shown, "is not a regular file, expected a program"),
            Self::NotExecutable => {
                let hint = format!("chmod +x {shown}");
                Error::new(shown, "is not executable").hint(hint)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Folder;
    use super::*;
    use std::env::join_paths;
    use std::os::unix::fs::symlink;

    fn find_in(folders: &[&Path], name: &str) -> Result<PathBuf, Error> {
        let path_variable = join_paths(folders).expect("no colon in the names");
        find(name, &path_variable, Path::new("/"))
    }

    #[test]
    fn the_first_executable_file_on_path_is_found_with_its_links_unresolved() {
        let folder = Folder::new();
        let (a, b, c) = (folder.folder("a"), folder.folder("b"), folder.folder("c"));
        folder.file("a/tool", "", 0o644);
        folder.folder("b/tool");
        folder.file("real", "", 0o755);
        symlink("../real", c.join("tool")).expect("make a link");
        let missing = folder.path("missing");
        assert_eq!(find_in(&[&missing, &a, &b, &c], "tool"), Ok(c.join("tool")));
    }

    #[test]
    fn relative_and_empty_elements_of_path_are_not_searched() {
        let found = find("Cargo.toml", OsStr::new(":.:src:"), Path::new("/"));
        assert_eq!(found.expect_err("nowhere to search").what, "not found on PATH");
        assert!(find("sh", OsStr::new(""), Path::new("/bin")).is_err());
    }

    #[test]
    fn the_reason_for_not_finding_is_told() {
        let folder = Folder::new();
        let a = folder.folder("a");
        folder.file("a/plain", "", 0o644);
        folder.folder("a/inner");
        let what = |name| find_in(&[&a], name).expect_err("not a program").what;
        assert_eq!(what("plain"), "is not executable");
        assert_eq!(what("inner"), "is a folder, expected a program");
        assert_eq!(what("missing"), "not found on PATH");
        assert_eq!(what(""), "the name of the program is empty");
    }

    #[test]
    fn a_command_line_in_one_word_is_not_repeated() {
        let error = find_in(&[], "curl -u me:hunter2").expect_err("not a program");
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(error.hint.expect("a hint").contains("an item of its own"));
    }

    #[test]
    fn a_name_with_a_slash_is_relative_to_the_working_folder() {
        let folder = Folder::new();
        let tool = folder.file("bin/tool", "", 0o755);
        let base = folder.path("");
        let find = |name: &str| find(name, OsStr::new(""), &base);
        assert_eq!(find("bin/tool"), Ok(tool.clone()));
        assert_eq!(find("./bin/tool"), Ok(tool.clone()));
        assert_eq!(find(tool.to_str().expect("UTF-8")), Ok(tool));
        let what = |name| find(name).expect_err("not a program").what;
        assert_eq!(what("./missing"), "does not exist");
        assert_eq!(what("./bin"), "is a folder, expected a program");
        assert_eq!(what("/dev/null"), "is not a regular file, expected a program");
    }
}
