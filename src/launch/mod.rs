//! How a command is started: by way of this program itself, so that no code runs between fork
//! and exec and no secret passes through buffers that nobody wipes.
//!
//! The daemon starts a launcher with an empty environment and a socket as its standard input.
//! The launcher leads a new session and says so; only then the daemon makes the step's tokens
//! and sends one `frame` (arguments, environment, folder, umask, the program's identity) and the
//! descriptors. End of file on the socket tells the daemon that exec worked. Here is the daemon's
//! end; `child` is the launcher's.

mod child;
mod frame;

use std::io::{self, Read};
use std::mem;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::log;
use crate::sys::{self, LauncherImage};

pub use child::run;
pub use frame::Frame;

/// The hidden command by which this program is told that it is a launcher.
pub const COMMAND: &str = "__launch";

/// How long a launcher may take for its part; it does nothing that waits.
const LAUNCH_TIME: Duration = Duration::from_secs(10);

/// The pipe of the first `as: file` secret has this number in the command, those of others follow:
/// above what shells use for redirections of their own.
pub const FIRST_FILE: RawFd = 30;

/// The most `as: file` secrets of one command.
pub const FILES_MAX: usize = 32;

/// The most launchers that stand ready; each is a process.
const READY_MAX: usize = 256;

/// Those for runs that may have to wait long get this part of the descriptors of this process at most, each needs two.
const DESCRIPTORS_PART: usize = 4;

/// The launchers of this process's commands. To start one takes longer than all the rest of a command's start, so
/// those that will be needed in a moment are started before.
#[derive(Default)]
pub struct Launchers {
    image: OnceLock<LauncherImage>,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    ready: Vec<Launcher>,
    /// How many are to be ready.
    wanted: usize,
}

impl Launchers {
    /// Makes the executable from which they start, if nobody has; whoever comes meanwhile waits.
    pub fn image(&self) -> &LauncherImage {
        self.image.get_or_init(|| {
            let image = LauncherImage::new();
            if let Some(reason) = &image.fallback {
                log::warn("launchers start from a file that others can read", &[("reason", reason)]);
            }
            image
        })
    }

    /// Says that so many more will be needed in a moment, `at_once` of them at the same time; `fill` is to be called
    /// then.
    pub fn want(&self, more: usize, at_once: usize) {
        let most = at_once.max(sys::descriptors_max() / DESCRIPTORS_PART / 2);
        let mut stock = self.stock();
        stock.wanted = (stock.wanted + more).min(most).min(READY_MAX);
    }

    /// Starts those that are wanted; if one cannot be had, none stands ready, as what they hold may be needed more.
    /// Whoever takes one meanwhile and finds none starts it himself.
    pub fn fill(&self) {
        while self.stock().lacks_some() {
            let Ok(launcher) = Launcher::start(self.image()) else {
                return self.dismiss();
            };
            let mut stock = self.stock();
            if stock.lacks_some() {
                stock.ready.push(launcher);
            } else {
                drop(stock);
                launcher.end();
            }
        }
    }

    /// Ends those that stand ready and were not needed after all.
    pub fn dismiss(&self) {
        let mut ready = mem::take(&mut *self.stock()).ready;
        // First all are told, then each is waited for.
        for launcher in &mut ready {
            let _ = launcher.child.kill();
        }
        ready.into_iter().for_each(Launcher::end);
    }

    /// One for a command, which is alive and leads its session.
    pub fn take(&self) -> Result<Launcher, Error> {
        while let Some(launcher) = self.take_ready() {
            if let Ok(launcher) = launcher.greet() {
                return Ok(launcher);
            }
        }
        Launcher::start(self.image())?.greet()
    }

    fn take_ready(&self) -> Option<Launcher> {
        let mut stock = self.stock();
        stock.wanted = stock.wanted.saturating_sub(1);
        stock.ready.pop()
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn lacks_some(&self) -> bool {
        self.ready.len() < self.wanted
    }
}

/// A process that will become a command: it leads a session of its own and waits for its frame.
pub struct Launcher {
    child: Child,
    socket: UnixStream,
    /// As `sys::Process::started`.
    pub started: u64,
    /// As `sys::watch_exit`.
    exit: OwnedFd,
}

/// Where a launcher stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Session = 1,
    Frame,
    Directory,
    Descriptors,
    User,
    Identity,
    Exec,
}

