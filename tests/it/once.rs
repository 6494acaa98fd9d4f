//! `once`: a task now, without a daemon, or a command of the caller's with the task's environment.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Daemon, Sandbox, finish, needs, running};

const TASKS: &str = r#"
secrets:
  - {name: vault, command: [sh, -c, 'echo vault >> ~/asked; echo correct horse']}
  - {name: other, command: [sh, -c, 'echo other >> ~/asked; echo other secret']}
tasks:
  - {name: good, command: ["true"]}
  - {name: bad, command: [sh, -c, 'exit 7']}
  - {name: doubtful, command: [restic]}
  - {name: slow, command: [sleep, 1000], timeout: 1s}
  - name: documents
    environment:
      VAULT: {secret: vault, as: command, uses: 5, max_ttl: 1h}
      VALUE: {secret: vault, as: value}
      FILE: {secret: vault, as: file}
      PLAIN: ~/Vault
    command: [sh, -c, 'echo $BACKUPNIZZA_RUN > run; eval "$VAULT" > got']
  - name: stepwise
    steps:
      - {name: first, command: [touch, first]}
      - {name: second, command: [sh, -c, 'touch second; echo "$OTHER" > other'], environment: {OTHER: {secret: other, as: value}}}
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.script("bin/restic", "#!/bin/sh\nexit 3\n");
    sandbox.config(TASKS);
    sandbox
}

/// What is in the runtime directory, where `once` has its private folder while it runs.
fn left_behind(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.runtime_dir()).expect("the runtime directory");
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_exit_status_tells_the_outcome() {
    let sandbox = sandbox();
    for (task, status, outcome) in
        [("good", 0, "success"), ("bad", 1, "failure"), ("doubtful", 3, "warning"), ("slow", 1, "timeout")]
    {
        let ended = sandbox.once([task]).expect(status);
        assert!(ended.stderr.contains(&format!("outcome={outcome}")), "{}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
    assert!(!sandbox.path("asked").exists(), "these tasks need no secrets");
}

#[test]
fn a_task_gets_its_secrets_from_a_socket_of_its_own() {
    let sandbox = sandbox();
    sandbox.once(["documents"]).expect(0);
    assert_eq!((sandbox.read("run"), sandbox.read("got")), ("0\n".to_owned(), "correct horse".to_owned()));
    assert_eq!(sandbox.read("asked"), "vault\n", "each source that the task needs is asked once, no other");
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

#[test]
fn on_a_terminal_a_pause_before_another_try_tells_how_to_end_it() {
    let sandbox = Sandbox::new();
    if !needs("script") {
        return;
    }
    sandbox.config("tasks: [{name: t, retry: {times: 1, delay: 1s}, command: [\"false\"]}]");
    let mut on_terminal = sandbox.command("script");
    let program = env!("CARGO_BIN_EXE_backupnizza");
    on_terminal.args(["-qec", &format!("{program} once backup.yaml t"), "/dev/null"]);
    let told = finish(on_terminal).stdout();
    assert!(told.lines().any(|line| line.trim_end().ends_with("Ctrl-C ends it\"")), "{told}");
    assert!(!sandbox.once(["t"]).expect(1).stderr.contains("Ctrl-C"));
}

#[test]
fn no_pause_before_another_try_outlasts_the_runs_timeout() {
    let sandbox = Sandbox::new();
    sandbox.config("tasks: [{name: t, timeout: 1s, retry: {times: 1, delay: 1h}, command: [sh, -c, exit 7]}]");
    let said = sandbox.once(["t"]).expect(1).stderr;
    assert!(said.contains("run ended") && said.contains("outcome=timeout") && said.contains("exit_code=7"), "{said}");
}

#[test]
fn one_step_alone() {
    let sandbox = sandbox();
    sandbox.once(["stepwise", "--step", "second"]).expect(0);
    assert!(sandbox.path("second").exists() && !sandbox.path("first").exists());
    assert_eq!(sandbox.read("other"), "other secret\n");
    let unknown = sandbox.once(["stepwise", "--step", "third"]).expect(1);
    assert!(unknown.stderr.contains("backupnizza: hint: its steps: first, second"), "{}", unknown.stderr);
}

#[test]
fn a_command_of_the_callers_gets_the_tasks_environment_and_secrets() {
    let sandbox = sandbox();
    let script = r#"eval "$VAULT"; echo; echo "$VALUE"; cat "$FILE"; echo; echo "$PLAIN"; echo "$1" >&2; exit 7"#;
    let ended = sandbox.once(["documents", "--", "sh", "-c", script, "sh", "--an argument"]).expect(7);
    let plain = sandbox.path("Vault");
    assert_eq!(ended.stdout(), format!("correct horse\ncorrect horse\ncorrect horse\n{}\n", plain.display()));
    assert!(ended.stderr.ends_with("--an argument\n"), "{}", ended.stderr);
    assert!(!sandbox.path("got").exists(), "the task's own command did not run");
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

#[test]
fn the_status_of_the_callers_command_is_passed_on() {
    let sandbox = sandbox();
    for status in [0, 1, 3, 10, 127, 255] {
        sandbox.once(["documents", "--", "sh", "-c", &format!("exit {status}")]).expect(status);
    }
    sandbox.once(["documents", "--", "sh", "-c", "kill -s TERM $$"]).expect(128 + 15);
    sandbox.once(["documents", "--", "sh", "-c", "kill -s KILL $$"]).expect(128 + 9);
}

#[test]
fn the_callers_standard_input_and_folder_are_the_commands() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("a folder")).expect("a folder");
    let config = sandbox.path("backup.yaml");
    let config = config.to_str().expect("text");
    let mut command = sandbox.backupnizza(["once", config, "documents", "--", "sh", "-c", "cat; pwd"]);
    command.stdin(Stdio::piped()).current_dir(sandbox.path("a folder"));
    let mut once = running(&mut command);
    let mut stdin = once.child.stdin.take().expect("its stdin");
    stdin.write_all(b"from the caller\n").expect("to be read");
    drop(stdin);
    let ended = once.finish().expect(0);
    assert_eq!(ended.stdout(), format!("from the caller\n{}\n", sandbox.path("a folder").display()));
}

#[test]
fn ctrl_c_reaches_the_callers_command() {
    for (signal, status) in [("INT", 5), ("TERM", 6)] {
        let sandbox = sandbox();
        let script = "trap 'echo got INT; exit 5' INT; trap 'echo got TERM; exit 6' TERM; touch began; while :; do sleep 0.05; done";
        let once = running(&mut sandbox.backupnizza(["once", "backup.yaml", "documents", "--", "sh", "-c", script]));
        sandbox.await_file("began");
        once.signal(signal);
        let ended = once.finish().expect(status);
        assert_eq!(ended.stdout(), format!("got {signal}\n"));
        assert_eq!(left_behind(&sandbox), [""; 0]);
    }
}

#[test]
fn ctrl_c_stops_the_tasks_run_in_order() {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
tasks:
  - name: t
    command: [sh, -c, 'trap "echo stopped > said; exit 0" INT; touch began; while :; do sleep 0.05; done']
    finally: [[touch, last]]
"#,
    );
    let once = running(&mut sandbox.backupnizza(["once", "backup.yaml", "t"]));
    sandbox.await_file("began");
    once.signal("INT");
    let ended = once.finish().expect(1);
    assert!(ended.stderr.contains("outcome=stopped"), "{}", ended.stderr);
    assert_eq!(sandbox.read("said"), "stopped\n");
    assert!(sandbox.path("last").exists());
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

#[test]
fn once_and_a_daemon_respect_each_others_locks() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - {name: long, lock: vault, schedule: "@start", command: [sh, -c, 'touch began; await ~/go; touch done']}
  - {name: beat, lock: vault, schedule: "@every 3s", command: [sh, -c, 'test ! -e ~/held && touch beaten']}
  - {name: once, lock: vault, command: [sh, -c, 'test -e done && touch held && await ~/release; rm held']}
"#,
    );
    sandbox.await_file("began");
    let mut once = Daemon::start(sandbox.backupnizza(["once", "backup.yaml", "once"]));
    once.wait_for(&["waiting for a lock", "task=once", "lock=vault"]);
    sandbox.signal("go");
    sandbox.await_file("held");
    // The daemon's next run has a lock to wait for.
    daemon.wait_for(&["due, waiting", "task=beat"]);
    let beats = daemon.lines(&["run started", "task=beat"]).len();
    sandbox.signal("release");
    assert!(once.wait().success(), "{}", once.log());
    daemon.wait_for_lines(beats + 1, &["run ended", "task=beat", "outcome=success"]);
    assert_eq!(daemon.lines(&["task=beat", "outcome=failure"]), [""; 0]);
    daemon.stop();
}

