//! The programs of commands: found once, on whom they depend, and whether they are still the same
//! right before exec. A command is handed secrets, so whoever can change its program, a folder or
//! link on the way to it, or the interpreter of a script, has those secrets.
//!
//! `search` goes from a word to a path, `trust` judges the path, `access` asks whether another user may go there,
//! `script` reads `#!` lines, `identity` is by what a file is known again, `sha256` is for pins.

mod access;
mod identity;
mod script;
mod search;
mod sha256;
mod trust;

pub use access::{Rights, closed_to};
pub use identity::Identity;
pub use search::find;
pub use sha256::Sha256Digest;
pub use trust::{Warning, shown, trust_walk};

use crate::error::Error;
use crate::sys;
use script::Interpreter;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trust::{Viewer, walk};

/// The most files that one program may consist of: a script, env, an interpreter that is a script
/// again. Linux gives up after five interpreters; this also ends circles.
const FILES_MAX: usize = 8;

/// The largest file whose contents can be pinned: what is hashed before a run holds it up.
const PINNED_MAX: u64 = 256 << 20;

/// A program as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    main: ProgramFile,
    /// For a script those that run it, in the order in which they are met: `#!`, then the program
    /// that env finds, each followed by its own interpreters.
    interpreters: Box<[ProgramFile]>,
    /// What the contents of `main` must be, for ever.
    pin: Option<Sha256Digest>,
    /// The PATH on which env searches, should there be an `#!/usr/bin/env X`.
    path_variable: Arc<OsStr>,
    /// The user as whom it runs, if not as this process's; it may be that user's own.
    user: Option<u32>,
}

/// One file of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ProgramFile {
    /// Absolute, its links unresolved.
    path: Box<Path>,
    /// Where the links led.
    real: Box<Path>,
    identity: Identity,
    /// Only root can change it, its folders and its links.
    only_root: bool,
    /// The name by which env finds it on PATH.
    env_name: Option<Box<OsStr>>,
}

impl Program {
    /// What PATH or the configuration gave: absolute, its links unresolved. This is what is
    /// executed, so that packages may move what it links to.
    pub fn path(&self) -> &Path {
        &self.main.path
    }

    /// What the launcher compares right before exec.
    pub fn identity(&self) -> Identity {
        self.main.identity
    }

    /// Those of its interpreters that env finds on PATH.
    pub fn found_by_env(&self) -> impl Iterator<Item = &Path> {
        self.interpreters.iter().filter(|file| file.env_name.is_some()).map(|file| &*file.path)
    }

    fn files(&self) -> impl Iterator<Item = &ProgramFile> {
        std::iter::once(&self.main).chain(&self.interpreters)
    }
}

/// What became of a program since it was looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Recheck {
    Unchanged,
    /// It changed in a way that needs nobody's consent: by root (an upgrade), or with the pinned
    /// contents. The notices say so, to be logged; `program` takes the old one's place.
    Renewed {
        program: Box<Program>,
        notices: Vec<Warning>,
    },
}

/// Looks at the program at `path` (absolute) and, for a script, at those that run it. An error
/// means that somebody else could change one of them, or that it cannot be run; the warnings tell
/// of groups that could. `path_variable` is the PATH that the command will have, on which
/// `#!/usr/bin/env X` searches; `user` the one as whom it runs, if not as this process's.
pub fn inspect(
    path: &Path,
    pin: Option<&Sha256Digest>,
    path_variable: &Arc<OsStr>,
    user: Option<u32>,
) -> Result<(Program, Vec<Warning>), Error> {
    let mut inspection = Inspection { viewer: Viewer::running_as(user), path_variable, warnings: Vec::new() };
    let (main, interpreter) = inspection.look_at(path, pin, None)?;
    let interpreters = match interpreter {
        Some(interpreter) => inspection.interpreters(interpreter).map_err(|e| of_script(path, e))?,
        None => Vec::new(),
    };
    let program = Program {
        main,
        interpreters: interpreters.into(),
        pin: pin.copied(),
        path_variable: Arc::clone(path_variable),
        user,
    };
    inspection.warnings.sort();
    inspection.warnings.dedup();
    Ok((program, inspection.warnings))
}

