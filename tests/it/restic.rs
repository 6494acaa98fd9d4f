//! The real restic: a repository made, filled, checked, copied and restored, with its password in
//! each of the ways in which restic takes one, and stopped without a trace.

use std::fs;
use std::path::Path;

use crate::harness::{Sandbox, finish, needs};
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

/// The locks that restic has in its repository.
fn locks(repository: &Path) -> usize {
    fs::read_dir(repository.join("locks")).map_or(0, |entries| entries.count())
}

/// Backups so slow that they are always under way when they are stopped.
fn slow_backup(repository: &str, keys: &str) -> String {
    format!(
        r#"
secrets: [{{name: vault, file: ~/password}}, {{name: rclone, file: ~/rclone password}}]
tasks:
  - name: t
    schedule: "@start"
    {keys}
    environment:
      RESTIC_REPOSITORY: {repository}
      RESTIC_PASSWORD_COMMAND: {{secret: vault, as: command}}
      RCLONE_PASSWORD_COMMAND: {{secret: rclone, as: command}}
    command: [restic, --limit-upload, "100", backup, ~/My Documents]
"#
    )
}

/// Stops backups to `repository`, whose folder is `~/My Vault`, and looks for what restic left there.
fn stop_backups(sandbox: &Sandbox, repository: &str) {
    documents(sandbox);
    sandbox.write("password", PASSWORD);
    let folder = sandbox.path("My Vault");
    sandbox.config(&slow_backup(repository, ""));
    sandbox.once(["t", "--", "restic", "init"]).expect(0);
    for round in 0..3 {
        let mut daemon = sandbox.daemon(&slow_backup(repository, ""));
        // What restic says once it has its lock.
        daemon.wait_for(&["no parent snapshot found", "task=t"]);
        assert_eq!(locks(&folder), 1, "{}", daemon.log());
        daemon.stop();
        assert!(daemon.wait_for_end("t").contains("outcome=stopped"), "{}", daemon.log());
        assert_eq!(locks(&folder), 0, "round {round}: {}", daemon.log());
    }
    let daemon = sandbox.daemon(&slow_backup(repository, "timeout: 3s"));
    assert!(daemon.wait_for_end("t").contains("outcome=timeout"), "{}", daemon.log());
    assert_eq!(locks(&folder), 0, "{}", daemon.log());
}

#[test]
fn a_stopped_backup_leaves_no_lock() {
    if needs("restic") {
        let sandbox = Sandbox::new();
        sandbox.write("rclone password", "not used");
        stop_backups(&sandbox, "~/My Vault");
    }
}

#[test]
fn a_stopped_backup_through_rclone_leaves_no_lock() {
    if needs("restic") && needs("rclone") {
        let sandbox = Sandbox::new();
        rclone::configure(&sandbox, rclone::PASSWORD);
        sandbox.write("rclone password", rclone::PASSWORD);
        let repository = format!("\"rclone:store:{}\"", sandbox.path("My Vault").display());
        stop_backups(&sandbox, &repository);
    }
}
