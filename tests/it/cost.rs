//! What things cost, in counts that no load of the machine changes; `cargo bench` has the times. Each bound has room
//! for a change with a reason, and none for one that nobody has noticed.

use std::fs;
use std::time::Duration;

use crate::harness::{Daemon, Sandbox, eventually, needs, signal};

/// Of a client from its exec to its end: the C library's and the standard library's start, the look at the socket, the
/// conversation, protected memory.
const SYSTEM_CALLS_MAX: usize = 75;

/// The scheduler, the ledger, the log, signals, and a listener at each of the two sockets.
const THREADS: usize = 6;

/// How many tasks share a slot here.
const MANY: usize = 40;

fn count_in(text: &str, what: &[&str]) -> usize {
    text.lines().filter(|line| what.iter().any(|what| line.contains(what))).count()
}

fn threads_of(daemon: &Daemon) -> Vec<std::path::PathBuf> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).into_iter().flatten().flatten();
    threads.map(|thread| thread.path()).collect()
}

/// How often its threads have left the processor, of themselves or not (proc_pid_status(5)).
fn switches_of(daemon: &Daemon) -> u64 {
    let count = |status: String| {
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>()
    };
    threads_of(daemon).iter().filter_map(|thread| fs::read_to_string(thread.join("status")).ok()).map(count).sum()
}

#[test]
fn a_redemption_takes_few_system_calls() {
    if !needs("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("key", "correct horse\n");
    sandbox.config(
        "secrets: [{name: vault, file: ~/key}]\n\
         tasks:\n\
         - name: redeem\n  \
           command: [sh, -c, 'eval \"strace -o trace $TOKEN\" > secret']\n  \
           environment: {TOKEN: {secret: vault, as: command}}\n",
    );
    sandbox.once(["redeem"]).expect(0);
    assert_eq!(sandbox.read("secret"), "correct horse");
    let trace = sandbox.read("trace");
    let count = trace.lines().count();
    assert!(count <= SYSTEM_CALLS_MAX, "{count} system calls:\n{trace}");
}

#[test]
fn a_daemon_at_rest_has_few_threads_and_sleeps() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon("tasks: [{name: rare, schedule: '0 0 1 1 *', command: ['true']}]");
    // It gives back memory half a second after the last event, and looks at the clock every 30 s after that.
    eventually("a second without a step", || {
        let before = switches_of(&daemon);
        assert!(daemon.lives_for(Duration::from_secs(1)));
        (switches_of(&daemon) == before).then_some(())
    });
    let threads = threads_of(&daemon);
    assert_eq!(threads.len(), THREADS);
}

/// The system calls of a daemon that make other processes or wait for the disk, until `count` tasks that are due at
/// once have all begun.
fn trace_of_slot(count: usize) -> String {
    let sandbox = Sandbox::new();
    let task = |number| format!("- {{name: task-{number}, schedule: '@start', command: [await, ~/go]}}\n");
    let tasks: String = (0..count).map(task).collect();
    sandbox.config(&format!("max_concurrent_runs: {MANY}\ntasks:\n{tasks}"));
    let trace = sandbox.path("trace");
    let mut command = sandbox.command("strace");
    // With -D the tracer is the child's child, and the child is the daemon, which ends with the test.
    command
        .args(["-D", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,clone,clone3,fork,vfork", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_backupnizza"))
        .arg("backup.yaml");
    let daemon = Daemon::start(command);
    daemon.wait_for_lines(count, &["run started"]);
    let trace = fs::read_to_string(trace).expect("a trace");
    sandbox.signal("go");
    daemon.wait_for_lines(count, &["run ended"]);
    trace
}

#[test]
fn tasks_that_share_a_slot_share_its_waits_for_the_disk_and_none_copies_the_daemon() {
    if !needs("strace") {
        return;
    }
    let (one, many) = (trace_of_slot(1), trace_of_slot(MANY));
    let syncs = |trace: &str| count_in(trace, &["fsync(", "fdatasync("]);
    assert!(syncs(&many) <= syncs(&one) + 1, "one task:\n{one}\n{MANY} tasks:\n{many}");
    let is_fork = |line: &&str| line.contains("clone") && line.contains("SIGCHLD") && !line.contains("CLONE_VM");
    let forks = |trace: &str| trace.lines().filter(is_fork).count() + count_in(trace, &["fork("]);
    assert_eq!(forks(&one), 0, "{one}");
}

#[test]
fn a_command_that_runs_takes_a_thread_and_one_that_prints_a_second() {
    for (command, threads) in [("[await, ~/go]", 1), ("[sh, -c, 'echo line; exec await ~/go']", 2)] {
        let sandbox = Sandbox::new();
        let task = |number| format!("- {{name: task-{number}, schedule: '@start', command: {command}}}\n");
        let tasks: String = (0..MANY).map(task).collect();
        let daemon = sandbox.daemon(&format!("max_concurrent_runs: {MANY}\ntasks:\n{tasks}"));
        daemon.wait_for_lines(MANY, &["run started"]);
        eventually("the threads of all", || (threads_of(&daemon).len() == THREADS + threads * MANY).then_some(()));
        sandbox.signal("go");
        daemon.wait_for_lines(MANY, &["run ended", "outcome=success"]);
        eventually("only those that last", || (threads_of(&daemon).len() == THREADS).then_some(()));
    }
}

/// The launcher that the daemon keeps ready for a run to come, which has been stopped so that it stays one.
fn ready_launcher(daemon: &Daemon) -> Option<u32> {
    let children = |thread: &std::path::PathBuf| fs::read_to_string(thread.join("children")).unwrap_or_default();
    let children: String = threads_of(daemon).iter().map(children).collect();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    pids.into_iter().find(|&pid| {
        signal(pid, "STOP");
        let is_launcher = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"__launch\0"));
        if !is_launcher {
            signal(pid, "CONT");
        }
        is_launcher
    })
}

#[test]
fn a_launcher_that_was_ready_too_soon_and_is_gone_costs_no_run() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon("tasks: [{name: t, schedule: '@every 3s', command: ['true']}]");
    let before = eventually("a launcher that ends before its run starts", || {
        let launcher = ready_launcher(&daemon)?;
        let before = daemon.lines(&["run started"]).len();
        signal(launcher, "KILL");
        (daemon.lines(&["run started"]).len() == before).then_some(before)
    });
    let ends = daemon.wait_for_lines(before + 1, &["run ended"]);
    assert!(ends[before].contains("outcome=success"), "{}", daemon.log());
}
