//! A thief of the same user that spins on the `/proc` of every new process, and stops some of them to
//! look at leisure, reads nothing from 200 launches.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::{SECRET, start, text, thief};
use crate::harness::{Daemon, Sandbox, eventually, is_root};

const LAUNCHES: usize = 200;

/// One run with so many steps that have the secret in each of the ways that pass through a launcher.
fn config(program: &str, launches: usize) -> String {
    let step = |number| format!("      - {{name: s{number}, command: [{program}], stdin: {{secret: vault}}}}\n");
    let steps: String = (0..launches).map(step).collect();
    format!(
        "secrets: [{{name: vault, file: ~/vault}}]\ntasks:\n  - name: t\n    schedule: \"@start\"\n    environment: {{VALUE: {{secret: vault, as: value}}, FILE: {{secret: vault, as: file}}}}\n    steps:\n      - [await, ~/go]\n{steps}"
    )
}

/// Starts the daemon, then the thief on it, then the steps; returns what the thief says.
fn watch(sandbox: &Sandbox, thief: &Path, how: &str, config: &str, until: impl FnOnce(&Daemon)) -> String {
    sandbox.write("vault", SECRET);
    sandbox.write("needle", SECRET);
    let mut daemon = sandbox.daemon(config);
    let (needle, stop) = (sandbox.path("needle"), sandbox.path("stop"));
    let pid = daemon.pid().to_string();
    let said = sandbox.path("said");
    let script = "exec \"$0\" watch \"$@\" > said";
    let watching = start(sandbox, Path::new("sh"), ["-c", script, text(thief), &pid, text(&needle), text(&stop), how]);
    eventually("the thief to watch", || {
        fs::read_to_string(&said).is_ok_and(|said| said.starts_with("watching")).then_some(())
    });
    sandbox.signal("go");
    until(&daemon);
    sandbox.signal("stop");
    watching.finish().expect(0);
    daemon.stop();
    sandbox.read("said")
}

#[test]
fn a_thief_that_watches_every_process_reads_nothing_from_200_launches() {
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    // A tool that nobody can look into either, so that whatever the thief gets is a launcher's. It
    // lives as long as it takes to be noticed.
    let tool = sandbox.path("bin/tool");
    fs::copy("/bin/true", &tool).expect("a tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o111)).expect("its mode");
    if is_root() {
        chown(&tool, Some(0), Some(0)).expect("to be root's");
    }
    let said = watch(&sandbox, &thief, "thorough", &config("tool", LAUNCHES), |daemon| {
        assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    });
    assert!(!said.contains("launchers 0 "), "the thief has seen none: {said}");
    assert!(said.contains("environ 0 memory 0 input 0 pipe 0 file 0 arguments 0"), "{said}");
}

/// The same thief gets what is not promised: a variable of a tool that anyone may look into.
#[test]
fn the_thief_can_read_what_a_tool_was_given_as_a_value() {
    let sandbox = Sandbox::of_ordinary_user();
    let Some(thief) = thief(&sandbox) else { return };
    sandbox.script("bin/tool", "#!/bin/sh\nawait stop\n");
    let said = watch(&sandbox, &thief, "thorough", &config("tool", 1), |_| {
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
        let sandbox = Sandbox::of_ordinary_user();
        let Some(thief) = thief(&sandbox) else { return };
        let environment = if variable.is_empty() { String::new() } else { format!("environment: {{V: {variable}}}, ") };
        let step = format!("{{{stdin}{environment}command: [sh, -c, 'sleep 0.05; {script}']}}");
        let steps: String = (0..LAUNCHES)
            .map(|number| format!("      - {}\n", step.replacen('{', &format!("{{name: s{number}, "), 1)))
            .collect();
        let yaml = format!(
            "secrets: [{{name: vault, file: ~/vault}}]\ntasks:\n  - name: t\n    schedule: \"@start\"\n    on_error: continue\n    steps:\n      - [await, ~/go]\n{steps}"
        );
        let said = watch(&sandbox, &thief, "fast", &yaml, |daemon| drop(daemon.wait_for_end("t")));
        let lines: Vec<&str> = said.lines().filter(|line| *line != "stolen").collect();
        writeln!(io::stderr(), "{way}: {lines:?}").expect("standard error");
    }
}
