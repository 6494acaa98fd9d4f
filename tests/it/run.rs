//! A run: its steps in their order, what their ends mean, what becomes of their output, how they
//! are stopped, and that nothing a command does harms the daemon.

use std::fs;
use std::path::Path;

use crate::harness::{Daemon, Sandbox, eventually, finish, is_alive, session_members, signal};

/// One task `t` that starts with the daemon; `rest` are its further keys, indented by four.
fn config(rest: &str) -> String {
    format!("tasks:\n  - name: t\n    schedule: \"@start\"\n{rest}\n")
}

/// Runs such a task to its end.
fn run(sandbox: &Sandbox, rest: &str) -> Daemon {
    let daemon = sandbox.daemon(&config(rest));
    daemon.wait_for_end("t");
    daemon
}

#[track_caller]
fn ended(daemon: &Daemon, outcome: &str) {
    let line = daemon.wait_for_end("t");
    assert!(line.contains(&format!("outcome={outcome} ")), "{line}\n{}", daemon.log());
}

/// Whether the log has a line of output that reads like this.
fn printed(daemon: &Daemon, line: &str) -> bool {
    daemon.lines(&[" task=t ", " | "]).iter().any(|printed| printed.ends_with(&format!(" | {line}")))
}

#[test]
fn steps_run_one_after_the_other() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    steps:
      - [sh, -c, "test ! -e two; touch one"]
      - {name: second, command: [sh, -c, "test -e one; echo $BACKUPNIZZA_STEP > two"]}
      - [sh, -c, "test -e two; touch three"]"#,
    );
    ended(&daemon, "success");
    assert_eq!(sandbox.read("two"), "second\n");
    assert!(sandbox.path("three").exists());
}

#[test]
fn a_failure_ends_a_sequence_unless_it_is_to_go_on() {
    for (on_error, goes_on) in [("stop", false), ("continue", true)] {
        let sandbox = Sandbox::new();
        let daemon = run(
            &sandbox,
            &format!("    on_error: {on_error}\n    steps:\n      - [sh, -c, 'exit 7']\n      - [touch, next]"),
        );
        ended(&daemon, "failure");
        assert!(daemon.wait_for_end("t").contains("exit_code=7"), "{}", daemon.log());
        assert_eq!(sandbox.path("next").exists(), goes_on, "{}", daemon.log());
    }
}

#[test]
fn a_warning_does_not_end_a_sequence() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/restic", "#!/bin/sh\nexit 3\n");
    let daemon = run(&sandbox, "    steps:\n      - [restic]\n      - [touch, next]");
    ended(&daemon, "warning");
    assert!(sandbox.path("next").exists());
}

#[test]
fn parallel_steps_run_at_once() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    order: parallel
    steps:
      - [sh, -c, "touch a; await b; await c"]
      - [sh, -c, "touch b; await a; await c"]
      - [sh, -c, "touch c; await a; await b"]"#,
    );
    ended(&daemon, "success");
}

#[test]
fn a_failure_stops_the_others_of_parallel_steps_unless_they_are_to_go_on() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    order: parallel
    steps:
      - [sh, -c, "await began; exit 7"]
      - [sh, -c, "touch began; await never"]"#,
    );
    ended(&daemon, "failure");
    assert!(daemon.wait_for_end("t").contains("exit_code=7"), "{}", daemon.log());

    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(&config(
        r#"
    order: parallel
    on_error: continue
    steps:
      - {name: bad, command: [sh, -c, "await began; echo $$ > pid; exit 7"]}
      - {name: good, command: [sh, -c, "touch began; await go; touch done"]}"#,
    ));
    sandbox.await_file("pid");
    sandbox.signal("go");
    ended(&daemon, "failure");
    assert!(sandbox.path("done").exists());
}

#[test]
fn finally_runs_whatever_happened() {
    for (keys, outcome) in [
        ("    command: [\"true\"]", "success"),
        ("    command: [\"false\"]", "failure"),
        ("    timeout: 1s\n    command: [sleep, 1000]", "timeout"),
    ] {
        let sandbox = Sandbox::new();
        let daemon = run(&sandbox, &format!("{keys}\n    finally:\n      - [touch, first]\n      - [touch, last]"));
        ended(&daemon, outcome);
        assert!(sandbox.path("first").exists() && sandbox.path("last").exists(), "{outcome}\n{}", daemon.log());
    }
}

