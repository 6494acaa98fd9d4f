//! A folder, a configuration and a daemon, as a user has them, and what the kernel knows of the daemon.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where another program than the one that cargo built for this, under the profile `release`, is to be measured.
static OTHER: OnceLock<PathBuf> = OnceLock::new();

/// The program that is measured.
pub fn program() -> &'static Path {
    OTHER.get().map_or(Path::new(env!("CARGO_BIN_EXE_backupnizza")), PathBuf::as_path)
}

/// From now on it is the one at `path`.
pub fn measure_another(path: PathBuf) {
    OTHER.set(path).expect("one program at a time");
}

/// The deadline of every wait that has no reason to be long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own, removed at its end.
pub struct Sandbox {
    folder: PathBuf,
    zone: String,
    /// What stands before each command line.
    placement: &'static [&'static str],
}

/// Keeps a command and all that it starts on one processor (taskset(1)).
pub const ONE_PROCESSOR: &[&str] = if cfg!(target_os = "linux") { &["taskset", "-c", "0"] } else { &[] };

/// `program`, placed as `placement` says.
pub fn placed(placement: &[&str], program: &Path) -> Command {
    let Some((first, others)) = placement.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(others).arg(program);
    command
}

impl Sandbox {
    pub fn new() -> Sandbox {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("backupnizza-bench-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).expect("a temporary folder");
        let sandbox = Sandbox { folder, zone: "UTC0".to_owned(), placement: &[] };
        sandbox.write("vault.key", "correct horse battery staple\n");
        sandbox
    }

    /// Local time is so many seconds ahead of UTC, which moves the slots of whole minutes.
    pub fn ahead_of_utc(mut self, seconds: u32) -> Sandbox {
        self.zone = format!("BENCH-00:00:{seconds:02}");
        self
    }

    /// Whatever is started is placed so.
    pub fn placed(mut self, placement: &'static [&'static str]) -> Sandbox {
        self.placement = placement;
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// As `path`, for a configuration or a command line.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, contents.as_bytes())).expect("a file");
        path
    }

    /// Writes a configuration of which only the tasks differ, with one secret from a file.
    pub fn config(&self, head: &str, tasks: &str) {
        let (state, socket, key) = (self.text("state"), self.text("socket"), self.text("vault.key"));
        let secrets = format!("- {{name: vault, file: {key}}}");
        let text = format!(
            "state_dir: {state}\nsecretbox: {{socket: {socket}, max_token_ttl: 1h}}\n{head}\
             defaults: {{max_age: none}}\nsecrets:\n  {secrets}\ntasks:\n{tasks}"
        );
        self.write("backup.yaml", &text);
    }

    /// backupnizza with these arguments in an environment that has little else.
    pub fn backupnizza(&self, arguments: &[&str]) -> Command {
        let mut command = placed(self.placement, program());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", &self.folder)
            .env("TZ", &self.zone)
            .env("BACKUPNIZZA_SOCKET", self.path("socket"))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts a daemon whose log is the file `log`, and waits until it is ready.
    pub fn daemon(&self) -> Daemon<'_> {
        let log = File::create(self.path("log")).expect("a log");
        let child = self.backupnizza(&["backup.yaml"]).stderr(log).spawn().expect("a daemon");
        let daemon = Daemon { child, sandbox: self };
        daemon.wait_for(" ready ");
        daemon
    }

    /// Starts a daemon, and says how long it took until it said that it was ready.
    pub fn time_to_ready(&self) -> Duration {
        let begun = Instant::now();
        let child = self.backupnizza(&["backup.yaml"]).stderr(Stdio::piped()).spawn().expect("a daemon");
        let mut daemon = Daemon { child, sandbox: self };
        let mut log = BufReader::new(daemon.child.stderr.take().expect("its log")).lines().map_while(Result::ok);
        let ready = log.find(|line| line.contains(" ready "));
        let took = begun.elapsed();
        assert!(ready.is_some(), "the daemon is never ready");
        took
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A daemon, ended at the latest when it is dropped.
pub struct Daemon<'a> {
    child: Child,
    sandbox: &'a Sandbox,
}

impl Daemon<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `text` in the log.
    pub fn wait_for(&self, text: &str) {
        let log = || fs::read_to_string(self.sandbox.path("log")).unwrap_or_default();
        eventually(&format!("{text:?} in the log"), PATIENCE, || log().contains(text));
    }

    /// Has the daemon run `task`, and waits until it is over.
    pub fn run(&self, task: &str) {
        let status = self.sandbox.backupnizza(&["run", task]).stderr(Stdio::null()).status().expect("a client");
        let log = || fs::read_to_string(self.sandbox.path("log")).unwrap_or_default();
        assert!(status.success(), "the task {task} ended with {status}:\n{}", log());
    }

    /// Has the daemon run `task`, and does not look on.
    pub fn begin(&self, task: &str) {
        let status = self.sandbox.backupnizza(&["run", task, "--detach"]).stderr(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "the task {task} does not begin");
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Looks every 10 ms until `condition` holds.
pub fn eventually(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The proportional set size of a process in MB (proc_pid_smaps(5)): its own pages, and its part of shared ones.
pub fn proportional_memory(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the daemon's memory");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("its proportional size");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024.0 / 1e6
}

/// What the threads of a process have cost so far.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub switches: f64,
    pub cpu: Duration,
}

/// Context switches of both kinds (proc_pid_status(5)) and time on a processor (schedstat) of all threads.
pub fn effort(pid: u32) -> Effort {
    let mut effort = Effort { switches: 0.0, cpu: Duration::ZERO };
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let switches = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        effort.switches += switches.filter_map(|(_, count)| count.trim().parse::<f64>().ok()).sum::<f64>();
        let schedule = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        let nanoseconds = schedule.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        effort.cpu += Duration::from_nanos(nanoseconds);
    }
    effort
}

/// The tiny program that tells when it came to life (`stamp.c`), compiled into `folder`.
pub fn stamp_program(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("stamp.c"), folder.join("stamp"));
    fs::write(&source, include_str!("stamp.c")).expect("a file");
    let compiled = Command::new("cc")
        .args(["-O2", "-static", "-nostdlib", "-fno-stack-protector", "-o"])
        .args([&program, &source])
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc cannot compile stamp.c");
    program
}

/// The times that stamp programs have left in `file`, since 1970.
pub fn stamps(file: &Path) -> Vec<Duration> {
    let bytes = fs::read(file).unwrap_or_default();
    let number = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|time| Duration::new(number(&time[..8]), number(&time[8..]) as u32)).collect()
}
