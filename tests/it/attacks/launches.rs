//! A thief of the same user that spins on the `/proc` of every new process, and stops some of them to
//! look at leisure, reads nothing from 200 launches.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::{SECRET, start, text, thief};
use crate::harness::{Daemon, Sandbox, eventually, is_root};

const LAUNCHES: usize = 200;

/// One run with so many steps that have the secret in each of the ways that pass through a launcher. The step before
/// them, which anybody may look into, has it in none.
fn config(program: &str, launches: usize) -> String {
    let environment = "{VALUE: {secret: vault, as: value}, FILE: {secret: vault, as: file}}";
    let step = |number| {
        format!(
            "      - {{name: s{number}, command: [{program}], stdin: {{secret: vault}}, environment: {environment}}}\n"
        )
    };
    let steps: String = (0..launches).map(step).collect();
    format!(
        "secrets: [{{name: vault, file: ~/vault}}]\ntasks:\n  - name: t\n    schedule: \"@start\"\n    steps:\n      - [await, ~/go]\n{steps}"
    )
}

/// Starts the victim's daemon, then the attacker's thief on it, then the steps; returns what the thief says.
fn watch(victim: &Sandbox, attacker: &Sandbox, how: &str, config: &str, until: impl FnOnce(&Daemon)) -> String {
    victim.write("vault", SECRET);
    attacker.write("needle", SECRET);
    let mut daemon = victim.daemon(config);
    let (thief, needle, stop) = (attacker.path("bin/thief"), attacker.path("needle"), attacker.path("stop"));
    let pid = daemon.pid().to_string();
    let script = "exec \"$0\" watch \"$@\" > said";
    let words = ["-c", script, text(&thief), &pid, text(&needle), text(&stop), how];
    let watching = start(attacker, Path::new("sh"), words);
    let said = attacker.path("said");
    eventually("the thief to watch", || {
        fs::read_to_string(&said).is_ok_and(|said| said.starts_with("watching")).then_some(())
    });
    victim.signal("go");
    until(&daemon);
    attacker.signal("stop");
    watching.finish().expect(0);
    daemon.stop();
    attacker.read("said")
}

#[test]
fn a_thief_that_watches_every_process_reads_nothing_from_200_launches() {
    let sandbox = Sandbox::of_ordinary_user();
    if thief(&sandbox).is_none() {
        return;
    }
    // A tool that nobody can look into either, so that whatever the thief gets is a launcher's. It
    // lives as long as it takes to be noticed.
    let tool = sandbox.path("bin/tool");
    let copied = Command::new("cp").arg("/bin/true").arg(&tool).status();
    assert!(copied.is_ok_and(|status| status.success()), "a tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o111)).expect("its mode");
    if is_root() {
        chown(&tool, Some(0), Some(0)).expect("to be root's");
    }
    let said = watch(&sandbox, &sandbox, "thorough", &config("tool", LAUNCHES), |daemon| {
        assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    });
    assert!(!said.contains("launchers 0 "), "the thief has seen none: {said}");
    assert!(said.contains("environ 0 memory 0 input 0 pipe 0 file 0 arguments 0"), "{said}");
}

/// The same thief gets what is not promised: a variable of a tool that anyone may look into.
#[test]
fn the_thief_can_read_what_a_tool_was_given_as_a_value() {
    let sandbox = Sandbox::of_ordinary_user();
    if thief(&sandbox).is_none() {
        return;
    }
    sandbox.script("bin/tool", "#!/bin/sh\nawait stop\n");
    let said = watch(&sandbox, &sandbox, "thorough", &config("tool", 1), |_| {
        eventually("the thief to get it", || sandbox.read("said").contains("stolen").then_some(()));
    });
    assert!(said.contains("\nstolen\n"), "{said}");
}

/// For the table in SECURITY.md: what a thief that looks everywhere but into the tool's own memory gets of
/// tools that take a while until they read their secret.
#[test]
#[ignore = "a measurement"]
fn what_the_thief_gets_by_each_way_of_delivery() {
    let ways = [
        ("stdin", "stdin: {secret: vault}, ", "", "read -r secret"),
        ("as: command", "", "{secret: vault, as: command}", r#"secret=$(eval "$V")"#),
        ("as: file", "", "{secret: vault, as: file}", r#"read -r secret < "$V""#),
        ("as: value", "", "{secret: vault, as: value}", "true"),
    ];
    for (way, stdin, variable, script) in ways {
        let environment = if variable.is_empty() { String::new() } else { format!("environment: {{V: {variable}}}, ") };
        let step = |number| {
            format!("      - {{name: s{number}, {stdin}{environment}command: [sh, -c, 'sleep 0.05; {script}']}}\n")
        };
        let steps: String = (0..LAUNCHES).map(step).collect();
        let yaml = format!(
            "secrets: [{{name: vault, file: ~/vault}}]\ntasks:\n  - name: t\n    schedule: \"@start\"\n    on_error: continue\n    steps:\n      - [await, ~/go]\n{steps}"
        );
        let report = |whose: &str, said: String| {
            let haul = said.lines().filter(|line| line.contains(' ')).collect::<Vec<_>>().join(", ");
            writeln!(io::stderr(), "{way}, {whose}: {haul}").expect("standard error");
        };
        let (attacker, roots) = (Sandbox::of_ordinary_user(), Sandbox::new());
        if thief(&attacker).is_none() {
            return;
        }
        let to_its_end = |daemon: &Daemon| drop(daemon.wait_for_end("t"));
        report("the same user", watch(&attacker, &attacker, "fast", &yaml, to_its_end));
        if is_root() {
            fs::remove_file(attacker.path("stop")).expect("to watch again");
            report("another user", watch(&roots, &attacker, "fast", &yaml, to_its_end));
        }
    }
}
