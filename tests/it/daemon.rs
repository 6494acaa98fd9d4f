//! The daemon as a process: its signals, its socket, its one instance, and what does not kill it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::harness::{Daemon, Sandbox, eventually, finish, is_alive, running, session_members};

/// A task that begins with the daemon and goes on until it is told to end.
const LONG: &str = r#"
tasks:
  - name: t
    schedule: "@start"
    command: [sh, -c, 'trap "echo stopped > said; exit 0" INT; echo $$ > pid; touch began; while :; do sleep 0.05; done']
"#;

#[test]
fn a_signal_stops_everything_in_order() {
    for signal in ["INT", "TERM"] {
        let sandbox = Sandbox::new();
        let mut daemon = sandbox.daemon(LONG);
        sandbox.await_file("began");
        daemon.signal(signal);
        let status = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
        assert_eq!(sandbox.read("said"), "stopped\n", "{signal}");
        assert!(!sandbox.socket().exists(), "{signal}");
        assert!(daemon.wait_for_end("t").contains("outcome=stopped"), "{}", daemon.log());
        let session = sandbox.read("pid").trim().parse().expect("a pid");
        assert_eq!(session_members(session), [], "{signal}");
    }
}

#[test]
fn nothing_starts_once_the_daemon_stops() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
max_concurrent_runs: 1
tasks:
  - {name: first, schedule: "@start", command: [sh, -c, 'touch began; await never']}
  - {name: second, schedule: "@start", command: [touch, second]}
"#,
    );
    sandbox.await_file("began");
    daemon.stop();
    assert!(!sandbox.path("second").exists());
}

#[test]
fn a_second_signal_kills_at_once() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    stop_grace: 1h
    command: [sh, -c, 'trap "" INT TERM; echo $$ > pid; touch began; await never']
    finally: [[await, never]]
"#,
    );
    sandbox.await_file("began");
    daemon.signal("TERM");
    daemon.wait_for(&["stopping", "task=t"]);
    daemon.signal("TERM");
    daemon.wait();
    let session = sandbox.read("pid").trim().parse().expect("a pid");
    assert_eq!(session_members(session), []);
    assert!(!sandbox.socket().exists());
}

#[test]
fn signals_that_mean_nothing_do_no_harm() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        "tasks:\n  - {name: t, schedule: \"@start\", command: [sh, -c, 'touch began; await go']}\n  - {name: beat, schedule: \"@every 1s\", command: [\"true\"]}\n",
    );
    sandbox.await_file("began");
    for signal in ["HUP", "PIPE", "USR1", "USR2", "ALRM", "XFSZ", "HUP"] {
        daemon.signal(signal);
    }
    let beats = daemon.lines(&["run ended", "task=beat"]).len();
    daemon.wait_for_lines(beats + 1, &["run ended", "task=beat", "outcome=success"]);
    sandbox.signal("go");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(LONG);
    sandbox.await_file("began");
    fs::remove_file(sandbox.path("began")).expect("to be there");
    let pid = format!("(pid {})", daemon.pid());

    let same_state = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    assert!(same_state.stderr.contains(&pid), "{}", same_state.stderr);
    let mut other_state = sandbox.backupnizza(["backup.yaml"]);
    other_state.env("STATE_DIRECTORY", sandbox.path("other state"));
    let same_socket = finish(other_state).expect(1);
    assert!(same_socket.stderr.contains(&pid), "{}", same_socket.stderr);

    assert!(!sandbox.path("began").exists(), "the second daemon ran something");
    assert!(sandbox.socket().exists() && daemon.is_running());
    daemon.stop();
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", "correct horse");
    let mut daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - {name: t, schedule: "@start", environment: {VAULT: {secret: vault, as: command}}, command: [sh, -c, 'eval "$VAULT" > got']}
