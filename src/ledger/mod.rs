//! Slots and runs on disk: one append-only text file, so that no slot starts twice, whatever dies.
//!
//! A ledger begins with a snapshot, which was synced and then renamed into place, and goes on
//! with records. Each line checks itself. What is cut off at the end was never promised to
//! anybody and is dropped; a file that is damaged anywhere else is set aside, never overwritten,
//! and what follows from it is said. `line` is the format, `state` the meaning, `replay` tells
//! torn from damaged; here is what touches the disk.
//!
//! Disk and state have a lock each: who writes waits for the disk, who reads the state never does.

mod line;
mod replay;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use crate::error::Error;
use line::Entry;
use replay::{Replay, replay};

pub use state::{Cause, Due, FUTURE_MAX, Past, Record, Session, Started, State, TaskState};

/// The name of the ledger in the state folder, and that of the one which will take its place.
const NAME: &str = "ledger";
const NAME_OF_NEW: &str = "ledger.new";

/// A ledger that grew beyond this (and fourfold) is replaced by its snapshot while the daemon runs.
const COMPACT_AT: u64 = 4 << 20;

/// A larger file is no ledger: compaction keeps them far smaller.
const LENGTH_MAX: u64 = 256 << 20;

/// What was found at opening that somebody should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The end was torn off by a crash in the middle of writing; these many bytes were dropped.
    TornTail { bytes: u64 },
    /// The ledger was damaged and lies at `path` now. With `kept`, all that was synced could still be read;
    /// otherwise all tasks start from now.
    SetAside { path: PathBuf, why: String, kept: bool },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::TornTail { bytes } => write!(f, "the ledger's last record was torn, {bytes} bytes dropped"),
            Notice::SetAside { path, why, kept } => {
                let rest = if *kept { "nothing synced is lost" } else { "all tasks start from now" };
                write!(f, "the ledger was damaged ({why}), set aside as {}; {rest}", path.display())
            }
        }
    }
}

/// The open ledger. Its user holds the lock of the state folder.
#[derive(Debug)]
pub struct Ledger {
    /// Taken before `state` where both are.
    disk: Mutex<Disk>,
    state: Mutex<State>,
}

/// The file, and what of it counts.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
    /// `None` if nothing can be appended before a new file was written.
    file: Option<File>,
    /// Of what is whole; what may stand behind it is to be cut off.
    length: u64,
    ragged: bool,
    epoch: u64,
    index: u64,
    compact_at: u64,
}

impl Ledger {
    /// Opens the ledger of `folder`. `wall` names a damaged file that is set aside. No disk is waited for: what is
    /// there is gone on with until `compact`, and where nothing is the first records begin it.
    ///
    /// # Errors
    /// If it cannot be opened for writing, or a damaged file cannot even be set aside. A full disk is no error yet.
    pub fn open(folder: &Path, wall: DateTime<Utc>) -> Result<(Ledger, Vec<Notice>), Error> {
        let path = folder.join(NAME);
        let mut notices = Vec::new();
        let mut is_usable = false;
        let found = match read_regular(&path) {
            Ok(None) => Replay { state: State::default(), length: 0, epoch: 0, damage: None },
            Ok(Some(bytes)) => {
                is_usable = true;
                replay(&bytes)
            }
            Err(why) => Replay::nothing(why),
        };
        match found.damage {
            None => {}
            Some(replay::Damage::Torn { bytes }) => notices.push(Notice::TornTail { bytes }),
            Some(replay::Damage::Damaged { why, kept }) => {
                is_usable = false;
                let path = set_aside(&path, wall)?;
                notices.push(Notice::SetAside { path, why, kept });
            }
        }
        let mut disk = Disk {
            folder: folder.to_path_buf(),
            file: None,
            length: found.length,
            ragged: false,
            epoch: found.epoch,
            index: 0,
            compact_at: COMPACT_AT,
        };
        if is_usable {
            disk.go_on(&path).map_err(|error| Error::new(path.display(), error))?;
        }
        Ok((Ledger { disk: Mutex::new(disk), state: Mutex::new(found.state) }, notices))
    }

    /// All that was appended so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file by a snapshot of the state.
    ///
    /// # Errors
    /// If none could be written; then the file goes on growing.
    pub fn compact(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let text = snapshot(&self.state());
        disk.compact(&text)
    }

    /// Appends `records` and syncs them, all at once.
    ///
    /// # Errors
    /// If they could not be written or synced; then none of them counts, and what is appended later is whole.
    pub fn append(&self, records: &[Record]) -> io::Result<()> {
        let mut disk = self.disk();
        self.write(&mut disk, records, true)?;
        disk.epoch += 1;
        disk.index = 0;
        if disk.length > disk.compact_at {
            let text = snapshot(&self.state());
            if disk.compact(&text).is_err() {
                disk.compact_at = disk.length.saturating_mul(2);
            }
        }
        Ok(())
    }

