//! Clocks that jump, that are years wrong, and that go through the same hour twice: libfaketime moves the wall
//! clock of a daemon while its other clocks go on.
//!
//! A task that beats each second has the daemon look at the clock soon, not only after its 30 s.
//!
//! A statically linked program has no library to be moved by, so these daemons are of a build of their own, of the
//! same source with the system's C library beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::harness::{Daemon, Sandbox, needs, not_tested};

/// backupnizza, dynamically linked; built once, and only by the tests that need it.
fn dynamic_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dynamic");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
        cargo
            .args(["build", "--quiet", "--offline", "--locked", "--bin", "backupnizza", "--target-dir"])
            .arg(&folder)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            // Before all other places where flags may stand.
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=-crt-static")
            .env_remove("CARGO_BUILD_TARGET")
            .stdin(Stdio::null());
        let built = cargo.output().expect("cargo");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder.join("debug/backupnizza")
    })
}

/// A daemon's wall clock, in a file that libfaketime reads at each look.
struct Clock<'a> {
    sandbox: &'a Sandbox,
    library: PathBuf,
    zone: &'static str,
}

/// `None` if libfaketime is not installed.
fn clock<'a>(sandbox: &'a Sandbox, zone: &'static str) -> Option<Clock<'a>> {
    if !needs("faketime") {
        return None;
    }
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut libraries = folders.chain(["/usr/lib".into()]).map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists()).expect("the library of faketime");
    Some(Clock { sandbox, library, zone })
}

impl Clock<'_> {
    /// From now on it is `time` (RFC 3339), and the clock goes on from there.
    fn set(&self, time: &str) {
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a real clock").as_millis();
        let wanted = seconds(time) * 1_000;
        let offset = wanted - i128::try_from(real).expect("a real clock");
        let new = self.sandbox.write("clock.new", format!("{}{:.3}", sign(offset), offset.abs() as f64 / 1_000.0));
        fs::rename(new, self.file()).expect("a new time");
    }

    fn file(&self) -> PathBuf {
        self.sandbox.path("clock")
    }

    fn daemon(&self) -> Daemon {
        let mut command = self.sandbox.command(dynamic_program());
        command
            .arg("backup.yaml")
            .env("TZ", self.zone)
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.file())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let daemon = Daemon::start(command);
        daemon.wait_for(&["ready", "tasks="]);
        daemon
    }
}

fn sign(offset: i128) -> char {
    if offset < 0 { '-' } else { '+' }
}

/// Seconds since 1970 of a time in UTC, by the shell's calendar.
fn seconds(time: &str) -> i128 {
    let date = Command::new("date").args(["-u", "+%s", "-d", time]).output().expect("date");
    String::from_utf8_lossy(&date.stdout).trim().parse().expect("a time")
}

/// The configuration of `tasks`, each with its keys, and of the task that beats.
fn config(sandbox: &Sandbox, tasks: &[(&str, &str)]) {
    let mut text = "tasks:\n  - {name: beat, schedule: \"@every 1s\", command: [\"true\"]}\n".to_owned();
    for (name, keys) in tasks {
        text += &format!(
            "  - {{name: {name}, {keys}, command: [sh, -c, 'echo $BACKUPNIZZA_SLOT $(date +%Y) >> ~/{name}']}}\n"
        );
    }
    sandbox.config(&text);
}

