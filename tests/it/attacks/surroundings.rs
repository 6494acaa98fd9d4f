//! A machine that gives the daemon little, or an environment that means it harm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::SECRET;
use crate::harness::{Daemon, Finished, Sandbox, finish, needs};

fn ask(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let mut command = sandbox.backupnizza(arguments.iter().copied());
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command)
}

/// Lets the daemon have no further process or thread of its user's beyond so many.
fn limit_processes(sandbox: &Sandbox, daemon: &Daemon, processes: u32) {
    let mut prlimit = sandbox.command("prlimit");
    prlimit.args(["--pid", &daemon.pid().to_string(), &format!("--nproc={processes}:")]);
    finish(prlimit).expect(0);
}

#[test]
fn without_threads_and_processes_the_daemon_says_so_and_goes_on() {
    if !needs("prlimit") {
        return;
    }
    let sandbox = Sandbox::of_ordinary_user();
    sandbox.write("vault", SECRET);
    let mut daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    order: parallel
    environment: {V: {secret: vault, as: value}}
    hooks: {start: ["true"], failure: ["true"]}
    steps: [[sh, -c, 'printf %s "$V" > got'], ["true"]]
"#,
    );
    limit_processes(&sandbox, &daemon, 1);
    assert_eq!(ask(&sandbox, &["run", "t"]).status, 1);
    let refreshed = ask(&sandbox, &["refresh"]).expect(1);
    assert!(refreshed.stderr.contains("refresh: nothing was exchanged"), "{}", refreshed.stderr);
    ask(&sandbox, &["status"]);
    let locked = ask(&sandbox, &["lock"]).expect(1);
    assert!(locked.stderr.contains("lock: all secrets are wiped"), "{}", locked.stderr);
    daemon.wait_for(&["error", "cannot start a thread"]);
    limit_processes(&sandbox, &daemon, 4000);
    ask(&sandbox, &["refresh"]).expect(0);
    ask(&sandbox, &["run", "t"]).expect(0);
    assert_eq!(sandbox.read("got"), SECRET);
    daemon.stop();
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
}

#[test]
fn of_few_descriptors_enough_are_left_for_the_runs_of_a_slot_however_many_wait() {
    const TASKS: usize = 120;
    if !needs("prlimit") {
        return;
    }
    let sandbox = Sandbox::new();
    let task = |number| format!("- {{name: task-{number}, schedule: '@every 3s', command: ['true']}}\n");
    let tasks: String = (0..TASKS).map(task).collect();
    let mut daemon = sandbox.daemon(&format!("max_concurrent_runs: 2\ntasks:\n{tasks}"));
    let mut prlimit = sandbox.command("prlimit");
    prlimit.args(["--pid", &daemon.pid().to_string(), "--nofile=100:"]);
    finish(prlimit).expect(0);
    let ends = daemon.wait_for_lines(TASKS, &["run ended"]);
    assert!(ends.iter().all(|end| end.contains("outcome=success")), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_command_that_begins_to_print_when_there_is_no_thread_goes_on_and_nothing_is_lost() {
    if !needs("prlimit") {
        return;
    }
    let sandbox = Sandbox::of_ordinary_user();
    sandbox.write("vault", SECRET);
    let mut daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    environment: {V: {secret: vault, as: value}}
    command: [sh, -c, 'touch begun; await ~/go; echo "first $V line"; touch printed; await ~/on; echo second line']
"#,
    );
    ask(&sandbox, &["run", "--detach", "t"]).expect(0);
    sandbox.await_file("begun");
    limit_processes(&sandbox, &daemon, 1);
    sandbox.signal("go");
    daemon.wait_for(&["no thread for the command's output yet"]);
    sandbox.await_file("printed");
    assert_eq!(daemon.lines(&["no thread for the command's output yet"]).len(), 1, "{}", daemon.log());
    limit_processes(&sandbox, &daemon, 4000);
    daemon.wait_for(&["first [secret vault] line"]);
    sandbox.signal("on");
    daemon.wait_for(&["run ended", "outcome=success"]);
    assert!(daemon.log().contains("second line"), "{}", daemon.log());
    daemon.stop();
}

/// Appends the arguments of whatever it is loaded into to the file `$LOADED`.
const PRELOADED: &str = r#"
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void)
{
	char words[4096];
	FILE *cmdline = fopen("/proc/self/cmdline", "r"), *file = fopen(getenv("LOADED"), "a");
	size_t len = cmdline ? fread(words, 1, sizeof words - 1, cmdline) : 0;
	for (size_t i = 0; i < len; i++)
		words[i] = words[i] ? words[i] : ' ';
	words[len] = 0;
	if (file)
		fprintf(file, "%s\n", words);
}
"#;