#[test]
fn finally_runs_when_the_daemon_is_stopped() {
    let sandbox = Sandbox::new();
    let mut daemon =
        sandbox.daemon(&config("    command: [sh, -c, 'touch began; await never']\n    finally: [[touch, last]]"));
    sandbox.await_file("began");
    daemon.stop();
    ended(&daemon, "stopped");
    assert!(sandbox.path("last").exists());
}

#[test]
fn a_failure_of_finally_counts() {
    let sandbox = Sandbox::new();
    let daemon = run(&sandbox, "    command: [\"true\"]\n    finally: [[sh, -c, 'exit 9']]");
    ended(&daemon, "failure");
}

#[test]
fn a_step_that_cannot_start_makes_a_failure_whatever_follows() {
    let lost = "{command: [\"true\"], working_directory: ~/nowhere}";
    for keys in [
        format!("    on_error: continue\n    steps: [{lost}, [touch, last]]"),
        format!("    order: parallel\n    on_error: continue\n    steps: [{lost}, [touch, last]]"),
        format!("    steps: [{lost}]\n    finally: [[touch, last]]"),
    ] {
        let sandbox = Sandbox::new();
        let daemon = run(&sandbox, &keys);
        ended(&daemon, "failure");
        assert!(sandbox.path("last").exists(), "{keys}\n{}", daemon.log());
        let nowhere = format!("make {}, or correct `working_directory`", sandbox.path("nowhere").display());
        daemon.wait_for(&["cannot go to its working directory", &nowhere]);
    }
}

#[test]
fn of_several_steps_the_one_that_failed_is_named() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        "    steps: [{name: dump, command: [sh, -c, exit 5]}, [\"true\"]]\n    finally: [[echo, unlocked]]",
    );
    daemon.wait_for(&["a step ended", "task=t step=dump", "outcome=failure exit_code=5"]);
    assert_eq!(daemon.lines(&["a step ended"]).len(), 1, "{}", daemon.log());
}

#[test]
fn a_run_that_is_stopped_between_two_steps_is_no_success() {
    let sandbox = Sandbox::new();
    // What the first command leaves behind keeps its output open after its end.
    let daemon = sandbox.daemon(&config(
        r#"
    steps:
      - [sh, -c, "(while kill -0 $$ 2> /dev/null; do sleep 0.01; done; touch ended; sleep 5) & true"]
      - [sh, -c, "await never"]"#,
    ));
    sandbox.await_file("ended");
    let mut stop = sandbox.backupnizza(["stop", "t"]);
    stop.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(stop);
    ended(&daemon, "stopped");
}

