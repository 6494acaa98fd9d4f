//! The program that is executed is the file that was looked at, and nothing shows that it was not executed by its path.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::{Sandbox, finish, needs, not_tested};

/// Makes `link` lead to `target`, without an instant in which it leads nowhere.
fn turn(link: &Path, target: &str) {
    let new = link.with_extension("new");
    symlink(target, &new).expect("a new link");
    fs::rename(&new, link).expect("the new link in its place");
}

/// A copy of an installed program.
fn copy(program: &str, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder for the copy");
    fs::copy(program, to).expect("a copy of a program");
}

#[test]
fn a_program_that_is_exchanged_without_pause_never_runs_in_the_place_of_the_one_looked_at() {
    const RUNS: usize = 300;
    const GOOD_TURNS: usize = 5;
    let sandbox = Sandbox::new();
    copy("/bin/echo", &sandbox.path("good/tool"));
    copy("/bin/touch", &sandbox.path("evil/tool"));
    let link = sandbox.path("current");
    turn(&link, "good");
    let steps = "      - [~/current/tool, won]\n".repeat(RUNS);
    let daemon = sandbox.daemon(&format!(
        "tasks:\n  - name: t\n    schedule: \"@start\"\n    on_error: continue\n    steps:\n      - [await, ~/go]\n{steps}"
    ));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Mostly good, so that it often passes the first looks.
                turn(&link, "evil");
                (0..GOOD_TURNS).for_each(|_| turn(&link, "good"));
            }
        });
        sandbox.signal("go");
        daemon.wait_for(&["run ended", "task=t"]);
        over.store(true, Ordering::Relaxed);
    });
    assert!(!sandbox.path("won").exists(), "the other program was run");
    let refused = daemon.lines(&["error", "current/tool", "changed"]).len();
    let ran = daemon.lines(&["task=t", "| won"]).len();
    assert!(ran > 0 && refused > 0, "the program ran {ran} times and was refused {refused} times");
}

#[test]
fn a_command_has_the_path_and_the_name_by_which_it_was_called() {
    let sandbox = Sandbox::new();
    copy("/bin/cat", &sandbox.path("bin/tool"));
    copy("/bin/readlink", &sandbox.path("files/tool-1.0"));
    symlink("../files/tool-1.0", sandbox.path("bin/linked")).expect("a link");
    sandbox.script("bin/script", "#!/bin/sh\necho called $0 >> ~/script\ncat /proc/$$/comm >> ~/script\n");
    let daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    steps:
      - [tool, /proc/self/cmdline]
      - [linked, /proc/self/exe]
      - [script]
"#,
    );
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    daemon.wait_for(&["step=tool", "| tool\\x00/proc/self/cmdline\\x00"]);
    daemon.wait_for(&["step=linked", &format!("| {}", sandbox.path("files/tool-1.0").display())]);
    assert_eq!(sandbox.read("script"), format!("called {}\nscript\n", sandbox.path("bin/script").display()));
}

#[test]
fn a_program_that_can_be_executed_but_not_read_runs() {
    let sandbox = Sandbox::new();
    copy("/bin/echo", &sandbox.path("bin/tool"));
    fs::set_permissions(sandbox.path("bin/tool"), fs::Permissions::from_mode(0o111)).expect("a mode");
    let daemon = sandbox.daemon("tasks: [{name: t, schedule: \"@start\", command: [tool, it, runs]}]");
    daemon.wait_for(&["task=t", "| it runs"]);
}

/// The link is called restic, the file that it leads to is not, and the process is named after the file.
#[test]
fn a_restic_by_the_name_of_its_link_is_left_its_helpers() {
    let sandbox = Sandbox::new();
    copy("/bin/sh", &sandbox.path("files/restic_0.18_linux"));
    symlink("../files/restic_0.18_linux", sandbox.path("bin/restic")).expect("a link");
    sandbox.script(
        "bin/helper",
        "#!/bin/sh\ntrap 'echo helper >> ~/order; exit' TERM\ntouch ~/ready\nwhile :; do sleep 0.02; done\n",
    );
    let daemon = sandbox.daemon(
        r#"
tasks:
  - name: t
    schedule: "@start"
    stop_signal: TERM
    command: [restic, -c, 'trap "echo restic >> ~/order; sleep 0.5; echo restic ends >> ~/order; exit" TERM; helper & wait']
"#,
    );
    sandbox.await_file("ready");
    let mut stop = sandbox.backupnizza(["stop", "t"]);
    stop.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(stop).expect(0);
    daemon.wait_for(&["run ended", "task=t", "stopped"]);
    assert_eq!(sandbox.read("order"), "restic\nrestic ends\nhelper\n");
}

/// Its group is the owner's own, but the permission of that group is the limit of all whom the list names.
#[test]
fn others_whom_an_access_list_lets_write_a_program_are_told_of() {
    if !needs("setfacl") {
        return;
    }
    let sandbox = Sandbox::new();
    let tool = sandbox.script("bin/tool", "#!/bin/sh\n");
    let mut list = sandbox.command("setfacl");
    list.args(["-m", "u:12345:rwx"]).arg(&tool);
    if finish(list).status != 0 {
        return not_tested("the temporary folder's file system has no access lists");
    }
    sandbox.config("tasks: [{name: t, schedule: \"@daily\", command: [tool]}]");
    let checked = finish(sandbox.backupnizza(["check", "backup.yaml"])).expect(0);
    assert!(checked.stderr.contains("bin/tool: writable by its group"), "{}", checked.stderr);
    assert!(checked.stderr.contains("by others that its access list names"), "{}", checked.stderr);
}
