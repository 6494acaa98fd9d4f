//! The place of the sockets: never open to others, not even for a moment, and never one that others
//! could have prepared.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::text;
use crate::harness::{Daemon, Sandbox, eventually, finish, is_root};

const CONFIG: &str = "secretbox: {socket: ~/made/deeper/socket}\ntasks: [{name: t, command: ['true']}]\n";

/// The modes that were seen at `path` until `over`.
fn modes_seen(path: PathBuf, over: &AtomicBool) -> Vec<u32> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if let Ok(about) = fs::symlink_metadata(&path)
            && !seen.contains(&about.mode())
        {
            seen.push(about.mode());
        }
    }
    seen
}

#[test]
fn sockets_and_their_folder_are_never_open_to_others() {
    let sandbox = Sandbox::new();
    sandbox.config(CONFIG);
    for _ in 0..10 {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watched = ["made", "made/deeper", "made/deeper/socket", "made/deeper/socket.control"];
            let watchers = watched.map(|name| {
                let (path, over) = (sandbox.path(name), &over);
                scope.spawn(move || modes_seen(path, over))
            });
            let mut command = sandbox.command("sh");
            command.args(["-c", "umask 0; exec \"$0\" backup.yaml", text(sandbox.program())]);
            let mut daemon = Daemon::start(command);
            let is_there = sandbox.path("made/deeper/socket.control").exists();
            eventually("the sockets", || {
                (is_there || sandbox.path("made/deeper/socket.control").exists() || !daemon.is_running()).then_some(())
            });
            over.store(true, Ordering::Relaxed);
            for (watcher, name) in watchers.into_iter().zip(watched) {
                for mode in watcher.join().expect("a watcher") {
                    assert_eq!(mode & 0o077, 0, "{name} was open: {mode:o}\n{}", daemon.log());
                }
            }
            daemon.wait_for(&["ready", "tasks="]);
            let mode = |name: &str| fs::metadata(sandbox.path(name)).expect("to be there").mode() & 0o7777;
            assert_eq!(watched.map(mode), [0o700, 0o700, 0o600, 0o600]);
            daemon.stop();
        });
        fs::remove_dir_all(sandbox.path("made")).expect("the folder");
    }
}

#[test]
fn a_folder_that_others_prepared_is_refused() {
    let refused = |prepare: &dyn Fn(&Sandbox), why: &str| {
        let sandbox = Sandbox::new();
        sandbox.write("made/deeper/other", "");
        prepare(&sandbox);
        sandbox.config(CONFIG);
        let said = finish(sandbox.backupnizza(["backup.yaml"])).expect(1);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert!(!sandbox.path("made/deeper/socket").exists());
    };
    let mode = |name: &'static str, mode| {
        move |sandbox: &Sandbox| {
            fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(mode)).expect("its mode");
        }
    };
    refused(&mode("made/deeper", 0o702), "deeper: writable by others");
    refused(&mode("made/deeper", 0o720), "deeper: writable by others");
    refused(&mode("made/deeper", 0o1777), "deeper: writable by others");
    refused(&mode("made", 0o702), "made: writable by everyone");
    let link = |sandbox: &Sandbox| {
        fs::rename(sandbox.path("made/deeper"), sandbox.path("elsewhere")).expect("to be moved");
        symlink(sandbox.path("elsewhere"), sandbox.path("made/deeper")).expect("a link");
    };
    refused(&link, "deeper: not a folder");
    let file = |sandbox: &Sandbox| {
        fs::remove_dir_all(sandbox.path("made/deeper")).expect("to be removed");
        sandbox.write("made/deeper", "");
    };
    refused(&file, "made/deeper: ");
    if is_root() {
        let give = |name: &'static str| {
            move |sandbox: &Sandbox| chown(sandbox.path(name), Some(12_345), None).expect("another user's")
        };
        refused(&give("made/deeper"), "deeper: belongs to another user");
        refused(&give("made"), "made: belongs to uid 12345");
    }
}