#[test]
fn what_an_exit_status_means_depends_on_the_program() {
    for (program, status, outcome) in [
        ("restic", 0, "success"),
        ("restic", 1, "failure"),
        ("restic", 3, "warning"),
        ("restic", 10, "failure"),
        ("restic", 11, "failure"),
        ("borg", 1, "warning"),
        ("borg", 2, "failure"),
        ("borg", 100, "warning"),
        ("borg", 127, "warning"),
        ("rclone", 3, "failure"),
        ("rclone", 9, "success"),
        ("rsync", 24, "warning"),
        ("tar", 1, "warning"),
        ("tar", 2, "failure"),
        ("other", 3, "failure"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.script(&format!("bin/{program}"), &format!("#!/bin/sh\nexit {status}\n"));
        let daemon = run(&sandbox, &format!("    command: [{program}]"));
        let line = daemon.wait_for_end("t");
        assert!(line.contains(&format!("outcome={outcome} ")), "{program} {status}: {line}");
        assert!(line.contains(&format!("exit_code={status}")), "{program} {status}: {line}");
    }
}

#[test]
fn exit_codes_say_what_a_status_means() {
    for (codes, status, outcome) in [
        ("{warning: [5, 6]}", 6, "warning"),
        ("{success: [0, 4]}", 4, "success"),
        ("{success: [4]}", 0, "failure"),
        ("restic", 3, "warning"),
    ] {
        let sandbox = Sandbox::new();
        let daemon = run(&sandbox, &format!("    exit_codes: {codes}\n    command: [sh, -c, 'exit {status}']"));
        let line = daemon.wait_for_end("t");
        assert!(line.contains(&format!("outcome={outcome} ")), "{codes} {status}: {line}");
    }
}

#[test]
fn a_command_that_dies_of_a_signal_is_a_failure() {
    let sandbox = Sandbox::new();
    let daemon = run(&sandbox, "    command: [sh, -c, 'kill -s SEGV $$']");
    ended(&daemon, "failure");
    assert!(daemon.wait_for_end("t").contains("exit_code=139"), "{}", daemon.log());
}

#[test]
fn programs_that_cannot_be_run_stop_the_start_all_of_them_listed() {
    let sandbox = Sandbox::new();
    sandbox.write("plain", "#!/bin/sh\n");
    sandbox.script("orphan", "#!/no/such/interpreter\n");
    fs::create_dir(sandbox.path("folder")).expect("a folder");
    sandbox.config(
        r#"
tasks:
  - {name: a, schedule: "@start", command: [no-such-program]}
  - {name: b, schedule: "@start", command: [~/missing]}
  - {name: c, schedule: "@start", command: [~/plain]}
  - {name: d, schedule: "@start", command: [~/orphan]}
  - {name: e, schedule: "@start", command: [~/folder]}
  - {name: f, schedule: "@start", command: [touch, ran]}
  - {name: g, schedule: "@start", enabled: false, command: [also-missing]}
"#,
    );
    let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    for name in ["no-such-program", "missing", "plain", "orphan", "folder"] {
        assert!(
            refused.stderr.lines().any(|line| line.starts_with("backupnizza: error: ") && line.contains(name)),
            "{name}: {}",
            refused.stderr
        );
    }
    assert!(!refused.stderr.contains("also-missing"), "{}", refused.stderr);
    assert!(!sandbox.path("ran").exists());
}

/// What is done to a program after the start.
type Harm<'a> = dyn Fn(&Sandbox, &Path) + 'a;

/// Starts a daemon with a good program, does `harm` to it, and lets it be run.
fn run_harmed(harm: impl FnOnce(&Sandbox, &Path)) -> (Sandbox, Daemon) {
    let sandbox = Sandbox::new();
    let program = sandbox.script("bin/tool", "#!/bin/sh\ntouch ran\n");
    let daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, command: [printf, correct horse]}]
tasks:
  - name: t
    schedule: "@start"
    environment: {VAULT: {secret: vault, as: file}}
    steps:
      - [await, ~/go]
      - [tool]
  - {name: others, schedule: "@start", command: [sh, -c, 'await ~/others; touch others.ran']}
"#,
    );
    harm(&sandbox, &program);
    sandbox.signal("go");
    daemon.wait_for_end("t");
    // Whatever came of it, the daemon goes on.
    sandbox.signal("others");
    assert!(daemon.wait_for_end("others").contains("outcome=success"), "{}", daemon.log());
    (sandbox, daemon)
}

