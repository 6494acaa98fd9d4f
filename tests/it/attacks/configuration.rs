//! Configuration files made to harm: refused soon, with little memory, without a run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};

use super::text;
use crate::harness::{Finished, Sandbox, finish, is_root};

const GOOD: &str = "tasks: [{name: t, schedule: '@start', command: [touch, ran]}]\n";

/// What a daemon on this file says that may use 400 MB of addresses and must end.
fn start(sandbox: &Sandbox, file: &str) -> Finished {
    let mut command = sandbox.command("sh");
    command.args(["-c", "ulimit -v 400000; exec \"$0\" \"$1\"", text(sandbox.program()), file]);
    finish(command)
}

#[track_caller]
fn assert_refused(sandbox: &Sandbox, file: &str, why: &str) {
    let said = start(sandbox, file).expect(1);
    assert!(said.stderr.contains(why), "{file}: {}", said.stderr);
    assert!(!said.stderr.contains("panic"), "{file}: {}", said.stderr);
    assert!(!sandbox.path("ran").exists(), "{file} was run");
}

#[test]
fn what_is_no_file_of_this_users_is_refused_at_once() {
    let sandbox = Sandbox::new();
    let mut mkfifo = sandbox.command("mkfifo");
    mkfifo.arg("pipe.yaml");
    finish(mkfifo).expect(0);
    assert_refused(&sandbox, "pipe.yaml", "pipe.yaml: not a regular file");
    assert_refused(&sandbox, "/dev/zero", "/dev/zero: ");
    symlink("/dev/zero", sandbox.path("zero.yaml")).expect("a link");
    assert_refused(&sandbox, "zero.yaml", "/dev/zero: ");
    assert_refused(&sandbox, ".", "a folder, expected a file");
    symlink("circle.yaml", sandbox.path("circle.yaml")).expect("a link");
    assert_refused(&sandbox, "circle.yaml", "circle.yaml: more than 40 links on the way");

    sandbox.write("open/backup.yaml", GOOD);
    sandbox.write("own/backup.yaml", GOOD);
    let set =
        |name: &str, mode| fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
    set("open", 0o777);
    assert_refused(&sandbox, "open/backup.yaml", "open: writable by everyone");
    symlink(sandbox.path("own/backup.yaml"), sandbox.path("open/link.yaml")).expect("a link");
    assert_refused(&sandbox, "open/link.yaml", "open: writable by everyone");
    symlink(sandbox.path("open/backup.yaml"), sandbox.path("own/link.yaml")).expect("a link");
    assert_refused(&sandbox, "own/link.yaml", "open: writable by everyone");
    set("open", 0o700);
    set("open/backup.yaml", 0o666);
    assert_refused(&sandbox, "own/link.yaml", "open/backup.yaml: writable by everyone");
    if is_root() {
        // Where everyone may put links, only one's own are followed.
        set("open", 0o1777);
        lchown(sandbox.path("open/link.yaml"), Some(12_345), None).expect("another user's link");
        assert_refused(&sandbox, "open/link.yaml", "belongs to uid 12345");
    }
}

#[test]
fn bombs_and_broken_text_are_refused_with_little_memory() {
    let sandbox = Sandbox::new();
    let laughs: String =
        (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
    let merged: String =
        (1..40).map(|n| format!("  - &b{n} {{name: t{n}, command: *b{0}, environment: *b{0}}}\n", n - 1)).collect();
    let deep = |open: &str, count: usize| format!("tasks: {}", open.repeat(count));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "laughs",
            format!("a0: &a0 [x, x, x]\n{laughs}{GOOD}").into(),
            "laughs.yaml: aliases (`*`) that repeat each other too often",
        ),
        (
            "merged",
            format!("tasks:\n  - &b0 {{name: t0, command: [x]}}\n{merged}").into(),
            "aliases (`*`) that repeat each other too often",
        ),
        ("itself", b"tasks: &a [*a]\n".to_vec(), "nested deeper than 64"),
        ("lists", deep("[", 1_000_000).into(), "nested deeper than 64"),
        ("maps", deep("{a: ", 500_000).into(), "nested deeper than 64"),
        ("blocks", deep("\n- ", 1000).into(), "further problems are not shown"),
        ("keys", deep("? ", 500_000).into(), "a key (`? `) cannot begin here"),
        ("tags", deep("!a ", 500_000).into(), "a tag (`!`) is not supported"),
        ("quotes", format!("tasks: {}", "\"".repeat(1_000_001)).into(), "line 1 column 10: "),
        (
            "anchors",
            (0..200_000).map(|n| format!("- &a{n} x\n")).collect::<String>().into(),
            "expected a map with `tasks`",
        ),
        ("documents", "---\na: b\n".repeat(100_000).into(), "more than one document"),
        ("zero", [GOOD.as_bytes(), b"\0"].concat(), "zero.yaml: line 2 column 1: "),
        ("utf8", [GOOD.as_bytes(), b"\xff\xfe"].concat(), "not UTF-8"),
        ("surrogate", [GOOD.as_bytes(), b"# \xed\xa0\x80\n"].concat(), "not UTF-8"),
        ("utf16", GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect(), "utf16.yaml: line 1 column "),
        ("twice", format!("{GOOD}{GOOD}").into(), "the key stands here twice"),
        (
            "names",
            "tasks: [{name: t, command: [touch, ran]}, {name: t, command: [touch, ran]}]\n".into(),
            "another task has this name",
        ),
        (
            "inner",
            "tasks: [{name: t, name: u, schedule: '@start', command: [touch, ran]}]\n".into(),
            "the key stands here twice",
        ),
        ("merge", "tasks: [{<<: {schedule: '@start'}, name: t, command: [touch, ran]}]\n".into(), "profiles"),
        (
            "number",
            b"max_concurrent_runs: 99999999999999999999999999999999999999999999\ntasks: []\n".to_vec(),
            "expected a whole number",
        ),
        (
            "long",
            format!("tasks: [{{name: {}, command: [touch, ran]}}]\n", "n".repeat(1_000_000)).into(),
            "a name of more than 128 characters",
        ),
        ("large", vec![b'#'; 5 << 20], "larger than 4 MiB"),
    ];
    for (name, text, why) in cases {
        let file = format!("{name}.yaml");
        sandbox.write(&file, text);
        assert_refused(&sandbox, &file, why);
    }
}
