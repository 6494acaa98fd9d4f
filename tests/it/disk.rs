//! A state directory without room: runs wait for it, loudly, and go on when there is room again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Sandbox, finish, not_tested};

/// A small file system of its own at `folder`, gone when this is dropped.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn at(folder: PathBuf) -> Option<SmallDisk> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "backupnizza-test"])
            .arg(&folder)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            not_tested("this user may not mount a small disk");
        }
        mounted.then_some(SmallDisk { folder })
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).expect("a file");
        while file.write_all(&[0; 4_096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("the file that takes the room");
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).output();
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn without_room_for_the_ledger_runs_wait_and_none_is_lost_or_doubled() {
    let sandbox = Sandbox::new();
    let Some(disk) = SmallDisk::at(sandbox.state_dir()) else { return };
    let mut daemon = sandbox.daemon(
        r#"
tasks:
  - {name: beat, schedule: "@every 1s", command: [sh, -c, 'echo $BACKUPNIZZA_RUN >> ~/beats']}
  - {name: asked, command: [sh, -c, 'echo $BACKUPNIZZA_RUN >> ~/asked']}
  - {name: long, schedule: "@start", command: [sh, -c, 'await ~/go']}
"#,
    );
    daemon.wait_for_lines(2, &["run ended", "task=beat ", "success"]);
    disk.fill();
    daemon.wait_for(&["error", "ledger"]);
    let mut ask = sandbox.backupnizza(["run", "asked", "--detach"]);
    ask.env("BACKUPNIZZA_SOCKET", sandbox.socket());
    finish(ask).expect(0);
    // What runs already is not held up by it.
    sandbox.signal("go");
    assert!(daemon.wait_for_end("long").contains("outcome=success"), "{}", daemon.log());
    let before = lines(&sandbox.path("beats")).len();
    daemon.wait_for(&["the ledger cannot be written, runs wait for it", "failures=2"]);
    assert!(!sandbox.path("asked").exists(), "{}", daemon.log());
    // One whose start was on disk just before may still have begun.
    assert!(lines(&sandbox.path("beats")).len() <= before + 1, "{}", daemon.log());

    disk.make_room();
    daemon.wait_for(&["the ledger can be written again"]);
    assert!(daemon.wait_for_end("asked").contains("outcome=success"), "{}", daemon.log());
    let ended = daemon.lines(&["run ended", "task=beat "]).len();
    daemon.wait_for_lines(ended + 2, &["run ended", "task=beat ", "success"]);
    daemon.stop();

    let history = finish(sandbox.backupnizza(["history", "--count", "1000", "--json"])).expect(0).stdout();
    for (task, marks) in [("beat", "beats"), ("asked", "asked")] {
        let of_task = history.lines().filter(|line| line.contains(&format!(r#""task":"{task}""#)));
        let succeeded = of_task.filter(|line| line.contains(r#""outcome":"success""#)).count();
        let marks = lines(&sandbox.path(marks));
        assert_eq!(marks.len(), succeeded, "{task}: {history}");
        assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), marks.len(), "{task} ran twice: {marks:?}");
    }
    // One whose start was written down last, but not its process, does not begin, and says so.
    let failed = history.lines().filter(|line| line.contains(r#""outcome":"failure""#)).count();
    assert!(failed <= 1 && daemon.lines(&["the ledger: ", "task=beat"]).len() >= failed, "{history}\n{}", daemon.log());
}

#[test]
fn a_daemon_that_finds_no_room_when_it_starts_waits_for_it() {
    let sandbox = Sandbox::new();
    let Some(disk) = SmallDisk::at(sandbox.state_dir()) else { return };
    disk.fill();
    let mut daemon = sandbox.daemon_unready(r#"tasks: [{name: t, schedule: "@start", command: [touch, ran]}]"#);
    daemon.wait_for(&["the ledger cannot be written, runs wait for it"]);
    assert!(!sandbox.path("ran").exists());
    disk.make_room();
    assert!(daemon.wait_for_end("t").contains("outcome=success"), "{}", daemon.log());
    assert!(sandbox.path("ran").exists());
    daemon.stop();
}