    /// Appends `records` without a sync, for what a loss of power makes moot.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_unsynced(&self, records: &[Record]) -> io::Result<()> {
        self.write(&mut self.disk(), records, false)
    }

    fn write(&self, disk: &mut Disk, records: &[Record], sync: bool) -> io::Result<()> {
        if disk.file.is_none() {
            let text = snapshot(&self.state());
            disk.compact(&text)?;
        }
        disk.append(records, sync)?;
        let mut state = self.state();
        records.iter().for_each(|record| state.apply(record));
        Ok(())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn append(&mut self, records: &[Record], sync: bool) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("there is no ledger"));
        };
        if self.ragged {
            file.set_len(self.length)?;
            self.ragged = false;
        }
        let mut text = String::new();
        for (index, record) in (self.index..).zip(records) {
            line::write(&mut text, self.epoch, index, record);
        }
        let written = file.write_all_at(text.as_bytes(), self.length);
        if let Err(error) = written.and_then(|()| if sync { file.sync_data() } else { Ok(()) }) {
            self.ragged = file.set_len(self.length).is_err();
            return Err(error);
        }
        self.length += text.len() as u64;
        self.index += records.len() as u64;
        Ok(())
    }

    /// Writes `text`, a snapshot, as a new ledger and puts it in the place of the old one.
    fn compact(&mut self, text: &str) -> io::Result<()> {
        let new = self.folder.join(NAME_OF_NEW);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        let done = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, self.folder.join(NAME)));
        if let Err(error) = done {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        self.file = Some(file);
        self.length = text.len() as u64;
        self.ragged = false;
        self.epoch = 1;
        self.index = 0;
        self.compact_at = COMPACT_AT.max(self.length.saturating_mul(4));
        File::open(&self.folder)?.sync_all()
    }

    /// Goes on with the file as it is; what was torn off its end is cut away before anything is written behind it.
    fn go_on(&mut self, path: &Path) -> io::Result<()> {
        self.file = Some(OpenOptions::new().read(true).write(true).open(path)?);
        self.ragged = true;
        self.epoch += 1;
        self.index = 0;
        Ok(())
    }
}

/// The state that the ledger of `folder` tells, without changing anything; for readers beside a daemon.
///
/// # Errors
/// If there is no readable ledger.
pub fn read(folder: &Path) -> Result<State, Error> {
    let path = folder.join(NAME);
    match read_regular(&path) {
        Ok(Some(bytes)) => Ok(replay(&bytes).state),
        Ok(None) => Ok(State::default()),
        Err(why) => Err(Error::new(path.display(), why)),
    }
}

/// The contents of the file at `path`, `None` if nothing is there, or why it can be no ledger.
fn read_regular(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.is_file() {
        return Err("not a regular file".to_string());
    }
    if metadata.len() > LENGTH_MAX {
        return Err("far too large".to_string());
    }
    fs::read(path).map(Some).map_err(|error| error.to_string())
}

/// Gives the file at `path` a name that no other has.
fn set_aside(path: &Path, wall: DateTime<Utc>) -> Result<PathBuf, Error> {
    let name = format!("{NAME}.damaged-{}", wall.format("%Y%m%dT%H%M%SZ"));
    let mut aside = path.with_file_name(&name);
    let mut count = 1;
    while fs::symlink_metadata(&aside).is_ok() {
        count += 1;
        aside = path.with_file_name(format!("{name}-{count}"));
    }
    fs::rename(path, &aside)
        .map_err(|error| Error::new(path.display(), format!("damaged, and cannot be set aside: {error}")))?;
    Ok(aside)
}

/// `state` as the text with which a ledger begins.
fn snapshot(state: &State) -> String {
    let mut entries = vec![Entry::Header, Entry::Next(state.next_run)];
    entries.extend(state.boot.clone().map(Entry::Boot));
    for (name, task) in &state.tasks {
        let kept = TaskState { due: None, past: Default::default(), ..task.clone() };
        entries.push(Entry::Kept(name.clone(), Box::new(kept)));
        entries.extend(task.due.clone().map(|due| Entry::Pending(name.clone(), due)));
    }
    entries.extend(state.running.iter().map(|(run, started)| Entry::Running(*run, started.clone())));
    entries.extend(state.sessions.iter().cloned().map(Entry::Survivor));
    entries.extend(state.tasks.values().flat_map(|task| task.past.iter().cloned().map(Entry::Past)));
    entries.push(Entry::Ready);

    let mut text = String::new();
    for (index, entry) in (0..).zip(entries) {
        line::write(&mut text, 0, index, &entry);
    }
    text
}
