//! A task's `user`: root's daemon runs its commands with that user's rights and with nothing of root's.
//!
//! Root alone can test it; the user is `nobody`, whom every system has.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use crate::harness::{Daemon, Sandbox, cannot_test, eventually, finish};

const SECRET: &str = "correct horse battery staple";

/// A home that others may go through, with a folder in which everyone may write.
fn sandbox() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    if std::fs::metadata(sandbox.home()).expect("a home").uid() != 0 {
        cannot_test("only root can run commands as another user");
        return None;
    }
    sandbox.write("vault", SECRET);
    std::fs::create_dir(sandbox.path("open")).expect("a folder");
    for (folder, mode) in [("", 0o711), ("bin", 0o755), ("open", 0o1777)] {
        std::fs::set_permissions(sandbox.path(folder), std::fs::Permissions::from_mode(mode)).expect("a folder's mode");
    }
    for folder in [sandbox.home().parent().expect("a folder").to_owned(), sandbox.runtime_dir()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).expect("a folder's mode");
    }
    Some(sandbox)
}

/// A copy of the program that others may start too.
fn copy(sandbox: &Sandbox) -> std::path::PathBuf {
    let program = sandbox.path("bin/backupnizza");
    std::fs::copy(env!("CARGO_BIN_EXE_backupnizza"), &program).expect("a copy");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o711)).expect("a mode");
    program
}

/// A daemon on `config`, of a copy of the program that others may start too, with these further variables.
fn daemon(sandbox: &Sandbox, config: &str, variables: &[(&str, &str)]) -> Daemon {
    sandbox.config(config);
    let mut command = sandbox.command(copy(sandbox));
    command.arg("backup.yaml").envs(variables.iter().copied());
    let daemon = Daemon::start(command);
    daemon.wait_for(&["ready"]);
    daemon
}

/// A configuration with one task of nobody's, which writes below ~/open of root.
fn config(sandbox: &Sandbox, keys: &str, script: &str) -> String {
    let open = sandbox.path("open").display().to_string();
    format!(
        r#"
secrets: [{{name: vault, file: ~/vault}}]
tasks:
  - name: theirs
    user: nobody
    schedule: "@start"
    working_directory: "{open}"
    {keys}
    command: [sh, -c, '{script}']
"#
    )
}

fn nobody(field: usize) -> String {
    let output = Command::new("getent").args(["passwd", "nobody"]).output().expect("getent");
    let line = String::from_utf8(output.stdout).expect("UTF-8");
    line.trim().split(':').nth(field).expect("a field").to_owned()
}

#[test]
fn a_command_has_the_rights_of_its_user_and_nothing_of_roots() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(
        &sandbox,
        "pass_environment: all",
        "grep -E \"^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)):\" /proc/self/status > status; env > environment; umask > umask; ls -l /proc/self/fd | grep -v /proc > fd",
    );
    let roots = [("USER", "root"), ("SSH_AUTH_SOCK", "/run/roots"), ("XDG_SESSION_ID", "roots"), ("EDITOR", "vi")];
    let daemon = daemon(&sandbox, &config, &roots);
    assert!(daemon.wait_for_end("theirs").contains("outcome=success"), "{}", daemon.log());
    let (uid, gid) = (nobody(2), nobody(3));
    let status: Vec<Vec<String>> =
        sandbox.read("open/status").lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let zeros = "0000000000000000";
    assert_eq!(status[0], ["Uid:", &uid, &uid, &uid, &uid]);
    assert_eq!(status[1], ["Gid:", &gid, &gid, &gid, &gid]);
    assert_eq!(status[2], ["Groups:", &gid]);
    for capabilities in &status[3..] {
        assert_eq!(capabilities[1], zeros, "{capabilities:?}");
    }
    assert_eq!(status.len(), 7);
    let environment = sandbox.read("open/environment");
    let lines: Vec<&str> = environment.lines().collect();
    for expected in [format!("HOME={}", nobody(5)), "USER=nobody".into(), "LOGNAME=nobody".into(), "EDITOR=vi".into()] {
        assert!(lines.contains(&expected.as_str()), "{expected} in {environment}");
    }
    for roots in ["SSH_AUTH_SOCK", "XDG_", "USER=root", "HOME=/root"] {
        assert!(!environment.contains(roots), "{roots} in {environment}");
    }
    let descriptors = sandbox.read("open/fd");
    let open: Vec<&str> = descriptors.lines().filter(|line| line.contains("->")).collect();
    assert!(open.len() <= 4, "{descriptors}");
}

