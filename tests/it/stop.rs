//! Stopping what does not want to be stopped: a run ends at its timeout whatever its processes do, and nobody of
//! its session is left behind. Real restic is in `restic`.

use crate::harness::{Daemon, Sandbox, is_alive, session_members, signal};

/// Runs `script` as a task with a timeout of a second and a grace of one; `~/sessions` has its session.
fn timed_out(sandbox: &Sandbox, script: &str) -> Daemon {
    sandbox.script("bin/task", &format!("#!/bin/sh\necho $$ > ~/session\n{script}\n"));
    let daemon = sandbox.daemon(
        "tasks: [{name: t, schedule: \"@start\", timeout: 1s, stop_grace: 1s, command: [task]}, {name: other, schedule: \"@every 1s\", command: [\"true\"]}]",
    );
    assert!(daemon.wait_for_end("t").contains("outcome=timeout"), "{}", daemon.log());
    assert_eq!(session_members(pid(sandbox, "session")), [], "{}", daemon.log());
    daemon.wait_for_lines(2, &["run ended", "task=other", "success"]);
    daemon
}

fn pid(sandbox: &Sandbox, name: &str) -> u32 {
    sandbox.read(name).trim().parse().expect("a pid")
}

#[test]
fn children_that_ignore_signals_are_ended() {
    let sandbox = Sandbox::new();
    timed_out(
        &sandbox,
        "trap '' INT TERM HUP QUIT\n(await ~/never) &\n(while :; do sleep 0.02; done) &\nawait ~/never",
    );
}

#[test]
fn children_in_the_background_or_in_a_process_group_of_their_own_are_ended() {
    let sandbox = Sandbox::new();
    // With job control each child in the background gets a process group.
    timed_out(&sandbox, "set -m\n(trap '' INT; await ~/never) &\nset +m\nawait ~/never &\nwait");
}

#[test]
fn children_whose_parent_has_gone_are_ended() {
    let sandbox = Sandbox::new();
    timed_out(&sandbox, "(await ~/never & (await ~/never &) &)\nawait ~/never");
}

#[test]
fn children_that_multiply_are_ended() {
    let sandbox = Sandbox::new();
    // Each that is ended has begun another by then.
    timed_out(&sandbox, "trap '' INT\nchain() { sleep 0.01; chain & }\nchain\nawait ~/never");
}

#[test]
fn a_child_that_is_stopped_is_ended() {
    let sandbox = Sandbox::new();
    timed_out(&sandbox, "await ~/never & kill -s STOP $!\n(kill -s STOP $$; await ~/never)");
}

#[test]
fn a_zombie_holds_up_nothing() {
    let sandbox = Sandbox::new();
    // Its parent has become a program that never waits for it.
    let daemon = timed_out(&sandbox, "(exit 0) &\nexec sleep 1000");
    assert_eq!(daemon.lines(&["do not end even when killed"]), [""; 0]);
}

#[test]
fn a_child_that_left_the_session_is_left_alone_and_holds_up_nothing() {
    let sandbox = Sandbox::new();
    let script =
        "setsid sh -c 'echo $$ > ~/left.new; mv ~/left.new ~/left; await ~/never; true' &\nawait ~/left\nawait ~/never";
    let daemon = timed_out(&sandbox, script);
    let left = pid(&sandbox, "left");
    assert!(is_alive(left), "{}", daemon.log());
    for member in session_members(left) {
        signal(member, "KILL");
    }
}

#[test]
fn a_session_that_left_while_it_holds_the_output_does_not_hold_up_a_normal_end() {
    let sandbox = Sandbox::new();
    sandbox.script("bin/task", "#!/bin/sh\nsetsid sh -c 'echo $$ > ~/left.new; mv ~/left.new ~/left; await ~/never; true' &\nawait ~/left\necho said\n");
    let daemon = sandbox.daemon("tasks: [{name: t, schedule: \"@start\", command: [task]}]");
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.wait_for(&["said", "task=t"]);
    for member in session_members(pid(&sandbox, "left")) {
        signal(member, "KILL");
    }
}

#[test]
fn a_restic_that_has_just_begun_is_asked_only_at_half_of_the_grace() {
    let sandbox = Sandbox::new();
    let asked = |name: &str| {
        let trap = format!("trap 'echo {name} >> ~/asked; exit' TERM");
        sandbox.script(&format!("bin/{name}"), &format!("#!/bin/sh\n{trap}\ntouch ~/{name}\nawait ~/never &\nwait\n"))
    };
    asked("restic");
    asked("other");
    let daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    timeout: 1s
    stop_grace: 8s
    stop_signal: TERM
    command: [sh, -c, 'trap : TERM; restic & other & wait; wait; wait']
"#,
    );
    sandbox.await_file("restic");
    sandbox.await_file("other");
    assert!(daemon.wait_for_end("t").contains("outcome=timeout"), "{}", daemon.log());
    assert_eq!(sandbox.read("asked"), "other\nrestic\n", "{}", daemon.log());
}

#[test]
fn finally_runs_after_a_timeout_and_has_one_of_its_own() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    timeout: 1s
    stop_grace: 1s
    command: [sh, -c, 'trap "" INT; touch began; await ~/never']
    finally:
      - {command: [sh, -c, 'touch first; await ~/never'], timeout: 1s}
      - [touch, second]
"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=timeout"), "{}", daemon.log());
    assert!(sandbox.path("first").exists() && sandbox.path("second").exists());
    daemon.stop();
}
