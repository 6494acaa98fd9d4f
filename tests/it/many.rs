//! Many at once: thousands of runs that come due in the same second, hundreds of hooks, few descriptors.

use std::fs;

use crate::harness::{Daemon, Sandbox, eventually};

/// How many entries a folder of the daemon's in /proc has; none where there is no such thing.
fn entries(daemon: &Daemon, folder: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{folder}", daemon.pid())).map_or(0, Iterator::count)
}

#[test]
fn thousands_of_runs_that_are_due_in_the_same_second_all_run_in_order_a_few_at_once() {
    // Where all is to be tested, as many as may be asked for.
    let count = if std::env::var_os("CI").is_some() { 10_000 } else { 1_000 };
    let sandbox = Sandbox::new();
    // Each hundredth leaves a mark, so that the test need not read the log meanwhile.
    let task = |number: usize| {
        let command = if number % 100 == 99 { format!("[touch, ~/{number}]") } else { "[\"true\"]".to_owned() };
        format!("  - {{name: t{number}, schedule: \"@start\", command: {command}}}\n")
    };
    let tasks: String = (0..count).map(task).collect();
    let mut daemon = sandbox.daemon(&format!("tasks:\n{tasks}"));
    let (mut threads, mut descriptors) = (0, 0);
    for number in (99..count).step_by(100) {
        let mark = sandbox.path(&number.to_string());
        eventually("a hundred runs", || {
            threads = threads.max(entries(&daemon, "task"));
            descriptors = descriptors.max(entries(&daemon, "fd"));
            mark.exists().then_some(())
        });
    }
    assert!(threads < 100 && descriptors < 400, "{threads} threads, {descriptors} descriptors");
    daemon.wait_for_lines(count, &["run ended"]);
    eventually("all to be given back", || (entries(&daemon, "task") < 30 && entries(&daemon, "fd") < 40).then_some(()));
    daemon.stop();
    let (mut running, mut most, mut started) = (0, 0, 0);
    for line in daemon.log().lines() {
        if line.contains(" run started ") {
            assert!(line.contains(&format!("task=t{started} run={} ", started + 1)), "run {started} began as {line}");
            (running, started) = (running + 1, started + 1);
            most = most.max(running);
        } else if line.contains(" run ended ") {
            assert!(line.contains("outcome=success"), "{line}");
            running -= 1;
        }
    }
    assert_eq!((started, running), (count, 0));
    assert!((1..=16).contains(&most), "{most} runs at once");
}

/// Starts a daemon that may have 256 descriptors, which is what macOS gives.
fn with_few_descriptors(sandbox: &Sandbox, config: &str) -> Daemon {
    sandbox.config(config);
    let limited = sandbox.backupnizza(["backup.yaml"]);
    let mut command = sandbox.command("sh");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]).arg(limited.get_program()).args(limited.get_args());
    Daemon::start(command)
}

#[test]
fn hundreds_of_runs_that_are_due_at_once_all_run_with_few_descriptors_and_threads() {
    let sandbox = Sandbox::new();
    // A third each: no lock, one that all share, one of its own; all wait until the last is due.
    let task = |number: usize| {
        let lock = match number % 3 {
            0 => String::new(),
            1 => "lock: {name: all, shared: true}, ".to_owned(),
            _ => format!("lock: own{number}, "),
        };
        format!("  - {{name: t{number}, schedule: \"@start\", {lock}command: [\"true\"]}}\n")
    };
    const TASKS: usize = 600;
    let tasks: String = (0..TASKS).map(task).collect();
    let mut daemon = with_few_descriptors(&sandbox, &format!("max_concurrent_runs: 8\ntasks:\n{tasks}"));
    let done = || daemon.lines(&["run ended"]).len() >= TASKS;
    let threads = || fs::read_dir(format!("/proc/{}/task", daemon.pid())).map_or(0, Iterator::count);
    let mut most = 0;
    eventually("all runs", || {
        most = most.max(threads());
        done().then_some(())
    });
    assert!(most < 50, "{most} threads");
    assert_eq!(daemon.lines(&["error"]), [""; 0]);
    assert_eq!(daemon.lines(&["run ended", "outcome=success"]).len(), TASKS);
    daemon.stop();
}

#[test]
fn hooks_of_hundreds_of_runs_are_all_called_a_few_at_once() {
    const TASKS: usize = 200;
    let sandbox = Sandbox::new();
    let task = |number: usize| format!("  - {{name: t{number}, schedule: \"@start\", command: [\"true\"]}}\n");
    let tasks: String = (0..TASKS).map(task).collect();
    let hook = "[sh, -c, 'echo begins >> ~/hooks; sleep 0.1; echo ends >> ~/hooks']";
    let mut daemon = sandbox.daemon(&format!("defaults: {{hooks: {{end: {hook}}}}}\ntasks:\n{tasks}"));
    daemon.wait_for_lines(TASKS, &["run ended", "outcome=success"]);
    // It waits for the hooks that have still to be called.
    daemon.stop();
    let (mut now, mut most, mut called) = (0, 0, 0);
    for line in sandbox.read("hooks").lines() {
        (now, called) = if line == "begins" { (now + 1, called + 1) } else { (now - 1, called) };
        most = most.max(now);
    }
    assert_eq!(called, TASKS);
    assert!(most <= 16, "{most} hooks at once");
}