/// The slots of all runs of `task` so far.
fn slots(sandbox: &Sandbox, task: &str) -> Vec<String> {
    let text = fs::read_to_string(sandbox.path(task)).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Waits until the daemon has had the time to do what it would do now.
fn let_it_beat(daemon: &Daemon) {
    let beats = daemon.lines(&["run ended", "task=beat"]).len();
    daemon.wait_for_lines(beats + 3, &["run ended", "task=beat"]);
}

#[test]
fn a_jump_over_several_slots_brings_one_run_and_a_jump_back_none() {
    let sandbox = Sandbox::new();
    let Some(clock) = clock(&sandbox, "UTC") else { return };
    config(
        &sandbox,
        &[("run", "schedule: \"*/5 * * * *\", missed_delay: 2s"), ("skip", "schedule: \"*/5 * * * *\", missed: skip")],
    );
    clock.set("2031-05-06T12:01:00Z");
    let mut daemon = clock.daemon();
    let_it_beat(&daemon);
    assert_eq!(slots(&sandbox, "run"), [""; 0], "{}", daemon.log());

    clock.set("2031-05-06T13:03:30Z");
    daemon.wait_for(&["the clock was set"]);
    daemon.wait_for(&["missed, running once", "task=run ", "slot=2031-05-06T13:00:00+00:00", "in=2s"]);
    daemon.wait_for(&["not run", "task=skip", "slot=2031-05-06T13:00:00+00:00", "missed"]);
    daemon.wait_for(&["run ended", "task=run ", "success"]);
    let_it_beat(&daemon);
    assert_eq!(slots(&sandbox, "run"), ["2031-05-06T13:00:00+00:00"], "{}", daemon.log());

    for back in ["2031-05-06T12:04:58Z", "2031-05-06T12:59:58Z"] {
        clock.set(back);
        let_it_beat(&daemon);
    }
    assert_eq!(slots(&sandbox, "run").len(), 1, "{}", daemon.log());

    clock.set("2031-05-06T13:04:58Z");
    for task in ["run", "skip"] {
        daemon.wait_for(&["run started", &format!("task={task} "), "slot=2031-05-06T13:05:00+00:00", "cause=slot"]);
    }
    daemon.wait_for(&["run ended", "task=skip"]);
    assert_eq!(slots(&sandbox, "skip"), ["2031-05-06T13:05:00+00:00"]);
    daemon.stop();
}

/// A job at half past two and one at each half hour, in Berlin; `None` where that cannot be.
fn night_in_berlin(sandbox: &Sandbox) -> Option<Clock<'_>> {
    let clock = clock(sandbox, "Europe/Berlin")?;
    if !Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
        not_tested("the time zones are not installed");
        return None;
    }
    config(sandbox, &[("fixed", "schedule: \"30 2 * * *\""), ("each", "schedule: \"30 * * * *\"")]);
    Some(clock)
}

#[test]
fn in_the_hour_that_comes_twice_a_fixed_job_runs_once_and_others_in_both() {
    let sandbox = Sandbox::new();
    let Some(clock) = night_in_berlin(&sandbox) else { return };
    clock.set("2026-10-25T00:29:57Z");
    let mut daemon = clock.daemon();
    daemon.wait_for(&["run ended", "task=fixed", "success"]);
    daemon.wait_for(&["run ended", "task=each", "success"]);
    // The clocks go back at 01:00 UTC.
    clock.set("2026-10-25T00:59:58Z");
    let_it_beat(&daemon);
    clock.set("2026-10-25T01:29:57Z");
    daemon.wait_for_lines(2, &["run ended", "task=each", "success"]);
    let_it_beat(&daemon);
    assert_eq!(slots(&sandbox, "fixed"), ["2026-10-25T02:30:00+02:00"], "{}", daemon.log());
    assert_eq!(slots(&sandbox, "each"), ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]);
    daemon.stop();
}

#[test]
fn in_the_night_without_its_hour_a_fixed_job_runs_after_the_gap_and_others_not_for_it() {
    let sandbox = Sandbox::new();
    let Some(clock) = night_in_berlin(&sandbox) else { return };
    clock.set("2026-03-29T00:29:57Z");
    let mut daemon = clock.daemon();
    daemon.wait_for(&["run ended", "task=each", "success"]);
    // The clocks go forward at 01:00 UTC.
    clock.set("2026-03-29T00:59:57Z");
    daemon.wait_for(&["run ended", "task=fixed", "success"]);
    clock.set("2026-03-29T01:29:57Z");
    daemon.wait_for_lines(2, &["run ended", "task=each", "success"]);
    let_it_beat(&daemon);
    assert_eq!(slots(&sandbox, "fixed"), ["2026-03-29T03:00:00+02:00"], "{}", daemon.log());
    assert_eq!(slots(&sandbox, "each"), ["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"]);
    daemon.stop();
}

