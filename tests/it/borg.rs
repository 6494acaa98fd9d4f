//! The real borg: a repository made, filled and listed, its passphrase in each of the ways.

use crate::harness::{Sandbox, needs};

const PASSPHRASE: &str = r#"it's a "borg" \o/ with $HOME and 日本"#;

const CONFIG: &str = r#"
secrets: [{name: borg, file: ~/passphrase}]
defaults: {environment: {BORG_REPO: ~/My Borg}}
tasks:
  - name: documents
    schedule: "@start"
    environment: {BORG_PASSCOMMAND: {secret: borg, as: command}}
    command: [borg, create, "::first", ~/My Documents]
  - name: stdin
    environment: {BORG_PASSPHRASE_FD: "0"}
    command: [borg, create, "::second", ~/My Documents]
    stdin: {secret: borg}
  - name: value
    environment: {BORG_PASSPHRASE: {secret: borg, as: value}}
    command: [borg, check]
  - name: partly
    environment: {BORG_PASSCOMMAND: {secret: borg, as: command}}
    command: [borg, create, "::third", ~/My Documents, ~/missing]
"#;

#[test]
fn a_repository_is_made_filled_and_listed() {
    if !needs("borg") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("passphrase", format!("{PASSPHRASE}\n"));
    sandbox.write("My Documents/letter.txt", "Dear borg\n");
    sandbox.config(CONFIG);
    sandbox.once(["documents", "--", "borg", "init", "--encryption", "repokey"]).expect(0);

    let mut daemon = sandbox.daemon_again();
    assert!(daemon.wait_for_end("documents").contains("outcome=success"), "{}", daemon.log());
    daemon.stop();
    sandbox.once(["stdin"]).expect(0);
    sandbox.once(["value"]).expect(0);
    // A file that cannot be read is borg's warning.
    sandbox.once(["partly"]).expect(3);
    let list = sandbox.once(["documents", "--", "borg", "list", "--short"]).expect(0).stdout();
    assert_eq!(list, "first\nsecond\nthird\n");
    let listed = sandbox.once(["documents", "--", "borg", "extract", "--stdout", "::first"]).expect(0);
    assert_eq!(listed.stdout(), "Dear borg\n");
}