#[test]
fn what_is_in_the_daemons_environment_reaches_no_launcher_and_no_command() {
    if !needs("cc") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let source = sandbox.write("preloaded.c", PRELOADED);
    let library = sandbox.path("preloaded.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    finish(cc).expect(0);
    sandbox.config(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    schedule: "@start"
    environment: {V: {secret: vault, as: command}}
    hooks: {success: [sh, -c, 'env > hook.environment']}
    command: [sh, -c, 'env > environment; eval "$V" > got']
"#,
    );
    let hostile = |mut command: Command| {
        command.env("LD_PRELOAD", "preloaded.so").env("LD_LIBRARY_PATH", sandbox.home());
        command.env("LOADED", sandbox.path("loaded"));
        command
    };
    finish(hostile(sandbox.command("cat"))).expect(0);
    assert_eq!(sandbox.read("loaded"), "cat \n", "the library does what it should");
    let mut command = hostile(sandbox.backupnizza(["backup.yaml"]));
    command
        .env("RESTIC_PASSWORD", "of the daemon")
        .env("RESTIC_REPOSITORY", "of the daemon")
        .env("RCLONE_CONFIG_PASS", "of the daemon")
        .env("BORG_PASSPHRASE", "of the daemon")
        .env("BASH_ENV", sandbox.path("loaded"))
        .env("BACKUPNIZZA_SOCKET", "/of/another/daemon")
        .env("BACKUPNIZZA_TASK", "another");
    let mut daemon = Daemon::start(command);
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    sandbox.await_file("hook.environment");
    daemon.stop();
    assert_eq!(sandbox.read("got"), SECRET);
    // Into the daemon at most, where that is linked dynamically.
    let loaded = sandbox.read("loaded");
    assert!(loaded.lines().skip(1).all(|words| words.ends_with("backupnizza backup.yaml ")), "{loaded}");
    for file in ["environment", "hook.environment"] {
        let environment = sandbox.read(file);
        for word in ["LD_", "LOADED", "RESTIC_", "RCLONE_", "BORG_", "BASH_ENV", "another"] {
            assert!(!environment.contains(word), "{file}:\n{environment}");
        }
    }
}

#[test]
fn no_program_comes_from_a_folder_on_path_that_others_can_write_or_that_is_relative() {
    let sandbox = Sandbox::new();
    sandbox.script("tool", "#!/bin/sh\ntouch ~/stolen\n");
    sandbox.script("open/tool", "#!/bin/sh\ntouch ~/stolen\n");
    sandbox.script("bin/tool", "#!/bin/sh\ntouch ~/ran\n");
    fs::set_permissions(sandbox.path("open"), fs::Permissions::from_mode(0o777)).expect("its mode");
    sandbox.config("tasks: [{name: t, schedule: '@start', command: [tool]}]\n");
    let with_path = |folder: &str| {
        let mut command = sandbox.backupnizza(["backup.yaml"]);
        let own = sandbox.path("bin");
        command.env("PATH", format!("{folder}:{}:/usr/bin:/bin", super::text(&own)));
        command
    };
    let refused = finish(with_path(super::text(&sandbox.path("open")))).expect(1);
    assert!(refused.stderr.contains("open: writable by everyone"), "{}", refused.stderr);
    for relative in [".", "", "open"] {
        let mut daemon = Daemon::start(with_path(relative));
        assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
        daemon.stop();
    }
    assert!(sandbox.path("ran").exists() && !sandbox.path("stolen").exists());
}