"#,
    );
    daemon.wait_for_end("t");
    daemon.signal("KILL");
    daemon.wait();
    assert!(sandbox.socket().exists(), "what is to be replaced");
    fs::remove_file(sandbox.path("got")).expect("to be there");

    let mut again = sandbox.daemon_again();
    // The dead one may not have got to write down the end of its own run.
    again.wait_for(&["run ended", "task=t", "outcome=success"]);
    assert_eq!(sandbox.read("got"), "correct horse");
    again.stop();
}

#[test]
fn what_is_no_socket_is_never_deleted() {
    let file = |sandbox: &Sandbox| fs::write(sandbox.socket(), "precious").expect("a file");
    let folder = |sandbox: &Sandbox| fs::create_dir(sandbox.socket()).expect("a folder");
    let link = |sandbox: &Sandbox| {
        let target = sandbox.runtime_dir().join("target");
        drop(UnixListener::bind(&target).expect("a socket"));
        symlink(target, sandbox.socket()).expect("a link");
    };
    let all: [&dyn Fn(&Sandbox); 3] = [&file, &folder, &link];
    for put in all {
        let sandbox = Sandbox::new();
        put(&sandbox);
        let kind = || fs::symlink_metadata(sandbox.socket()).expect("to be there").file_type();
        let before = kind();
        sandbox.config("tasks: [{name: t, schedule: \"@start\", command: [touch, ran]}]");
        let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
        assert!(refused.stderr.contains("exists and is not a socket"), "{}", refused.stderr);
        assert_eq!(kind(), before);
        assert!(!sandbox.path("ran").exists());
    }
}

#[test]
fn somebody_elses_socket_is_left_alone() {
    let sandbox = Sandbox::new();
    let _listener = UnixListener::bind(sandbox.socket()).expect("a socket");
    sandbox.config("tasks: [{name: t, schedule: \"@start\", command: [touch, ran]}]");
    let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    assert!(refused.stderr.contains("another process answers there"), "{}", refused.stderr);
    assert!(sandbox.socket().exists());
}

/// A daemon that logs nowhere runs its task all the same.
fn runs_without_a_log(stderr: Stdio) {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
tasks:
  - {name: first, schedule: "@start", command: [sh, -c, 'echo said; touch first']}
  - {name: later, schedule: "@every 1s", command: [sh, -c, 'echo said; echo ran >> later']}
"#,
    );
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("a daemon");
    drop(child.stderr.take());
    sandbox.await_file("first");
    let is_repeated = || fs::read_to_string(sandbox.path("later")).is_ok_and(|text| text.lines().count() > 1);
    eventually("the later runs", || is_repeated().then_some(()));
    crate::harness::signal(child.id(), "TERM");
    let status = eventually("the daemon to end", || child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_kills_nothing() {
    runs_without_a_log(Stdio::piped());
}

/// Each of its lines has something to be escaped, so none goes to the log together with others.
#[test]
fn a_command_whose_lines_nobody_reads_is_stopped_in_time_and_its_run_ends() {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
tasks:
  - name: t
    schedule: "@start"
    timeout: 1s
    command: [sh, -c, 'echo $$ > ~/pid; exec yes "$(printf "\033")"']
    hooks: {failure: [touch, ~/told]}
"#,
    );
    let (reader, stderr) = std::io::pipe().expect("a pipe");
    let mut command = sandbox.backupnizza(["backup.yaml"]);
    let mut daemon = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("a daemon");
    sandbox.await_file("told");
    let pid = sandbox.read("pid").trim().parse().expect("a pid");
    assert!(!is_alive(pid));
    drop(reader);
    crate::harness::signal(daemon.id(), "TERM");
    let status = eventually("the daemon to end", || daemon.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_log_that_is_full_kills_nothing() {
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        runs_without_a_log(full.into());
    }
}

#[test]
fn a_source_that_fails_holds_up_nothing_but_the_runs_that_need_it() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
secrets:
  - {name: vault, command: [sh, -c, 'if test -e ~/unlocked; then echo correct horse; else echo it is locked >&2; exit 1; fi']}
tasks:
  - {name: needy, schedule: "@start", environment: {VAULT: {secret: vault, as: value}}, command: [sh, -c, 'echo "$VAULT" > got']}
  - {name: other, schedule: "@start", command: ["true"]}
"#,
    );
    daemon.wait_for(&["warn", "vault", "it is locked"]);
    daemon.wait_for(&["due, waiting", "task=needy", "secrets"]);
    assert!(daemon.wait_for_end("other").contains("outcome=success"), "{}", daemon.log());
    assert!(!sandbox.path("got").exists());
    sandbox.signal("unlocked");
    assert!(daemon.wait_for_end("needy").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("got"), "correct horse\n");
}