#[test]
fn a_program_that_becomes_unfit_is_a_failure_that_names_it() {
    let remove = |_: &Sandbox, program: &Path| fs::remove_file(program).expect("to be removed");
    let not_executable = |sandbox: &Sandbox, program: &Path| {
        remove(sandbox, program);
        sandbox.write("bin/tool", "#!/bin/sh\ntouch ran\n");
    };
    let no_interpreter = |sandbox: &Sandbox, _: &Path| {
        sandbox.script("bin/tool", "#!/no/such/interpreter\n");
    };
    let no_program = |sandbox: &Sandbox, _: &Path| {
        sandbox.script("bin/tool", "\x7fELF nothing of the kind");
    };
    let folder = |sandbox: &Sandbox, program: &Path| {
        remove(sandbox, program);
        fs::create_dir(program).expect("a folder");
    };
    let harms: [&Harm<'_>; 5] = [&remove, &not_executable, &no_interpreter, &no_program, &folder];
    for (index, harm) in harms.into_iter().enumerate() {
        let (sandbox, daemon) = run_harmed(harm);
        ended(&daemon, "failure");
        assert!(!daemon.lines(&["error", "bin/tool", "task=t"]).is_empty(), "{index}: {}", daemon.log());
        assert!(!sandbox.path("ran").exists(), "{index}");
    }
}

#[test]
fn a_program_that_changed_is_not_run() {
    let (sandbox, daemon) = run_harmed(|sandbox, _| {
        sandbox.script("bin/tool", "#!/bin/sh\ntouch ran another\n");
    });
    ended(&daemon, "failure");
    daemon.wait_for(&["error", "bin/tool: has changed since the start", "task=t step=tool"]);
    assert!(!sandbox.path("another").exists());
}

#[test]
fn a_pinned_program_that_changed_is_never_run() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/tool", "#!/bin/sh\ntouch ran\n");
    let sum = finish({
        let mut command = sandbox.command("sha256sum");
        command.arg(sandbox.path("bin/tool"));
        command
    });
    let sum = sum.expect(0).stdout();
    let sum = sum.split_whitespace().next().expect("a digest");
    let daemon = sandbox
        .daemon(&config(&format!("    steps:\n      - [await, ~/go]\n      - {{command: [tool], sha256: {sum}}}")));
    sandbox.script("bin/tool", "#!/bin/sh\ntouch ran more\n");
    sandbox.signal("go");
    ended(&daemon, "failure");
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn a_failure_is_tried_again_as_often_as_retry_says() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    retry: {times: 5, delay: 1s}
    command: [sh, -c, 'echo $BACKUPNIZZA_RUN >> tries; test $(wc -l < tries) -eq 3']"#,
    );
    ended(&daemon, "success");
    assert_eq!(sandbox.read("tries"), "1\n1\n1\n");
    assert_eq!(daemon.lines(&["run ended"]).len(), 1, "{}", daemon.log());
}

#[test]
fn a_fatal_failure_is_not_tried_again() {
    for status in [10, 12] {
        let sandbox = Sandbox::new();
        sandbox.script("bin/restic", &format!("#!/bin/sh\necho try >> tries\nexit {status}\n"));
        let daemon = run(&sandbox, "    retry: {times: 5, delay: 1s}\n    command: [restic]");
        ended(&daemon, "failure");
        assert_eq!(sandbox.read("tries"), "try\n");
    }
}

#[test]
fn a_locked_repository_is_tried_again() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/restic", "#!/bin/sh\necho try >> tries\nexit 11\n");
    let daemon = run(&sandbox, "    retry: {times: 1, delay: 1s}\n    command: [restic]");
    ended(&daemon, "failure");
    assert_eq!(sandbox.read("tries"), "try\ntry\n");
}

#[test]
fn a_timeout_stops_the_run_with_all_its_processes() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    timeout: 1s
    command: [sh, -c, 'echo $$ > pid; (sh -c "sleep 1000; true" & sleep 1000; true)']"#,
    );
    ended(&daemon, "timeout");
    let session = sandbox.read("pid").trim().parse().expect("a pid");
    assert_eq!(session_members(session), []);
}

#[test]
fn a_step_has_a_timeout_of_its_own() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        "    on_error: continue\n    steps:\n      - {command: [sleep, 1000], timeout: 1s}\n      - [touch, next]",
    );
    ended(&daemon, "timeout");
    assert!(sandbox.path("next").exists(), "{}", daemon.log());

    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        "    on_error: continue\n    timeout: 1s\n    steps:\n      - [sleep, 1000]\n      - [touch, next]",
    );
    ended(&daemon, "timeout");
    assert!(!sandbox.path("next").exists(), "the run itself is over: {}", daemon.log());
}

#[test]
fn processes_that_ignore_the_stop_signal_are_killed_after_the_grace() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(&config(
        r#"
    stop_grace: 1s
    command: [sh, -c, 'trap "" INT TERM; echo $$ > pid; sh -c "await never" & touch began; await never']"#,
    ));
    sandbox.await_file("began");
    daemon.stop();
    ended(&daemon, "stopped");
    let session = sandbox.read("pid").trim().parse().expect("a pid");
    assert_eq!(session_members(session), []);
}

