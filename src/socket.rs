//! The daemon's sockets, both ends: a place that only its own user can write to, and a daemon that
//! belongs to whom the client trusts.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::sys::{self, Peer};

/// A daemon may be restarting, or have its hands full.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How long to leave a socket alone when the process has no descriptor left for a peer.
pub const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

const ELSEWHERE: &str = "set BACKUPNIZZA_SOCKET or give --socket PATH";

/// Whose processes may connect; who is there is looked at all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The daemon's own user's.
    Own,
    /// Everybody's: commands run as other users.
    Everyone,
}

/// A bound socket that never blocks.
pub struct Bound {
    pub socket: UnixListener,
    path: PathBuf,
    /// Kept for a peer whom no other descriptor would be left to identify.
    spare: Mutex<Option<UnixListener>>,
}

impl Bound {
    /// Binds `path` in a folder that only this user can write to, which is made if it is missing, and through which all
    /// may go where they are to connect. A socket that nobody answers at is replaced; anything else there is an error.
    pub fn new(path: &Path, reach: Reach) -> Result<Bound, Error> {
        let folder = path.parent().ok_or_else(|| Error::new(path.display(), "not a path for a socket"))?;
        prepare_folder(folder, reach)?;
        remove_stale(path)?;
        let failed = |error: io::Error| Error::new(path.display(), format!("cannot bind the socket: {error}"));
        // The folder keeps others out, and the process's umask keeps the socket from ever being wider than it is to be.
        let socket = UnixListener::bind(path).map_err(failed)?;
        let mode = match reach {
            Reach::Own => 0o600,
            Reach::Everyone => 0o666,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Bound { socket, path: path.to_owned(), spare: Mutex::default() })
    }

    /// Takes in the next peer, whose stream never blocks either, and says who it is. One whom no descriptor would be
    /// left to identify waits to be accepted.
    pub fn accept(&self) -> io::Result<(UnixStream, io::Result<Peer>)> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            *spare = Some(self.socket.try_clone()?);
        }
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        let peer = match sys::peer(&stream) {
            // It takes one to tell who is there.
            Err(error) if sys::lacks_descriptor(&error) => {
                drop(spare.take());
                sys::peer(&stream)
            }
            peer => peer,
        };
        Ok((stream, peer))
    }

    /// Removes the socket from its folder.
    pub fn close(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the socket's folder, or makes sure that nobody else can put anything there, and that all can go through it
/// who are to.
pub fn prepare_folder(folder: &Path, reach: Reach) -> Result<(), Error> {
    let object = folder.display();
    let is_new = !folder.exists();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Error::new(&object, format!("cannot make the folder: {error}")))?;
    if is_new && reach == Reach::Everyone {
        // The process's umask has kept it closed.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).map_err(|error| Error::new(&object, error))?;
    }
    // Of the link itself: a folder reached through a link could be exchanged.
    let metadata = fs::symlink_metadata(folder).map_err(|error| Error::new(&object, error))?;
    if !metadata.is_dir() {
        return Err(Error::new(&object, "not a folder"));
    }
    if metadata.uid() != sys::effective_uid() {
        return Err(Error::new(&object, "belongs to another user").hint("name a folder of your own for it"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Error::new(&object, "writable by others").hint(format!("chmod 700 {object}")));
    }
    if reach == Reach::Everyone && metadata.mode() & 0o001 == 0 {
        return Err(Error::new(&object, "the users as whom tasks run cannot go through it to the socket")
            .hint(format!("chmod 711 {object}")));
    }
    Ok(())
}

/// Clears the way for a new socket: a dead daemon's socket goes, anything else stays.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let object = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::new(object, error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(object, "exists and is not a socket").hint("name another path, or move the file away"));
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = sys::peer(&stream).map_or(String::new(), |peer| format!(" (pid {})", peer.pid));
            Err(Error::new(object, format!("another process answers there{pid}")))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| Error::new(object, error))
        }
        Err(error) => Err(Error::new(object, error)),
    }
}

/// The first of `sockets` that exists, if it is this user's or root's.
pub fn find(sockets: &[PathBuf]) -> Result<&Path, Error> {
    if sockets.is_empty() {
        return Err(Error::new("socket", "no place known where it could be").hint(ELSEWHERE));
    }
    // One behind a folder that is closed to this user is there all the same, and connecting to it tells so.
    let is_there = |path: &&PathBuf| path.try_exists().unwrap_or(true);
    let Some(path) = sockets.iter().find(is_there) else {
        let places: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::new(places.join(", "), "no daemon there")
            .hint(format!("start it: `backupnizza CONFIG`; if its socket is elsewhere, {ELSEWHERE}")));
    };
    check_owner(path)?;
    Ok(path)
}

/// A socket of another user's would get to know the token.
fn check_owner(path: &Path) -> Result<(), Error> {
    let missing = |error: io::Error| Error::new(path.display(), error).hint("is the daemon running?");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for place in [path, folder] {
        let uid = fs::metadata(place).map_err(missing)?.uid();
        if uid != sys::effective_uid() && uid != 0 {
            return Err(Error::new(place.display(), "belongs to another user"));
        }
    }
    Ok(())
}

/// Connects to the daemon at `path`.
pub fn connect(path: &Path) -> Result<UnixStream, Error> {
    let until = Instant::now() + CONNECT_TIME;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < until => {
                std::thread::sleep(CONNECT_PAUSE);
            }
            Err(error) => {
                return Err(Error::new(path.display(), format!("cannot connect: {error}"))
                    .hint("is the daemon running? start it: `backupnizza CONFIG`"));
            }
        }
    }
}