#[test]
fn sources_that_are_wrong_stop_the_start_all_of_them_listed() {
    let sandbox = Sandbox::new();
    sandbox.write("empty", "");
    sandbox.config(
        r#"
secrets:
  - {name: silent, command: ["true"]}
  - {name: empty, file: ~/empty}
  - {name: unset, env: NO_SUCH_VARIABLE}
  - {name: long, command: [head, -c, 70000, /dev/zero]}
  - {name: good, command: [echo, a good one]}
tasks:
  - name: t
    schedule: "@start"
    environment:
      A: {secret: silent, as: value}
      B: {secret: empty, as: value}
      C: {secret: unset, as: value}
      D: {secret: long, as: value}
      E: {secret: good, as: value}
    command: [touch, ran]
"#,
    );
    let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    for name in ["silent", "empty", "unset", "long"] {
        let error = format!("backupnizza: error: secret {name}: ");
        assert!(refused.stderr.contains(&error), "{name}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("secret good"), "{}", refused.stderr);
    assert!(!sandbox.path("ran").exists() && !sandbox.socket().exists());
}

#[test]
fn a_run_that_outlives_its_daemon_is_stopped_and_repeated_once() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@every 3s"
    missed_delay: 1s
    command: [sh, -c, 'echo began >> began; echo $$ > pid.new; mv pid.new pid; await ~/go']
"#,
    );
    let pid = |sandbox: &Sandbox| -> u32 {
        sandbox.await_file("pid");
        let pid = sandbox.read("pid").trim().parse().expect("a pid");
        fs::remove_file(sandbox.path("pid")).expect("to be there");
        pid
    };
    let survivor = pid(&sandbox);
    daemon.signal("KILL");
    daemon.wait();
    assert!(is_alive(survivor), "what is to be stopped");

    let mut again = sandbox.daemon_again();
    again.wait_for(&["a run survived its daemon", "task=t", &survivor.to_string()]);
    assert_eq!(session_members(survivor), []);
    again.wait_for(&["its last run was cut short, repeating it", "task=t"]);
    let repeated = pid(&sandbox);
    assert_eq!(sandbox.read("began"), "began\nbegan\n");
    again.signal("KILL");
    again.wait();

    let mut third = sandbox.daemon_again();
    third.wait_for(&["cut short again, not repeating it", "task=t"]);
    assert_eq!(session_members(repeated), []);
    sandbox.signal("go");
    third.stop();
}

