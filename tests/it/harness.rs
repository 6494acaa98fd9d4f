//! A folder, a configuration and a daemon for each test.
//!
//! The folder's name has a blank and an umlaut in it, as a person's may. A daemon is waited for by
//! the lines of its log; every wait has a deadline that is far beyond what a busy machine needs,
//! and shows the log when it passes. Nothing here depends on being root or not.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The deadline of every wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition that cannot be waited for is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

const PROGRAM: &str = env!("CARGO_BIN_EXE_backupnizza");

/// For scripts: waits until the file that it is given exists, or until the test is over.
const AWAIT: &str = "#!/bin/sh\nuntil [ -e \"$1\" ]; do [ -e \"$0\" ] || exit 1; sleep 0.02; done\n";

/// The second user, without rights, a name or an entry in any database.
pub const ORDINARY_USER: u32 = 64_321;

/// A home of its own for one test, removed at its end.
pub struct Sandbox {
    folder: PathBuf,
    program: PathBuf,
    /// Whose it is, if not this process's user's.
    user: Option<u32>,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("backupnizza tést {}-{number}", std::process::id()));
        let sandbox = Sandbox { folder, program: PROGRAM.into(), user: None };
        for name in ["home/bin", "run", "state"] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(sandbox.folder.join(name));
            made.expect("a temporary folder");
        }
        sandbox.script("bin/await", AWAIT);
        sandbox
    }

    /// The sandbox of an ordinary user: of the second one where the tests run as root, else of
    /// theirs. It has a backupnizza of its own, because that user may not reach the one that was built.
    pub fn of_ordinary_user() -> Sandbox {
        let mut sandbox = Sandbox::new();
        sandbox.program = sandbox.path("bin/backupnizza");
        // Not by this process: while it had the file open for writing, a child of another test could
        // inherit that, and nobody could execute the file.
        let copied = Command::new("cp").arg(PROGRAM).arg(&sandbox.program).status();
        assert!(copied.is_ok_and(|status| status.success()), "a copy of backupnizza");
        if is_root() {
            sandbox.user = Some(ORDINARY_USER);
            sandbox.hand_over(&sandbox.folder);
        }
        sandbox
    }

    /// Gives `place` and all that is in it to the sandbox's user.
    pub fn hand_over(&self, place: &Path) {
        let Some(user) = self.user else { return };
        std::os::unix::fs::lchown(place, Some(user), Some(user)).expect("root may give files away");
        if place.is_dir() && !place.is_symlink() {
            for entry in fs::read_dir(place).expect("a folder").flatten() {
                self.hand_over(&entry.path());
            }
        }
    }

    /// The program that its daemons and clients are started from.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// `name` below the home directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Where the daemon's socket is, unless the configuration says otherwise.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/socket")
    }

    /// The runtime directory: the daemon's socket, and the private folders of `once`.
    pub fn runtime_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Writes a file that only this user can read, below the home directory.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let folder = path.parent().expect("a folder");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).expect("a folder for the file");
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(contents.as_ref())).expect("a writable file");
        let made = path.ancestors().take_while(|made| *made != self.home());
        made.for_each(|made| drop(self.user.map(|user| chown(made, Some(user), Some(user)))));
        path
    }

    /// Writes an executable file.
    pub fn script(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.write(name, contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("an executable file");
        path
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.read_bytes(name)).into_owned()
    }

    pub fn read_bytes(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Lets a script go on that waits with `await ~/NAME`.
    pub fn signal(&self, name: &str) {
        self.write(name, "");
    }

    /// Waits until a command has made the file `name` below the home directory.
    pub fn await_file(&self, name: &str) {
        let path = self.path(name);
        eventually(&format!("{} to exist", path.display()), || path.exists().then_some(()));
    }

    /// Writes the configuration.
    pub fn config(&self, text: &str) -> PathBuf {
        self.write("backup.yaml", text)
    }

    /// A command with this home and little else in its environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("XDG_RUNTIME_DIR", self.runtime_dir())
            .env("XDG_STATE_HOME", self.state_dir())
            .env("XDG_CONFIG_HOME", self.path(".config"))
            .env("XDG_CACHE_HOME", self.path(".cache"))
            .env("XDG_DATA_HOME", self.path(".local/share"))
            // As under systemd, so that it is the same for root.
            .env("RUNTIME_DIRECTORY", self.runtime_dir())
            .env("STATE_DIRECTORY", self.state_dir())
            .current_dir(self.home())
            .stdin(Stdio::null());
        command
    }

    /// backupnizza with these arguments.
    pub fn backupnizza<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command(&self.program);
        command.args(arguments);
        command
    }

    /// Runs `backupnizza once backup.yaml` with these further arguments to its end.
    pub fn once<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        finish(self.backupnizza(["once", "backup.yaml"].into_iter().chain(arguments)))
    }

    /// Starts a daemon on `config` and waits until it is ready.
    pub fn daemon(&self, config: &str) -> Daemon {
        let daemon = self.daemon_unready(config);
        daemon.wait_for(&["ready", "tasks="]);
        daemon
    }

    /// Starts a daemon on `config`.
    pub fn daemon_unready(&self, config: &str) -> Daemon {
        self.config(config);
        Daemon::start(self.backupnizza(["backup.yaml"]))
    }

    /// Starts a daemon again on the configuration that is there.
    pub fn daemon_again(&self) -> Daemon {
        let daemon = Daemon::start(self.backupnizza(["backup.yaml"]));
        daemon.wait_for(&["ready", "tasks="]);
        daemon
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A daemon, ended at the latest when it is dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
}