#[test]
fn its_tokens_and_pipes_are_its_users() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(
        &sandbox,
        "environment: {ASK: {secret: vault, as: command}, FILE: {secret: vault, as: file}, PLAIN: {secret: vault, as: value}}",
        "cat \"$FILE\" > file; echo \"$PLAIN\" > plain; echo heard > /dev/stderr; eval \"$ASK\" > redeemed",
    );
    let mut daemon = daemon(&sandbox, &config, &[]);
    assert!(daemon.wait_for_end("theirs").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("open/file"), SECRET);
    assert_eq!(sandbox.read("open/plain"), format!("{SECRET}\n"));
    assert_eq!(sandbox.read("open/redeemed"), SECRET);
    daemon.wait_for(&["| heard"]);
    let mode = |path| std::fs::symlink_metadata(path).expect("a socket").mode() & 0o777;
    assert_eq!(mode(sandbox.socket()), 0o666);
    let mut control = sandbox.socket().into_os_string();
    control.push(".control");
    assert_eq!(mode(control.into()), 0o600, "control stays the daemon's own user's");
    daemon.stop();
}

#[test]
fn another_user_cannot_use_its_tokens_not_even_root() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(
        &sandbox,
        "environment: {ASK: {secret: vault, as: command, uses: 3}}",
        "echo \"$ASK\" > ask; await \"$PWD/go\"; eval \"$ASK\" > redeemed",
    );
    let daemon = daemon(&sandbox, &config, &[]);
    sandbox.await_file("open/ask");
    let ask = eventually("the token", || Some(sandbox.read("open/ask")).filter(|ask| ask.ends_with('\n')));
    let mut root = sandbox.command("sh");
    root.args(["-c", &ask]).env("BACKUPNIZZA_SOCKET", sandbox.socket());
    let refused = finish(root).expect(1);
    assert!(refused.stdout.is_empty());
    daemon.wait_for(&["token refused"]);
    sandbox.signal("open/go");
    assert!(daemon.wait_for_end("theirs").contains("outcome=success"), "{}", daemon.log());
    assert_eq!(sandbox.read("open/redeemed"), SECRET);
}

#[test]
fn hooks_and_conditions_run_as_that_user_too_and_once_does_as_well() {
    let Some(sandbox) = sandbox() else { return };
    let config = config(
        &sandbox,
        "only_if: [sh, -c, \"id -un > condition\"]\n    hooks: {success: [sh, -c, \"id -un > hook\"]}",
        "id -un > command; echo ~ > home",
    );
    let daemon = daemon(&sandbox, &config, &[]);
    daemon.wait_for_end("theirs");
    sandbox.await_file("open/hook");
    eventually("the hook", || (sandbox.read("open/hook") == "nobody\n").then_some(()));
    for name in ["condition", "command"] {
        assert_eq!(sandbox.read(&format!("open/{name}")), "nobody\n", "{name}");
    }
    assert_eq!(sandbox.read("open/home").trim(), nobody(5));
    drop(daemon);
    let shown = sandbox.once(["theirs", "--", "id", "-un"]).expect(0);
    assert_eq!(shown.stdout(), "nobody\n");
}

