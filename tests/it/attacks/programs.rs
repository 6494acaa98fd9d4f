//! Whoever exchanges a program, in whichever way, gets no secret. Upgrades in the usual ways run: at once
//! where only root could make them, else once somebody has said that they were meant.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::{SECRET, text};
use crate::harness::{Daemon, Finished, Sandbox, finish, needs, needs_root};

/// Two tools of the same length: the one that is trusted, and the thief's.
const TOOL: &str = "#!/bin/sh\ncat > ~/ran.....\n";
const THIEF: &str = "#!/bin/sh\ncat > ~/stolen..\n";

fn config(program: &str) -> String {
    format!(
        "secrets: [{{name: vault, file: ~/vault}}]\ntasks: [{{name: t, command: ['{program}'], stdin: {{secret: vault}}}}]\n"
    )
}

fn ask(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let mut command = sandbox.backupnizza(arguments.iter().copied());
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command)
}

fn executable(path: &Path, contents: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, contents).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Points the link at `path` to `target`, in one piece as package managers do.
fn turn(path: &Path, target: impl AsRef<Path>) {
    let new = path.with_extension("new");
    symlink(target, &new).and_then(|()| fs::rename(&new, path)).expect("a link");
}

/// Runs the good tool once, lets `swap` exchange something, and runs it again: in vain.
fn assert_noticed(way: &str, program: &str, prepare: impl Fn(&Sandbox), swap: impl Fn(&Sandbox)) {
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    prepare(&sandbox);
    let daemon = sandbox.daemon(&config(program));
    ask(&sandbox, &["run", "t"]).expect(0);
    assert_eq!(sandbox.read("ran....."), SECRET, "{way}");
    fs::remove_file(sandbox.path("ran.....")).expect("what the tool made");
    swap(&sandbox);
    ask(&sandbox, &["run", "t"]).expect(1);
    daemon.wait_for(&["error", "task=t", "changed"]);
    for name in ["stolen..", "ran....."] {
        assert!(!sandbox.path(name).exists(), "{way}: {name}\n{}", daemon.log());
    }
}

#[test]
fn a_program_that_is_exchanged_gets_no_secret_in_whichever_way() {
    let tool = |sandbox: &Sandbox| drop(sandbox.script("bin/tool", TOOL));
    assert_noticed("replaced by rename", "tool", tool, |sandbox| {
        sandbox.script("new", THIEF);
        fs::rename(sandbox.path("new"), sandbox.path("bin/tool")).expect("to be replaced");
    });
    assert_noticed("edited in place, its time set back", "tool", tool, |sandbox| {
        let modified = fs::metadata(sandbox.path("bin/tool")).and_then(|about| about.modified()).expect("its time");
        fs::write(sandbox.path("bin/tool"), THIEF).expect("to be edited");
        set_time(&sandbox.path("bin/tool"), modified);
    });
    let linked = |sandbox: &Sandbox| {
        executable(&sandbox.path("one/tool"), TOOL);
        executable(&sandbox.path("two/tool"), THIEF);
        symlink("../one/tool", sandbox.path("bin/tool")).expect("a link");
    };
    assert_noticed("another file behind a link", "tool", linked, |sandbox| {
        turn(&sandbox.path("bin/tool"), "../two/tool");
    });
    assert_noticed("another folder", "~/one/tool", linked, |sandbox| {
        fs::rename(sandbox.path("one"), sandbox.path("old")).expect("to be moved");
        fs::rename(sandbox.path("two"), sandbox.path("one")).expect("to be moved");
    });
    let interpreted = |sandbox: &Sandbox| {
        let shell = sandbox.path("shell");
        // A blank would end the name behind `#!`, so it is found through env.
        let copied = Command::new("cp").arg("/bin/sh").arg(&shell).status();
        assert!(copied.is_ok_and(|status| status.success()), "an interpreter");
        fs::rename(&shell, sandbox.path("bin/interpreter")).expect("an interpreter");
        sandbox.script("bin/tool", "#!/usr/bin/env interpreter\ncat > ~/ran.....\n");
    };
    assert_noticed("the interpreter of a script", "tool", interpreted, |sandbox| {
        sandbox.script("new", "#!/bin/sh\ncat > ~/stolen..\n");
        fs::rename(sandbox.path("new"), sandbox.path("bin/interpreter")).expect("to be replaced");
    });
    assert_noticed(
        "a link on the way",
        "~/link/tool",
        |sandbox| {
            linked(sandbox);
            symlink("one", sandbox.path("link")).expect("a link");
        },
        |sandbox| turn(&sandbox.path("link"), "two"),
    );
}

fn set_time(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("the file");
    file.set_modified(time).expect("its time");
}

/// Something mounted, until this is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_program_that_is_covered_by_a_mount_gets_no_secret() {
    if !needs_root() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("vault", SECRET);
    let tool = sandbox.script("bin/tool", TOOL);
    let thief = sandbox.script("thief", THIEF);
    let daemon = sandbox.daemon(&config("tool"));
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(thief).arg(&tool);
    finish(mount).expect(0);
    let _mounted = Mounted(tool);
    ask(&sandbox, &["run", "t"]).expect(1);
    daemon.wait_for(&["error", "task=t", "has changed since the start"]);
    assert!(!sandbox.path("stolen..").exists(), "{}", daemon.log());
}

/// A folder that only root can change, with all above it; gone when this is dropped.
struct RootsFolder(PathBuf);

