//! The real restic: a repository made, filled, checked, copied and restored, with its password in
//! each of the ways in which restic takes one, and stopped without a trace.

use std::fs;
use std::path::Path;
use std::thread;

use crate::harness::{Daemon, Sandbox, eventually, finish, needs};
use crate::rclone;

const PASSWORD: &str = r#"it's a "vault" \o/ with $HOME, `ticks` and 日本"#;

const CONFIG: &str = r#"
secrets:
  - {name: vault, file: ~/vault password}
  - {name: mirror, file: ~/mirror password}
profiles:
  vault:
    lock: vault
    environment:
      RESTIC_REPOSITORY: ~/My Vault
      RESTIC_PASSWORD_COMMAND: {secret: vault, as: command}
tasks:
  - {name: documents, profile: vault, schedule: "@start", command: [restic, backup, ~/My Documents]}
  - {name: check, profile: vault, command: [restic, check]}
  - name: copy
    lock: [vault, mirror]
    environment:
      RESTIC_FROM_REPOSITORY: ~/My Vault
      RESTIC_FROM_PASSWORD_COMMAND: {secret: vault, as: command}
      RESTIC_REPOSITORY: ~/My Mirror
      RESTIC_PASSWORD_COMMAND: {secret: mirror, as: command}
    command: [restic, copy]
"#;