#[test]
fn a_daemon_that_still_stops_the_runs_of_a_dead_one_can_be_stopped_itself() {
    let config = |grace: &str| {
        format!(
            r#"
tasks:
  - name: stubborn
    schedule: "@yearly"
    stop_grace: {grace}
    command: [sh, -c, 'trap "" INT; echo $$ > pid; touch began; while :; do sleep 0.05; done']
  - name: other
    schedule: "@start"
    command: [touch, ran]
"#
        )
    };
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(&config("1h"));
    let mut run = sandbox.backupnizza(["run", "stubborn", "--detach"]);
    run.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(run).expect(0);
    sandbox.await_file("began");
    let survivor = sandbox.read("pid").trim().parse().expect("a pid");
    daemon.wait_for_end("other");
    daemon.signal("KILL");
    daemon.wait();
    fs::remove_file(sandbox.path("ran")).expect("to be there");

    let mut second = sandbox.daemon_unready(&config("1h"));
    second.wait_for(&["a run survived its daemon", "task=stubborn"]);
    second.stop();
    assert!(is_alive(survivor), "its grace is an hour");
    assert!(!sandbox.path("ran").exists(), "no task begins before it is gone");

    let mut third = sandbox.daemon(&config("0s"));
    assert_eq!(session_members(survivor), []);
    assert!(third.wait_for_end("stubborn").contains("outcome=crashed"), "{}", third.log());
    sandbox.await_file("ran");
    third.stop();
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let file = sandbox.config("tasks: [{name: t, schedule: \"@start\", command: [touch, ran]}]");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("its mode");
    let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    assert!(refused.stderr.contains("backup.yaml: writable by everyone"), "{}", refused.stderr);
    assert!(refused.stderr.contains("backupnizza: hint: chmod "), "{}", refused.stderr);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_daemon_is_stopped_while_it_asks_its_sources() {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
secrets: [{name: vault, command: [sh, -c, 'touch ~/asked; exec sleep 1000'], timeout: 0}]
tasks: [{name: t, schedule: "@start", environment: {V: {secret: vault, as: value}}, command: [touch, ran]}]
"#,
    );
    let daemon = running(&mut sandbox.backupnizza(["backup.yaml"]));
    sandbox.await_file("asked");
    daemon.signal("TERM");
    let ended = daemon.finish();
    assert!(ended.status != 0, "{}", ended.stderr);
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_daemon_starts_again_and_again() {
    let sandbox = Sandbox::new();
    let mut daemon: Daemon =
        sandbox.daemon("tasks: [{name: t, schedule: \"@start\", command: [sh, -c, 'echo $BACKUPNIZZA_RUN >> runs']}]");
    for _ in 0..3 {
        daemon.wait_for_end("t");
        daemon.stop();
        daemon = sandbox.daemon_again();
    }
    daemon.wait_for_end("t");
    assert_eq!(sandbox.read("runs"), "1\n2\n3\n4\n");
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("open state");
    fs::create_dir(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("its mode");
    let yaml = format!("state_dir: {}\ntasks: [{{name: t, command: [\"true\"]}}]\n", folder.display());
    sandbox.config(&yaml);
    let finished = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    assert!(finished.stderr.contains("open state: writable by"), "{}", finished.stderr);
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 0, "nothing is made there");
}

#[test]
fn a_low_limit_of_descriptors_is_enough() {
    let sandbox = Sandbox::new();
    sandbox.config("tasks:\n  - {name: t, schedule: \"@start\", command: [\"true\"]}\n");
    let mut command = sandbox.command("sh");
    command.args(["-c", "ulimit -n 100; exec \"$0\" backup.yaml", env!("CARGO_BIN_EXE_backupnizza")]);
    let mut daemon = Daemon::start(command);
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_socket_that_vanishes_is_told_once() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon("tasks:\n  - {name: beat, schedule: \"@every 1s\", command: [\"true\"]}\n");
    daemon.wait_for(&["run ended", "task=beat"]);
    fs::remove_file(sandbox.socket()).expect("the socket goes");
    daemon.wait_for(&["error", "the socket is gone", "hint="]);
    let beats = daemon.lines(&["run ended", "task=beat"]).len();
    daemon.wait_for_lines(beats + 2, &["run ended", "task=beat"]);
    assert_eq!(daemon.lines(&["the socket is gone"]).len(), 1, "{}", daemon.log());
    daemon.stop();
}

#[test]
fn a_socket_may_be_named_as_its_lock_would_be() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        "secretbox: {socket: ~/own/box.lock}\ntasks:\n  - {name: t, schedule: \"@start\", command: [\"true\"]}\n",
    );
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
}