/// Tells which script's interpreter an error is about.
fn of_script(script: &Path, error: Error) -> Error {
    let what = format!("its interpreter: {}: {}", error.object, error.what);
    let about = Error::new(shown(script), what);
    match error.hint {
        Some(hint) => about.hint(hint),
        None => about,
    }
}

struct Inspection<'a> {
    viewer: Viewer,
    path_variable: &'a OsStr,
    warnings: Vec<Warning>,
}

impl Inspection<'_> {
    /// All that run a script, from its `#!` line on.
    fn interpreters(&mut self, first: Interpreter) -> Result<Vec<ProgramFile>, Error> {
        let mut files = Vec::new();
        // The next one last.
        let mut pending = Vec::new();
        self.push(first, &mut pending)?;
        while let Some((path, env_name)) = pending.pop() {
            if files.len() + 1 == FILES_MAX {
                let what = format!("more than {FILES_MAX} scripts and interpreters run each other");
                return Err(Error::new(shown(&path), what));
            }
            let (file, interpreter) = self.look_at(&path, None, env_name)?;
            files.push(file);
            if let Some(interpreter) = interpreter {
                self.push(interpreter, &mut pending)?;
            }
        }
        Ok(files)
    }

    fn push(&mut self, interpreter: Interpreter, pending: &mut Vec<(PathBuf, Option<OsString>)>) -> Result<(), Error> {
        if let Some(name) = interpreter.through_env {
            pending.push((self.search_like_env(&name)?, Some(name)));
        }
        pending.push((interpreter.path, None));
        Ok(())
    }

    /// Finds what env will run. Env searches again at each start, so nobody else may be able to
    /// put that name into a folder that comes earlier on PATH.
    fn search_like_env(&mut self, name: &OsStr) -> Result<PathBuf, Error> {
        let found = search_env(name, self.path_variable)?;
        for folder in std::env::split_paths(self.path_variable) {
            if folder.join(name) == found || found == Path::new(name) {
                break;
            }
            if !folder.is_absolute() {
                return Err(Error::new("PATH", "a relative or empty element, in which env would search")
                    .hint("write absolute folders into PATH, or the program's own path after #!"));
            }
            self.judge_earlier(&folder)?;
        }
        Ok(found)
    }

    /// Judges a folder in which env searches and finds nothing, or where there is no such folder,
    /// the one in which it could be made. Here a sticky one is no better than an open one.
    fn judge_earlier(&mut self, folder: &Path) -> Result<(), Error> {
        let there = folder.ancestors().find(|above| fs::metadata(above).is_ok());
        let reached = walk(there.unwrap_or(folder), &self.viewer)?;
        if reached.sticky {
            let what = "anyone could put a program there, and it is on PATH for env to search";
            return Err(
                Error::new(shown(folder), what).hint("take it out of PATH, or write the program's own path after #!")
            );
        }
        self.warnings.extend(reached.warnings);
        Ok(())
    }

    /// Looks at one file; also gives its interpreter if it is a script.
    fn look_at(
        &mut self,
        path: &Path,
        pin: Option<&Sha256Digest>,
        env_name: Option<OsString>,
    ) -> Result<(ProgramFile, Option<Interpreter>), Error> {
        let reached = walk(path, &self.viewer)?;
        if let Some(obstacle) = search::obstacle(&reached.metadata) {
            return Err(obstacle.error(path));
        }
        let identity = Identity::of(&reached.metadata);
        let head = read_head(path, identity, pin)?;
        let interpreter =
            script::interpreter(&head).map_err(|refusal| Error::new(shown(path), refusal.what).hint(refusal.hint))?;
        self.warnings.extend(reached.warnings);
        let file = ProgramFile {
            path: path.into(),
            real: reached.real.into(),
            identity,
            only_root: reached.only_root,
            env_name: env_name.map(Into::into),
        };
        Ok((file, interpreter))
    }
}

