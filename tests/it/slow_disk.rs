//! A disk that takes for ever holds up what must be written to it, and nothing else.
//!
//! A small filesystem is frozen, as a disk that hangs looks to those who write to it; only root may.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Finished, Running, Sandbox, cannot_test, eventually, finish, needs, running};

/// A filesystem in a file, mounted for one test.
struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    fn mount(sandbox: &Sandbox) -> Option<Disk> {
        if !needs("mkfs.ext4") || !needs("fsfreeze") {
            return None;
        }
        let disk = Disk { image: sandbox.path("disk.img"), folder: sandbox.path("disk") };
        fs::create_dir(&disk.folder).expect("a folder");
        let image = fs::File::create(&disk.image).and_then(|file| file.set_len(8 << 20));
        image.expect("room for an image");
        assert!(run("mkfs.ext4", &["-q".as_ref(), &disk.image]), "no filesystem");
        if !run("mount", &["-o".as_ref(), "loop".as_ref(), &disk.image, &disk.folder]) {
            cannot_test("this user may not mount a filesystem");
            return None;
        }
        Some(disk)
    }

    fn freeze(&self) {
        assert!(run("fsfreeze", &["--freeze".as_ref(), &self.folder]), "it cannot be frozen");
    }

    fn thaw(&self) -> bool {
        run("fsfreeze", &["--unfreeze".as_ref(), &self.folder])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["--lazy".as_ref(), &self.folder]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn ask(sandbox: &Sandbox, arguments: &[&str]) -> Finished {
    let mut command = sandbox.backupnizza(arguments.iter().copied());
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(command)
}

#[test]
fn a_disk_that_hangs_holds_up_neither_answers_nor_secrets_nor_runs_that_run() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(&sandbox) else { return };
    sandbox.write("key", "correct horse battery staple");
    let mut daemon = sandbox.daemon(
        r#"
state_dir: ~/disk/state
secrets: [{name: vault, file: ~/key}]
tasks:
  - name: running
    schedule: "@start"
    environment: {ASK: {secret: vault, as: command}}
    command: [sh, -c, "touch ~/begun; await ~/go; eval \"$ASK\" > ~/redeemed; touch ~/done"]
  - name: waiting
    schedule: "@yearly"
    command: [touch, ~/started]
"#,
    );
    sandbox.await_file("begun");
    disk.freeze();
    ask(&sandbox, &["run", "waiting", "--detach"]).expect(0);
    eventually("the run to wait for the ledger", || {
        let status = ask(&sandbox, &["status", "--json"]).expect(0).stdout();
        status.contains("the ledger").then_some(())
    });
    ask(&sandbox, &["history"]).expect(0);
    sandbox.signal("go");
    sandbox.await_file("done");
    assert_eq!(sandbox.read("redeemed"), "correct horse battery staple");
    assert!(!sandbox.path("started").exists(), "no run starts before the ledger has it");
    assert!(disk.thaw());
    sandbox.await_file("started");
    daemon.wait_for_end("running");
    daemon.wait_for_end("waiting");
    daemon.stop();
}

fn follow(sandbox: &Sandbox, arguments: &[&str]) -> Running {
    let mut command = sandbox.backupnizza(arguments.iter().copied());
    command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    running(&mut command)
}

#[test]
fn who_asks_for_a_run_after_a_stop_follows_the_next_one() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(&sandbox) else { return };
    let mut daemon = sandbox.daemon(
        "state_dir: ~/disk/state\ntasks: [{name: t, schedule: \"@yearly\", command: [echo, I am the second]}]\n",
    );
    disk.freeze();
    let state = |wanted: &str| {
        eventually(wanted, || ask(&sandbox, &["status", "--json"]).expect(0).stdout().contains(wanted).then_some(()));
    };
    let first = follow(&sandbox, &["run", "t"]);
    state("the ledger");
    let stop = follow(&sandbox, &["stop", "t"]);
    state("\"state\":\"idle\"");
    let second = follow(&sandbox, &["run", "t"]);
    state("the ledger");
    assert!(disk.thaw());
    let first = first.finish().expect(1);
    assert!(first.stderr.contains("stopped"), "{}", first.stderr);
    stop.finish().expect(0);
    let second = second.finish().expect(0);
    assert_eq!(second.stdout(), "I am the second\n", "{}", second.stderr);
    daemon.stop();
}