/// The lines that a process has written to stderr so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    /// No more will come.
    ended: AtomicBool,
    grown: Condvar,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            self.lines().push(String::from_utf8_lossy(&line).into_owned());
            self.grown.notify_all();
        }
        let _lines = self.lines();
        self.ended.store(true, Ordering::Relaxed);
        self.grown.notify_all();
    }
}

impl Daemon {
    /// Starts `command`; its stderr becomes the log.
    pub fn start(mut command: Command) -> Daemon {
        let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let log = Arc::new(Log::default());
        let (stderr, filled) = (child.stderr.take().expect("its stderr"), log.clone());
        thread::spawn(move || filled.fill(stderr));
        Daemon { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the daemon has logged so far.
    pub fn log(&self) -> String {
        self.log.lines().join("\n")
    }

    /// The logged lines that contain all of `parts`.
    pub fn lines(&self, parts: &[&str]) -> Vec<String> {
        self.log.lines().iter().filter(|line| contains_all(line, parts)).cloned().collect()
    }

    /// Waits for a line that contains all of `parts`, and returns the first.
    pub fn wait_for(&self, parts: &[&str]) -> String {
        self.wait_for_lines(1, parts).remove(0)
    }

    /// Waits until `count` lines contain all of `parts`.
    pub fn wait_for_lines(&self, count: usize, parts: &[&str]) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.log.lines();
        loop {
            let found: Vec<String> = lines.iter().filter(|line| contains_all(line, parts)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.log.ended.load(Ordering::Relaxed) {
                let log = lines.join("\n");
                drop(lines);
                panic!("waited in vain for {count} lines with {parts:?}; the log:\n{log}");
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the first run of `task`; returns its line in the log.
    pub fn wait_for_end(&self, task: &str) -> String {
        self.wait_for(&["run ended", &format!("task={task} ")])
    }

    /// Sends a signal to the daemon alone.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        match wait_until(&mut self.child, Instant::now() + PATIENCE) {
            Some(status) => status,
            None => panic!("the daemon does not end; the log:\n{}", self.log()),
        }
    }

    /// Stops the daemon in order; it must end with status 0.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}; the log:\n{}", self.log());
    }

    /// Lets the daemon live for `time`; whether it has. For tests of which a random moment is the point.
    pub fn lives_for(&mut self, time: Duration) -> bool {
        wait_until(&mut self.child, Instant::now() + time).is_none()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            // Twice, so that it kills what it runs, rather than leave it behind.
            self.signal("TERM");
            self.signal("TERM");
            if wait_until(&mut self.child, Instant::now() + PATIENCE / 3).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if thread::panicking() {
            eprint_log(&self.log());
        }
    }
}

fn eprint_log(log: &str) {
    let _ = writeln!(std::io::stderr(), "the daemon's log:\n{log}");
}

fn contains_all(line: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| line.contains(part))
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished {
    /// 128 + n for a signal, as a shell would say.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: i32) -> Finished {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr);
        self
    }
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Finished {
    running(&mut command).finish()
}

/// Starts a process. A program that a test has just written may still be open for writing in a process that another
/// test is about to start (execve(2), ETXTBSY), until that has got to its own exec.
fn spawn(command: &mut Command) -> Child {
    eventually("a program that can be executed", || match command.spawn() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        spawned => Some(spawned.expect("a program that starts")),
    })
}

/// Starts a command whose output is kept.
pub fn running(command: &mut Command) -> Running {
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = read_all(child.stdout.take().expect("its stdout"));
    let stderr = read_all(child.stderr.take().expect("its stderr"));
    Running { child, stdout, stderr }
}

/// A command that runs, killed at the latest when this is dropped.
pub struct Running {
    pub child: Child,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<Vec<u8>>,
}

impl Running {
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub fn finish(mut self) -> Finished {
        let Some(status) = wait_until(&mut self.child, Instant::now() + PATIENCE) else {
            let _ = self.child.kill();
            let stderr = self.stderr.join().expect("a reader");
            panic!("the command does not end; stderr:\n{}", String::from_utf8_lossy(&stderr));
        };
        Finished {
            status: shell_status(status),
            stdout: self.stdout.join().expect("a reader"),
            stderr: String::from_utf8_lossy(&self.stderr.join().expect("a reader")).into_owned(),
        }
    }
}

fn read_all(mut reader: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        bytes
    })
}