impl Launcher {
    fn start(image: &LauncherImage) -> Result<Launcher, Error> {
        let failed = |error: io::Error| Error::new("launcher", format!("cannot start: {error}"));
        let (socket, theirs) = UnixStream::pair().map_err(failed)?;
        socket.set_read_timeout(Some(LAUNCH_TIME)).map_err(failed)?;
        socket.set_write_timeout(Some(LAUNCH_TIME)).map_err(failed)?;
        // Without a folder, user or group for it: with one the standard library forks, which copies what the kernel
        // knows of the daemon's memory; without, it lends it to the child until its exec (posix_spawn(3)).
        let child = Command::new(image.path())
            .arg0("backupnizza")
            .arg(COMMAND)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .map_err(failed)?;
        let pid = child.id() as i32;
        match sys::watch_exit(pid) {
            Ok(exit) => Ok(Launcher { child, socket, started: sys::start_of(pid).unwrap_or(0), exit }),
            Err(error) => {
                end(child);
                Err(failed(error))
            }
        }
    }

    /// Waits until it leads its session. One that failed, or that somebody has ended meanwhile, is an error.
    fn greet(mut self) -> Result<Launcher, Error> {
        let greeted = match self.child.try_wait() {
            Ok(Some(_)) => Err(Error::new("launcher", "has ended")),
            _ => self.await_session(),
        };
        match greeted {
            Ok(()) => Ok(self),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// The launcher's pid, which is also the session that the command will lead.
    pub fn session(&self) -> i32 {
        self.child.id() as i32
    }

    fn await_session(&mut self) -> Result<(), Error> {
        let mut word = [0];
        let answer = self.socket.read_exact(&mut word);
        answer.map_err(|error| Error::new("launcher", format!("does not answer: {error}")))?;
        if word != [0] {
            return Err(self.report(word[0]));
        }
        if sys::session_of(self.session()) != Some(self.session()) {
            return Err(Error::new("launcher", "does not lead a session of its own"));
        }
        Ok(())
    }

    /// Sends `frame` and waits until the launcher has become its program. With the child comes what tells of its end.
    ///
    /// # Errors
    /// Why it has not, with the launcher, which is to be ended.
    pub fn launch(mut self, frame: &Frame<'_>) -> Result<(Child, OwnedFd), (Launcher, Error)> {
        let sent = frame.send(&mut self.socket);
        // Also where it did not take the frame: it may have said why.
        let error = match (sent, self.await_exec()) {
            (Ok(()), Ok(None)) => return Ok((self.child, self.exit)),
            (_, Ok(Some(stage))) if stage == Stage::Directory as u8 => {
                self.report(stage).hint(format!("make {}, or correct `working_directory`", frame.directory.display()))
            }
            (_, Ok(Some(stage))) => self.report(stage),
            (Err(error), _) | (Ok(()), Err(error)) => {
                Error::new(frame.program.display(), format!("cannot be started: {error}"))
            }
        };
        Err((self, error))
    }

    /// The stage at which it stopped, `None` once it has become its program.
    fn await_exec(&mut self) -> io::Result<Option<u8>> {
        let mut stage = [0];
        loop {
            match self.socket.read(&mut stage) {
                Ok(count) => return Ok((count > 0).then_some(stage[0])),
                // A signal ends the wait of a socket that has a timeout, whatever its handler says (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::other("it does not answer"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The launcher ends without having become anything.
    pub fn end(self) {
        end(self.child);
    }

    /// What the launcher says went wrong: a stage, then an errno.
    fn report(&mut self, stage: u8) -> Error {
        let mut errno = [0; 4];
        let reason = match self.socket.read_exact(&mut errno).map(|()| i32::from_le_bytes(errno)) {
            Ok(0) => String::new(),
            Ok(errno) => format!(": {}", io::Error::from_raw_os_error(errno)),
            Err(_) => ": no reason given".to_owned(),
        };
        let what = match stage {
            stage if stage == Stage::Directory as u8 => "cannot go to its working directory",
            stage if stage == Stage::Identity as u8 => "the program changed while it was being started",
            stage if stage == Stage::Exec as u8 => "cannot be executed",
            stage if stage == Stage::User as u8 => "cannot become its `user`",
            stage if stage == Stage::Session as u8 => "cannot lead a session",
            stage if stage == Stage::Frame as u8 => "the launcher did not understand the daemon",
            _ => "cannot lay out its descriptors",
        };
        Error::new("launcher", format!("{what}{reason}"))
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