#[test]
fn after_an_hour_off_a_task_catches_up_once() {
    let sandbox = Sandbox::new();
    let Some(clock) = clock(&sandbox, "UTC") else { return };
    config(
        &sandbox,
        &[
            ("run", "schedule: [\"*/5 * * * *\", \"@every 7m\"], missed_delay: 1s"),
            ("skip", "schedule: \"*/5 * * * *\", missed: skip"),
        ],
    );
    clock.set("2031-05-06T12:01:00Z");
    clock.daemon().stop();

    clock.set("2031-05-06T13:03:30Z");
    let mut daemon = clock.daemon();
    daemon.wait_for(&["not run", "task=skip", "slot=2031-05-06T13:00:00+00:00", "missed"]);
    daemon.wait_for(&["run ended", "task=run ", "success"]);
    let_it_beat(&daemon);
    daemon.stop();
    // Killed in between or not, it is not caught up with again.
    let again = clock.daemon();
    let_it_beat(&again);
    assert_eq!(slots(&sandbox, "run").len(), 1, "{}\n{}", daemon.log(), again.log());
    assert_eq!(slots(&sandbox, "skip"), [""; 0]);
}

#[test]
fn a_clock_that_was_years_wrong_is_corrected_either_way() {
    let sandbox = Sandbox::new();
    let Some(clock) = clock(&sandbox, "UTC") else { return };
    config(&sandbox, &[("t", "schedule: \"*/5 * * * *\", missed_delay: 1s")]);
    clock.set("2016-01-01T00:00:30Z");
    let mut daemon = clock.daemon();
    let_it_beat(&daemon);
    // A machine without a battery for its clock learns the time: one run for all those years.
    clock.set("2031-05-06T13:03:30Z");
    daemon.wait_for(&["run ended", "task=t ", "success"]);
    clock.set("2031-05-06T13:04:58Z");
    daemon.wait_for_lines(2, &["run ended", "task=t ", "success"]);
    assert_eq!(slots(&sandbox, "t"), ["2031-05-06T13:00:00+00:00", "2031-05-06T13:05:00+00:00"], "{}", daemon.log());

    // It was in the future: that is said, and slots go on from now.
    clock.set("2026-02-03T04:04:58Z");
    daemon.wait_for(&["the last slots lie in the future"]);
    daemon.wait_for(&["run started", "task=t ", "slot=2026-02-03T04:05:00+00:00", "cause=slot"]);
    daemon.wait_for_lines(3, &["run ended", "task=t ", "success"]);
    daemon.stop();

    // The same while it was not running; what ran in between does not come again.
    clock.set("2026-02-01T10:04:58Z");
    let mut again = clock.daemon();
    again.wait_for(&["the last slots lie in the future"]);
    again.wait_for(&["run started", "task=t ", "slot=2026-02-01T10:05:00+00:00", "cause=slot"]);
    again.wait_for(&["run ended", "task=t ", "success"]);
    again.stop();
    assert_eq!(slots(&sandbox, "t").len(), 4, "{}\n{}", daemon.log(), again.log());
}

#[test]
fn commands_see_the_real_clock() {
    let sandbox = Sandbox::new();
    let Some(clock) = clock(&sandbox, "UTC") else { return };
    config(&sandbox, &[("t", "schedule: \"@start\"")]);
    clock.set("2016-01-01T00:00:30Z");
    let mut daemon = clock.daemon();
    daemon.wait_for_end("t");
    daemon.stop();
    assert!(!sandbox.read("t").contains(" 2016"), "the daemon's environment reached its command");
}