#[test]
fn a_name_that_is_mistyped_gets_a_hint() {
    let sandbox = sandbox();
    let unknown = sandbox.once(["document"]).expect(1);
    assert!(unknown.stderr.contains("backupnizza: hint: did you mean `documents`?"), "{}", unknown.stderr);
    sandbox.once([]).expect(2);
}

#[test]
fn a_command_that_is_missing_is_an_error_that_names_it() {
    let sandbox = sandbox();
    let missing = sandbox.once(["documents", "--", "no-such-program"]).expect(1);
    assert!(missing.stderr.contains("backupnizza: error: no-such-program: "), "{}", missing.stderr);
    assert!(!Path::new(&sandbox.path("asked")).exists(), "nobody was asked for a secret in vain");
    assert_eq!(left_behind(&sandbox), [""; 0]);
}

#[test]
fn a_secret_that_cannot_be_had_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.config(
        r#"
secrets: [{name: vault, command: [sh, -c, 'echo you are not signed in >&2; exit 1']}]
tasks: [{name: t, environment: {V: {secret: vault, as: value}}, command: [touch, ran]}]
"#,
    );
    let failed = sandbox.once(["t"]).expect(1);
    let error = "backupnizza: error: secret vault: ";
    assert!(failed.stderr.contains(error) && failed.stderr.contains("you are not signed in"), "{}", failed.stderr);
    assert!(!sandbox.path("ran").exists());
    assert_eq!(left_behind(&sandbox), [""; 0]);
}