#[test]
fn a_command_is_stopped_by_the_signal_that_it_wants() {
    for (keys, signal) in [("", "INT"), ("    stop_signal: TERM\n", "TERM"), ("    stop_signal: HUP\n", "HUP")] {
        let sandbox = Sandbox::new();
        let script = "for s in INT TERM HUP; do trap \"echo $s > signal; exit 0\" $s; done; touch began; while :; do sleep 0.05; done";
        let mut daemon =
            sandbox.daemon(&config(&format!("{keys}    command:\n      - sh\n      - -c\n      - '{script}'")));
        sandbox.await_file("began");
        daemon.stop();
        ended(&daemon, "stopped");
        assert_eq!(sandbox.read("signal"), format!("{signal}\n"));
    }
}

#[test]
fn a_stopped_process_is_woken_to_be_stopped() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(&config(
        "    stop_grace: 1h\n    command: [sh, -c, 'echo $$ > pid.new; mv pid.new pid; kill -s STOP $$; await never']",
    ));
    sandbox.await_file("pid");
    daemon.stop();
    ended(&daemon, "stopped");
}

#[test]
fn a_process_that_stays_behind_does_not_hold_up_its_run() {
    let sandbox = Sandbox::new();
    let daemon = run(&sandbox, "    command: [sh, -c, 'await never & echo $! > pid; echo said']");
    let survivor: u32 = sandbox.read("pid").trim().parse().expect("a pid");
    ended(&daemon, "success");
    assert!(printed(&daemon, "said"), "{}", daemon.log());
    daemon.wait_for(&["processes of the command go on after its end", "task=t", &survivor.to_string()]);
    assert!(is_alive(survivor), "it is left alone");
    signal(survivor, "KILL");
}

#[test]
fn output_goes_to_the_log_line_by_line() {
    let sandbox = Sandbox::new();
    let daemon = run(
        &sandbox,
        r#"
    command: [sh, -c, 'echo one; echo two >&2; printf "\033[1mbold\n"; printf "\303\244\377\n"; printf "no line ending"']"#,
    );
    ended(&daemon, "success");
    for line in ["one", "two", "no line ending"] {
        assert!(printed(&daemon, line), "{line}\n{}", daemon.log());
    }
    let line = daemon.wait_for(&["task=t step=sh run=1", "bold"]);
    assert!(!line.contains('\u{1b}'), "{line}");
    let line = daemon.wait_for(&["task=t step=sh run=1", "ä"]);
    assert!(!line.contains('\u{fffd}'), "{line}");
}

#[test]
fn a_very_long_line_is_cut_and_says_so() {
    let sandbox = Sandbox::new();
    let daemon = run(&sandbox, "    command: [sh, -c, 'head -c 100000 /dev/zero | tr \"\\0\" x; echo; echo after']");
    ended(&daemon, "success");
    assert!(printed(&daemon, "after"), "{}", daemon.log());
    let longest = daemon.log().lines().map(str::len).max().expect("lines");
    assert!(longest < 20 * 1024, "{longest}");
}

#[test]
fn output_is_kept_out_of_the_log_as_output_says() {
    for (output, command, is_logged) in [
        ("on_failure", "echo said", false),
        ("on_failure", "echo said; exit 1", true),
        ("discard", "echo said; exit 1", false),
        ("log", "echo said", true),
    ] {
        let sandbox = Sandbox::new();
        let mut daemon = sandbox.daemon(&config(&format!("    output: {output}\n    command: [sh, -c, '{command}']")));
        daemon.wait_for_end("t");
        daemon.stop();
        assert_eq!(printed(&daemon, "said"), is_logged, "{output} {command}\n{}", daemon.log());
    }
}

#[test]
fn much_output_is_no_trouble() {
    let sandbox = Sandbox::new();
    let daemon = run(&sandbox, "    output: discard\n    command: [sh, -c, 'seq 1 300000; seq 1 300000 >&2']");
    ended(&daemon, "success");
}