#[test]
fn a_program_of_that_users_own_may_run_and_a_strangers_may_not() {
    let Some(sandbox) = sandbox() else { return };
    let script = sandbox.script("open/backup", "#!/bin/sh\nid -un\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let run = |owner: u32| {
        std::os::unix::fs::chown(&script, Some(owner), None).expect("another owner");
        let yaml = format!(
            "tasks: [{{name: theirs, user: nobody, working_directory: /, command: [\"{}\"]}}]",
            script.display()
        );
        sandbox.config(&yaml);
        sandbox.once(["theirs"])
    };
    run(nobody(2).parse().expect("a uid")).expect(0);
    let refused = run(4_000_000).expect(1);
    assert!(refused.stderr.contains("belongs to uid 4000000"), "{}", refused.stderr);
}

#[test]
fn what_the_caller_of_once_has_open_stays_the_callers() {
    let Some(sandbox) = sandbox() else { return };
    sandbox.config(&config(&sandbox, "", "true"));
    let mut script = sandbox.command("sh");
    let line = "mkfifo -m 600 fifo; cat fifo > heard & \"$0\" once backup.yaml theirs -- echo hello > fifo; wait";
    script.args(["-c", line, env!("CARGO_BIN_EXE_backupnizza")]);
    finish(script).expect(0);
    assert_eq!(sandbox.read("heard"), "hello\n");
    assert_eq!(std::fs::metadata(sandbox.path("fifo")).expect("a pipe").uid(), 0);
}

#[test]
fn once_gives_another_user_a_token_that_can_be_redeemed() {
    let Some(sandbox) = sandbox() else { return };
    sandbox.config(&config(&sandbox, "environment: {ASK: {secret: vault, as: command}}", "eval \"$ASK\" > once"));
    let program = copy(&sandbox);
    let mut once = sandbox.command(program);
    once.args(["once", "backup.yaml", "theirs"]);
    finish(once).expect(0);
    assert_eq!(sandbox.read("open/once"), SECRET);
}

#[test]
fn a_socket_in_a_folder_that_the_user_cannot_go_through_is_told_at_the_start() {
    let Some(sandbox) = sandbox() else { return };
    std::fs::set_permissions(sandbox.runtime_dir(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    sandbox.config(&config(&sandbox, "", "true"));
    let refused = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
    assert!(refused.stderr.contains("cannot go through it"), "{}", refused.stderr);
    assert!(refused.stderr.contains("chmod 711"), "{}", refused.stderr);
}

#[test]
fn a_program_and_a_client_that_the_user_cannot_execute_are_told_before_they_are_needed() {
    let Some(sandbox) = sandbox() else { return };
    let program = copy(&sandbox);
    let script = sandbox.script("bin/backup", "#!/bin/sh\n");
    let config = config(&sandbox, "environment: {ASK: {secret: vault, as: command}}", "true");
    sandbox.config(&config.replace("[sh, -c, 'true']", &format!("[\"{}\"]", script.display())));
    let told = |bin_mode: u32, script_mode: u32| {
        for (path, mode) in [(sandbox.path("bin"), bin_mode), (script.clone(), script_mode)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        }
        let mut check = sandbox.command(&program);
        check.args(["check", "backup.yaml"]);
        let said = finish(check).expect(0).stderr;
        let lines = said.lines().filter(|line| line.contains("user nobody cannot execute it"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let closed = |path: &std::path::Path, place: &std::path::Path| {
        format!(
            "backupnizza: warning: {}: user nobody cannot execute it: {} is closed to that user",
            path.display(),
            place.display()
        )
    };
    let bin = sandbox.path("bin");
    assert_eq!(told(0o755, 0o755), [""; 0]);
    assert_eq!(told(0o700, 0o755), [closed(&script, &bin), closed(&program, &bin)]);
    assert_eq!(told(0o755, 0o700), [closed(&script, &script)]);
}

#[test]
fn who_is_not_there_and_who_may_not_is_told() {
    let sandbox = Sandbox::new();
    sandbox.config("tasks: [{name: theirs, user: no-such-user, command: [\"true\"]}]");
    let refused = finish(sandbox.backupnizza(["check", "backup.yaml"])).expect(1);
    assert!(refused.stderr.contains("tasks[0].user: no user of this machine has this name"), "{}", refused.stderr);
    finish(sandbox.backupnizza(["check", "--offline", "backup.yaml"])).expect(0);
}