fn shell_status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("an exit status")
}

fn wait_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()]).output();
    sent.expect("a shell");
}

/// Waits until `condition` gives something.
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// Whether `tool` is installed. Where all tests are to be run, a missing one is a failure.
pub fn needs(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    if !is_there {
        not_tested(&format!("{tool} is not installed"));
    }
    is_there
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0))
}

/// Whether the tests run as root, for what only root can see or do. Where all tests are to be run,
/// that they do not is a failure.
pub fn needs_root() -> bool {
    if !is_root() {
        not_tested("only root can do that");
    }
    is_root()
}

/// Says loudly what is left out, and fails where all tests are to be run.
#[track_caller]
pub fn not_tested(why: &str) {
    let is_set = |name: &str, value: &str| std::env::var_os(name).is_some_and(|set| set == value);
    assert!(!is_set("CI", "true") && !is_set("BACKUPNIZZA_TEST_ALL", "1"), "not tested: {why}");
    cannot_test(why);
}

/// Says loudly what is left out because no package could bring it: what this machine or its user may not do.
pub fn cannot_test(why: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** NOT TESTED: {why} ***\n");
}

/// The pids of the living processes that lead or belong to `session`; Linux alone can tell.
pub fn session_members(session: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_member(pid, session)).collect()
}

fn is_member(pid: u32, session: u32) -> bool {
    let Ok(stat) = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")) else {
        return false;
    };
    // proc_pid_stat(5): after the name in parentheses come state, ppid, pgrp, session.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    let is_alive = fields.next().is_some_and(|state| state != "Z" && state != "X");
    is_alive && fields.nth(2) == Some(&session.to_string())
}

/// Whether a process of this pid is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}