fn search_env(name: &OsStr, path_variable: &OsStr) -> Result<PathBuf, Error> {
    if Path::new(name).is_absolute() {
        return Ok(name.into());
    }
    search::find_on_path(name, path_variable)
}

/// The first line, or what there is of it, of the file that had `identity` a moment ago, after
/// its contents were compared with the pin. A program may be executable but not readable; then it
/// is no script, since its interpreter could not read it either.
fn read_head(path: &Path, identity: Identity, pin: Option<&Sha256Digest>) -> Result<Vec<u8>, Error> {
    let failed = |e: io::Error| trust::unreachable_path(path, &e);
    // By now it may be a pipe that nobody writes to, or an endless device.
    let mut file = match sys::open_without_waiting(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && pin.is_none() => {
            return Ok(Vec::new());
        }
        opened => opened.map_err(failed)?,
    };
    let is_the_same = |file: &File| match Identity::of(&file.metadata().map_err(failed)?) == identity {
        true => Ok(()),
        false => Err(Error::new(shown(path), "changed while it was looked at")),
    };
    is_the_same(&file)?;
    let mut head = Vec::new();
    file.by_ref().take(script::LINE_MAX as u64).read_to_end(&mut head).map_err(failed)?;
    if let Some(pin) = pin {
        if file.metadata().map_err(failed)?.len() > PINNED_MAX {
            return Err(Error::new(shown(path), "larger than 256 MiB, too large to be pinned"));
        }
        let contents = Sha256Digest::of_all(head.chain((&mut file).take(PINNED_MAX))).map_err(failed)?;
        if contents != *pin {
            let hint = format!(
                "find out who changed it; if its contents are right, pin what `sha256sum {}` prints",
                shown(path)
            );
            return Err(Error::new(shown(path), "its contents are not those that are pinned").hint(hint));
        }
    }
    is_the_same(&file)?;
    Ok(head)
}

/// Looks at a program again, right before it is run: follows its links anew and compares all its
/// files with what they were. An error means that the command must not run.
pub fn check_again(program: &Program) -> Result<Recheck, Error> {
    if is_unchanged(program) {
        return Ok(Recheck::Unchanged);
    }
    let (now, _) = inspect(program.path(), program.pin.as_ref(), &program.path_variable, program.user)?;
    let notices = judge_changes(program, &now)?;
    Ok(Recheck::Renewed { program: Box::new(now), notices })
}

fn is_unchanged(program: &Program) -> bool {
    let same_file = |file: &ProgramFile| fs::metadata(&file.path).is_ok_and(|now| Identity::of(&now) == file.identity);
    let same_search = |file: &ProgramFile| match &file.env_name {
        Some(name) => search_env(name, &program.path_variable).is_ok_and(|found| found == *file.path),
        None => true,
    };
    program.files().all(|file| same_file(file) && same_search(file))
}

/// Allows what only root can have done, and other files with the pinned contents. Both the old
/// and the new file are asked: a file that only root can write may stand where another stood that
/// anyone could take away.
fn judge_changes(before: &Program, now: &Program) -> Result<Vec<Warning>, Error> {
    let mut notices = Vec::new();
    let mut old_files = before.files();
    for (place, new) in now.files().enumerate() {
        let old = old_files.next();
        let Some(change) = change(old, new) else {
            continue;
        };
        let reason = if place == 0 && now.pin.is_some() {
            "its contents are those that are pinned"
        } else if new.only_root && old.is_none_or(|old| old.only_root) {
            "only root can change it"
        } else {
            return Err(Error::new(shown(&*new.path), format!("has changed since the start: {change}"))
                .hint("if that is meant, run `backupnizza refresh` or restart the daemon"));
        };
        notices.push(Warning {
            object: shown(&*new.path),
            what: format!("has changed since the start: {change}; it may run, as {reason}"),
            hint: None,
        });
    }
    Ok(notices)
}

fn change(old: Option<&ProgramFile>, new: &ProgramFile) -> Option<&'static str> {
    match old {
        Some(old) if old.path == new.path => old.identity.change(&new.identity),
        _ => Some("it was not what ran the script"),
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