/// Something to back up.
fn documents(sandbox: &Sandbox) -> Vec<u8> {
    let bytes: Vec<u8> = (0..300_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    sandbox.write("My Documents/letter.txt", "Dear restic\n");
    sandbox.write("My Documents/deep er/binary", &bytes);
    bytes
}

#[test]
fn a_repository_is_made_filled_checked_copied_and_restored() {
    if !needs("restic") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("vault password", format!("{PASSWORD}\n"));
    sandbox.write("mirror password", "another one");
    let bytes = documents(&sandbox);
    sandbox.config(CONFIG);
    sandbox.once(["documents", "--", "restic", "init"]).expect(0);

    let mut daemon = sandbox.daemon_again();
    assert!(daemon.wait_for_end("documents").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
    assert!(!daemon.log().contains(PASSWORD), "{}", daemon.log());

    sandbox.once(["check"]).expect(0);
    let snapshots = sandbox.once(["documents", "--", "restic", "snapshots", "--json"]).expect(0).stdout();
    assert_eq!(snapshots.matches("\"short_id\"").count(), 1, "{snapshots}");
    let target = sandbox.path("restored here");
    let target = target.to_str().expect("text");
    sandbox.once(["documents", "--", "restic", "restore", "latest", "--target", target]).expect(0);
    let home = sandbox.home();
    let restored = Path::new(target).join(home.strip_prefix("/").expect("absolute"));
    let read = |name: &str| fs::read(restored.join(name)).expect("a restored file");
    assert!(read("My Documents/deep er/binary") == bytes);
    assert_eq!(read("My Documents/letter.txt"), b"Dear restic\n");

    // Two repositories with a token each.
    sandbox.once(["copy", "--", "restic", "init", "--copy-chunker-params"]).expect(0);
    sandbox.once(["copy"]).expect(0);
    let copied = sandbox.once(["copy", "--", "restic", "snapshots", "--json"]).expect(0).stdout();
    assert_eq!(copied.matches("\"short_id\"").count(), 1, "{copied}");
}

#[test]
fn a_password_comes_to_restic_in_each_of_the_ways() {
    if !needs("restic") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("password", format!("{PASSWORD}\n"));
    sandbox.config(
        r#"
secrets: [{name: vault, file: ~/password}]
defaults: {environment: {RESTIC_REPOSITORY: ~/My Vault}}
tasks:
  - {name: command, environment: {RESTIC_PASSWORD_COMMAND: {secret: vault, as: command}}, command: [restic, snapshots]}
  - {name: file, environment: {RESTIC_PASSWORD_FILE: {secret: vault, as: file}}, command: [restic, snapshots]}
  - {name: value, environment: {RESTIC_PASSWORD: {secret: vault, as: value}}, command: [restic, snapshots]}
  - {name: stdin, command: [restic, snapshots], stdin: {secret: vault}}
  - {name: without, command: [restic, snapshots]}
"#,
    );
    // Made with what a person would type.
    let mut init = sandbox.command("restic");
    init.args(["init", "--repo"]).arg(sandbox.path("My Vault")).env("RESTIC_PASSWORD", PASSWORD);
    finish(init).expect(0);
    for task in ["command", "file", "value", "stdin"] {
        sandbox.once([task]).expect(0);
    }
    sandbox.once(["without"]).expect(1);
    // On the terminal too.
    for task in ["command", "file", "value"] {
        sandbox.once([task, "--", "restic", "cat", "config"]).expect(0);
    }
}

/// How many repositories are backed up to at a time while backups are stopped.
const VAULTS: u32 = 5;

/// When the backups of a repository are stopped, one after another: some seconds after their start, or in the moment in
/// which restic has written its lock and has yet to learn whether it has it.
fn stops(vault: u32) -> [Option<u32>; 4] {
    [None, Some(1 + vault % 3), Some(10 + vault), None]
}

/// The locks in a repository.
fn locks(repository: &Path) -> usize {
    fs::read_dir(repository.join("locks")).map_or(0, |entries| entries.count())
}

/// So much that no backup of it ends by itself, at the speed at which it goes.
fn much(sandbox: &Sandbox) {
    let mut state: u64 = 7;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    sandbox.write("My Documents/much", noise.take(6_000_000).collect::<Vec<u8>>());
}

/// The task of each stop, and one for the stop of the daemon.
fn backups(prefix: &str, command: &str) -> String {
    let task = |name: &str, vault: u32, timeout: Option<u32>| {
        let timeout = timeout.map_or(String::new(), |timeout| format!("timeout: {timeout}s"));
        format!(
            r#"
  - name: {name}
    schedule: "@start"
    lock: vault{vault}
    {timeout}
    environment:
      RESTIC_REPOSITORY: "{prefix}/vault {vault}"
      RESTIC_PASSWORD_COMMAND: {{secret: vault, as: command}}
      RCLONE_PASSWORD_COMMAND: {{secret: rclone, as: command}}
    command: {command}
"#
        )
    };
    let mut text =
        "secrets: [{name: vault, file: ~/password}, {name: rclone, file: ~/rclone password}]\ntasks:".to_owned();
    for vault in 0..VAULTS {
        for (round, timeout) in stops(vault).into_iter().enumerate() {
            text += &task(&format!("v{vault}-{round}"), vault, timeout);
        }
    }
    text + &task("last", 0, None)
}

/// Stops twenty backups, and looks for what restic left in its repositories.
fn stop_backups(sandbox: &Sandbox, prefix: &str, command: &str) {
    much(sandbox);
    sandbox.write("password", PASSWORD);
    sandbox.config(&backups(prefix, command));
    for vault in 0..VAULTS {
        sandbox.once([format!("v{vault}-0").as_str(), "--", "restic", "init"]).expect(0);
    }
    let mut daemon = sandbox.daemon_again();
    thread::scope(|scope| {
        for vault in 0..VAULTS {
            let daemon = &daemon;
            scope.spawn(move || stop_backups_of(sandbox, daemon, vault));
        }
    });
    daemon.wait_for(&["no parent snapshot found", "task=last "]);
    daemon.stop();
    assert!(daemon.wait_for_end("last").contains("outcome=stopped"), "{}", daemon.log());
    for vault in 0..VAULTS {
        assert_eq!(locks(&sandbox.path(&format!("vault {vault}"))), 0, "vault {vault}: {}", daemon.log());
    }
    assert_eq!(daemon.lines(&["do not end even when killed"]), [""; 0]);
}

fn stop_backups_of(sandbox: &Sandbox, daemon: &Daemon, vault: u32) {
    let folder = sandbox.path(&format!("vault {vault}"));
    for (round, timeout) in stops(vault).into_iter().enumerate() {
        let task = format!("v{vault}-{round}");
        daemon.wait_for(&["run started", &format!("task={task} ")]);
        if timeout.is_none() {
            eventually("a lock", || (locks(&folder) > 0).then_some(()));
            stop(sandbox, &task);
        }
        let outcome = if timeout.is_none() { "outcome=stopped" } else { "outcome=timeout" };
        assert!(daemon.wait_for_end(&task).contains(outcome), "{}", daemon.log());
    }
}

fn stop(sandbox: &Sandbox, task: &str) {
    let mut stop = sandbox.backupnizza(["stop", task]);
    stop.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(stop).expect(0);
}

const BACKUP: &str = r#"[restic, --limit-upload, "100", backup, ~/My Documents]"#;

#[test]
fn twenty_stopped_backups_leave_no_lock() {
    if needs("restic") {
        let sandbox = Sandbox::new();
        sandbox.write("rclone password", "not used");
        stop_backups(&sandbox, &sandbox.home().display().to_string(), BACKUP);
    }
}

#[test]
fn twenty_stopped_backups_under_a_shell_leave_no_lock() {
    if needs("restic") {
        let sandbox = Sandbox::new();
        sandbox.write("rclone password", "not used");
        let script = r#"[sh, -c, 'restic --limit-upload 100 backup "$HOME/My Documents"; echo "restic: $?"']"#;
        stop_backups(&sandbox, &sandbox.home().display().to_string(), script);
    }
}

#[test]
fn twenty_stopped_backups_through_rclone_leave_no_lock() {
    if needs("restic") && needs("rclone") {
        let sandbox = Sandbox::new();
        rclone::configure(&sandbox, rclone::PASSWORD);
        sandbox.write("rclone password", rclone::PASSWORD);
        stop_backups(&sandbox, &format!("rclone:store:{}", sandbox.home().display()), BACKUP);
    }
}

#[test]
fn a_lock_of_a_killed_backup_is_gone_after_the_unlock_that_the_readme_shows() {
    const RECIPE: &str = "finally: [[restic, unlock]]";
    if !needs("restic") {
        return;
    }
    assert!(include_str!("../../README.md").contains(RECIPE));
    let sandbox = Sandbox::new();
    much(&sandbox);
    sandbox.write("password", PASSWORD);
    let config = |keys: &str| {
        format!(
            r#"
secrets: [{{name: vault, file: ~/password}}]
tasks:
  - name: t
    schedule: "@start"
    stop_grace: 0s
    environment: {{RESTIC_REPOSITORY: ~/vault, RESTIC_PASSWORD_COMMAND: {{secret: vault, as: command}}}}
    command: {BACKUP}
    {keys}
"#
        )
    };
    sandbox.config(&config(""));
    sandbox.once(["t", "--", "restic", "init"]).expect(0);
    let vault = sandbox.path("vault");
    for (keys, left) in [("", 1), (RECIPE, 0)] {
        let before = locks(&vault);
        let mut daemon = sandbox.daemon(&config(keys));
        eventually("a lock", || (locks(&vault) > before).then_some(()));
        stop(&sandbox, "t");
        assert!(daemon.wait_for_end("t").contains("outcome=stopped"), "{}", daemon.log());
        assert_eq!(locks(&vault), left, "{}", daemon.log());
        daemon.stop();
    }
}