impl RootsFolder {
    fn new(name: &str) -> Option<RootsFolder> {
        if !needs_root() {
            return None;
        }
        let folder = Path::new("/opt").join(format!("backupnizza-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder of root's");
        Some(RootsFolder(folder))
    }
}

impl Drop for RootsFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn version(number: u32) -> String {
    format!("#!/bin/sh\ncat > ~/got\necho {number} > ~/version\n")
}

fn assert_ran(sandbox: &Sandbox, daemon: &Daemon, number: u32) {
    ask(sandbox, &["run", "t"]).expect(0);
    assert_eq!(sandbox.read("version"), format!("{number}\n"), "{}", daemon.log());
    assert_eq!(sandbox.read("got"), SECRET);
}

fn start(sandbox: &Sandbox, program: &Path) -> Daemon {
    sandbox.write("vault", SECRET);
    sandbox.daemon(&config(text(program)))
}

/// What only root can change may change: the run goes on, and the log tells of it.
#[test]
fn update_alternatives_and_package_upgrades_are_told_and_run() {
    if !needs("update-alternatives") {
        return;
    }
    let Some(folder) = RootsFolder::new("alternatives") else { return };
    let at = |name: &str| folder.0.join(name);
    for name in ["admin", "alternatives", "bin"] {
        fs::create_dir(at(name)).expect("a folder");
    }
    executable(&at("lib/tool-1"), &version(1));
    executable(&at("lib/tool-2"), &version(2));
    let alternatives = |arguments: &[&str]| {
        let mut command = Command::new("update-alternatives");
        command.arg("--altdir").arg(at("alternatives")).arg("--admindir").arg(at("admin"));
        finish({
            command.args(arguments);
            command
        })
        .expect(0);
    };
    let (link, first, second) = (at("bin/tool"), at("lib/tool-1"), at("lib/tool-2"));
    alternatives(&["--install", text(&link), "tool", text(&first), "20"]);
    alternatives(&["--install", text(&link), "tool", text(&second), "10"]);
    let sandbox = Sandbox::of_ordinary_user();
    let daemon = start(&sandbox, &link);
    assert_ran(&sandbox, &daemon, 1);
    alternatives(&["--set", "tool", text(&second)]);
    assert_ran(&sandbox, &daemon, 2);
    daemon.wait_for(&["warn", "has changed since the start", "only root can change it"]);
    // As dpkg does it.
    executable(&at("lib/tool-2.dpkg-new"), &version(3));
    fs::rename(at("lib/tool-2.dpkg-new"), &second).expect("to be upgraded");
    assert_ran(&sandbox, &daemon, 3);
}

/// What the user can change stops the run, until somebody says that it was meant.
fn assert_runs_after_refresh(sandbox: &Sandbox, daemon: &Daemon, number: u32) {
    ask(sandbox, &["run", "t"]).expect(1);
    let error = daemon.wait_for(&["error", "task=t", "has changed since the start"]);
    assert!(error.contains("backupnizza refresh"), "{error}");
    ask(sandbox, &["refresh"]).expect(0);
    assert_ran(sandbox, daemon, number);
}

#[test]
fn an_upgrade_by_homebrew_runs_after_a_refresh() {
    let sandbox = Sandbox::of_ordinary_user();
    let brew = sandbox.path("brew");
    let install = |number: u32| {
        let keg = format!("Cellar/tool/0.{number}");
        executable(&brew.join(&keg).join("bin/tool"), &version(number));
        fs::create_dir_all(brew.join("opt")).and_then(|()| fs::create_dir_all(brew.join("bin"))).expect("folders");
        turn(&brew.join("opt/tool"), Path::new("..").join(&keg));
        turn(&brew.join("bin/tool"), Path::new("..").join(&keg).join("bin/tool"));
        sandbox.hand_over(&brew);
    };
    install(1);
    let daemon = start(&sandbox, &brew.join("bin/tool"));
    assert_ran(&sandbox, &daemon, 1);
    install(2);
    fs::remove_dir_all(brew.join("Cellar/tool/0.1")).expect("the old one");
    assert_runs_after_refresh(&sandbox, &daemon, 2);
}

#[test]
fn a_profile_switch_of_nix_runs_after_a_refresh_if_it_is_the_users_and_at_once_if_it_is_roots() {
    let Some(folder) = RootsFolder::new("nix") else { return };
    let store = folder.0.join("store");
    for number in [1, 2] {
        executable(&store.join(format!("{number}aaa-tool/bin/tool")), &version(number));
        let environment = store.join(format!("{number}bbb-user-environment/bin"));
        fs::create_dir_all(&environment).expect("a folder");
        symlink(store.join(format!("{number}aaa-tool/bin/tool")), environment.join("tool")).expect("a link");
    }
    let switch = |profiles: &Path, number: u32| {
        fs::create_dir_all(profiles).expect("a folder");
        let generation = format!("profile-{number}-link");
        turn(&profiles.join(&generation), store.join(format!("{number}bbb-user-environment")));
        turn(&profiles.join("profile"), generation);
    };
    let sandbox = Sandbox::of_ordinary_user();
    let own = sandbox.path(".local/state/nix/profiles");
    switch(&own, 1);
    turn(&sandbox.path(".nix-profile"), own.join("profile"));
    sandbox.hand_over(&sandbox.home());
    let mut daemon = start(&sandbox, &sandbox.path(".nix-profile/bin/tool"));
    assert_ran(&sandbox, &daemon, 1);
    switch(&own, 2);
    sandbox.hand_over(&own);
    assert_runs_after_refresh(&sandbox, &daemon, 2);
    daemon.stop();

    let roots = folder.0.join("profiles");
    switch(&roots, 1);
    let sandbox = Sandbox::of_ordinary_user();
    let daemon = start(&sandbox, &roots.join("profile/bin/tool"));
    assert_ran(&sandbox, &daemon, 1);
    switch(&roots, 2);
    assert_ran(&sandbox, &daemon, 2);
    daemon.wait_for(&["warn", "has changed since the start", "only root can change it"]);
}
