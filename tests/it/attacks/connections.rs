//! Peers that are many, slow, silent, too loud or rude keep nobody from a secret, and nobody's
//! crowding makes the daemon spin.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use chrono::{DateTime, FixedOffset};

use super::{SECRET, text, thief};
use crate::harness::{Daemon, Sandbox, eventually, finish};

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn strangers_in_crowds_keep_no_step_from_its_secret() {
    const SILENT: usize = 300;
    const CONNECTS: usize = 10_000;
    const REDEMPTIONS: usize = 50;
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let daemon = sandbox.daemon(&format!(
        r#"
secrets: [{{name: vault, file: ~/vault}}]
tasks:
  - name: t
    schedule: "@start"
    environment: {{VAULT: {{secret: vault, as: command, uses: {REDEMPTIONS}, max_ttl: 1h}}}}
    command: [sh, -c, 'touch begun; await ~/go; for i in $(seq {REDEMPTIONS}); do eval "$VAULT" >> all || exit 1; done']
"#
    ));
    sandbox.await_file("begun");
    let connect = || UnixStream::connect(sandbox.socket()).expect("a connection");
    let silent: Vec<UnixStream> = (0..SILENT).map(|_| connect()).collect();
    let (connects, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // Also if what is waited for never comes.
        let over = SetWhenDropped(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) || connects.load(Ordering::Relaxed) < CONNECTS {
                drop(connect());
                connects.fetch_add(1, Ordering::Relaxed);
            }
        });
        eventually("the crowd", || (connects.load(Ordering::Relaxed) > 100).then_some(()));
        sandbox.signal("go");
        let end = daemon.wait_for_end("t");
        drop(over);
        assert!(end.contains("outcome=success"), "{}", daemon.log());
    });
    assert_eq!(sandbox.read("all"), SECRET.repeat(REDEMPTIONS));
    drop(silent);
}

#[test]
fn rude_peers_are_dropped_and_the_next_is_served() {
    let sandbox = Sandbox::of_ordinary_user();
    if thief(&sandbox).is_none() {
        return;
    }
    sandbox.write("vault", SECRET);
    let daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    schedule: "@start"
    environment: {VAULT: {secret: vault, as: command, uses: 10, max_ttl: 1h}}
    command: [sh, -c, 'thief misbehave "$BACKUPNIZZA_SOCKET" "${VAULT##* }" > said; eval "$VAULT" > own']
"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    let answer = format!("secret {}\n{SECRET}", SECRET.len()).len();
    assert_eq!(sandbox.read("said"), format!("silent 0\nslow 0\nhuge 0\nhalf 0\ncomplete {answer}\n"));
    assert_eq!(sandbox.read("own"), SECRET);
    daemon.wait_for_lines(2, &["token refused", "the request took too long"]);
    daemon.wait_for_lines(2, &["token refused", "not a token"]);
}

#[test]
fn without_descriptors_the_daemon_sleeps_and_comes_back() {
    // Each connection takes two, one of them to tell who is there: the last that is left may be for either.
    for limit in [64, 65] {
        sleeps_and_comes_back(limit);
    }
}

fn sleeps_and_comes_back(limit: u32) {
    const FAILURES: usize = 12;
    let sandbox = Sandbox::new();
    sandbox.config("tasks:\n  - {name: t, command: [\"true\"]}\n");
    let mut command = sandbox.command("sh");
    command.args(["-c", "ulimit -n \"$1\"; exec \"$0\" backup.yaml", text(sandbox.program()), &limit.to_string()]);
    let daemon = Daemon::start(command);
    daemon.wait_for(&["ready", "tasks="]);
    let control = sandbox.runtime_dir().join("socket.control");
    let before = ticks(&daemon);
    // More than there are descriptors for, fewer than may wait to be accepted.
    let crowd: Vec<UnixStream> = (0..120).map(|_| UnixStream::connect(&control).expect("a connection")).collect();
    let failures = daemon.wait_for_lines(FAILURES, &["warn", "cannot accept a connection"]);
    let spent = ticks(&daemon) - before;
    let time =
        |line: &str| -> DateTime<FixedOffset> { line.split(' ').next().and_then(|t| t.parse().ok()).expect("a time") };
    let took = (time(&failures[FAILURES - 1]) - time(&failures[0])).num_milliseconds();
    // A pause of 100 ms after each, in which there is nothing to do.
    assert!(took >= 100 * (FAILURES as i64 - 1), "{FAILURES} failures in {took} ms\n{}", daemon.log());
    assert!(spent * 10 < took / 2, "{spent} hundredths of a second of work in {took} ms");
    drop(crowd);
    let mut run = sandbox.backupnizza(["run", "t"]);
    run.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(run).expect(0);
}

/// How much the daemon has worked, in hundredths of a second: proc_pid_stat(5), `utime` and `stime`.
fn ticks(daemon: &Daemon) -> i64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<i64>().expect("a number")).sum()
}