#[test]
fn no_secret_reaches_the_log() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", "correct horse\nbattery staple\n");
    let daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks:
  - name: t
    schedule: "@start"
    environment: {VAULT: {secret: vault, as: value}}
    command:
      - sh
      - -c
      - |
        echo "before $VAULT after"
        echo "only battery staple here"
        printf 'correct '; sleep 0.1; printf 'horse'; echo ' in pieces'
        printf 'at the end: correct horse'
"#,
    );
    daemon.wait_for_end("t");
    ended(&daemon, "success");
    for line in ["only [secret vault] here", "[secret vault] in pieces", "at the end: [secret vault]"] {
        assert!(printed(&daemon, line), "{line}\n{}", daemon.log());
    }
    for secret in ["correct", "horse", "battery", "staple"] {
        assert!(!daemon.log().contains(secret), "{}", daemon.log());
    }
}

#[test]
fn several_tasks_of_one_slot_run_at_once() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
tasks:
  - {name: a, schedule: "@start", command: [sh, -c, "touch a; await b; await c"]}
  - {name: b, schedule: "@start", command: [sh, -c, "touch b; await a; await c"]}
  - {name: c, schedule: "@start", command: [sh, -c, "touch c; await a; await b"]}
"#,
    );
    daemon.wait_for_lines(3, &["run ended", "outcome=success"]);
}

/// Three tasks of which each fails if another of them runs.
fn one_at_a_time(keys: &str, task_keys: &str) {
    let sandbox = Sandbox::new();
    let command = "[sh, -c, 'mkdir busy && sleep 0.1; rmdir busy']";
    let task = |name: &str| format!("  - {{name: {name}, schedule: \"@start\", {task_keys}command: {command}}}\n");
    let daemon = sandbox.daemon(&format!("{keys}tasks:\n{}{}{}", task("a"), task("b"), task("c")));
    daemon.wait_for_lines(3, &["run ended", "outcome=success"]);
}

#[test]
fn no_more_runs_at_once_than_allowed() {
    one_at_a_time("max_concurrent_runs: 1\n", "");
}

#[test]
fn runs_that_name_the_same_lock_wait_for_each_other() {
    one_at_a_time("", "lock: vault, ");
}

#[test]
fn a_slot_that_comes_during_a_run_is_skipped() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        "tasks:\n  - {name: t, schedule: \"@every 1s\", command: [sh, -c, 'echo began >> began; await ~/go']}\n",
    );
    daemon.wait_for_lines(2, &["not run", "task=t", "overlap"]);
    assert_eq!(sandbox.read("began"), "began\n");
    sandbox.signal("go");
    daemon.wait_for_lines(2, &["run ended", "task=t", "outcome=success"]);
}

#[test]
fn a_slot_that_comes_during_a_run_waits_behind_it_if_it_is_to() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon(
        r#"
tasks:
  - {name: t, schedule: "@every 2s", overlap: queue, command: [sh, -c, 'echo began >> began; await ~/go']}
"#,
    );
    daemon.wait_for(&["due, waiting", "task=t"]);
    assert_eq!(sandbox.read("began"), "began\n");
    sandbox.signal("go");
    daemon.wait_for_lines(2, &["run ended", "task=t", "outcome=success"]);
}

#[test]
fn a_short_interval_skips_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon("tasks: [{name: t, schedule: \"@every 1s\", command: [\"true\"]}]");
    daemon.wait_for_lines(3, &["run ended", "task=t", "outcome=success"]);
    assert_eq!(daemon.lines(&["not run"]), [""; 0], "{}", daemon.log());
}

#[test]
fn two_daemons_of_different_homes_do_not_mind_each_other() {
    let (one, other) = (Sandbox::new(), Sandbox::new());
    let keys = "    command: [touch, ran]";
    let (first, second) = (one.daemon(&config(keys)), other.daemon(&config(keys)));
    ended(&first, "success");
    ended(&second, "success");
    eventually("both to have run", || (one.path("ran").exists() && other.path("ran").exists()).then_some(()));
}
