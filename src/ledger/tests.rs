//! The ledger on real files: what is written comes back, and what is broken is told from what is torn.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::outcome::{Outcome, RunId, SkipReason};

/// A folder that is gone after its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("backupnizza-ledger-{}-{count}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }

    fn ledger(&self) -> PathBuf {
        self.0.join(NAME)
    }

    /// As a daemon begins with it.
    fn open(&self) -> (Ledger, Vec<Notice>) {
        let (ledger, notices) = self.open_uncompacted();
        // A full disk is no obstacle.
        let _ = ledger.compact();
        (ledger, notices)
    }

    fn open_uncompacted(&self) -> (Ledger, Vec<Notice>) {
        Ledger::open(&self.0, at(1_000_000)).expect("it opens")
    }

    /// The files that were set aside.
    fn aside(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).expect("a folder").flatten().map(|entry| entry.path());
        files.filter(|path| path.to_string_lossy().contains("ledger.damaged-")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
}

fn task(name: &str) -> Record {
    Record::Task { task: name.to_string(), schedule: 7, wall: at(0) }
}

fn started(run: u64, name: &str, slot: i64) -> Record {
    let started = Started { task: name.to_string(), slot: at(slot), cause: Cause::Slot, wall: at(slot + 1) };
    Record::Started { run: RunId(run), started }
}

fn ended(run: u64, wall: i64, outcome: Outcome) -> Record {
    Record::Ended {
        run: RunId(run),
        outcome,
        exit_code: Some(3),
        wall: at(wall),
        took: Some(Duration::from_millis(1_500)),
        attempts: 2,
        cut: false,
    }
}

fn session(run: u64, pid: i32) -> Record {
    let boot = "b00t".to_string();
    Record::Session(Session { run: Some(RunId(run)), task: "documents".to_string(), pid, start: 99, boot })
}

/// Batches of records of every kind.
fn batches() -> Vec<Vec<Record>> {
    let name = "documents".to_string();
    let due = Due { slot: at(300), cause: Cause::Missed, since: at(360) };
    let skipped = Outcome::Skipped(SkipReason::Overlap);
    let not_run =
        Record::NotRun { task: name.clone(), slot: at(200), cause: Cause::Slot, wall: at(201), outcome: skipped };
    vec![
        vec![task("documents"), task("photos"), task("gone"), Record::Begun { boot: "b00t".into(), wall: at(0) }],
        vec![started(1, "documents", 100), started(2, "photos", 100)],
        vec![not_run, ended(1, 210, Outcome::Warning)],
        vec![Record::Due { task: name, due }],
        vec![ended(2, 220, Outcome::Success), started(3, "photos", 400), started(4, "documents", 400)],
        vec![Record::Withdrawn { run: RunId(4) }, Record::Gone { task: "gone".to_string() }],
    ]
}

/// A ledger with all of them, and its state.
fn filled(folder: &Folder) -> State {
    let (ledger, notices) = folder.open();
    assert_eq!(notices, []);
    for batch in batches() {
        ledger.append(&batch).expect("it is written");
    }
    ledger.append_unsynced(&[session(3, 77), session(3, 78)]).expect("it is written");
    ledger.append_unsynced(&[Record::SessionEnded { pid: 77, start: 99 }]).expect("it is written");
    ledger.state().clone()
}

#[test]
fn what_is_appended_comes_back() {
    let folder = Folder::new();
    let state = filled(&folder);
    assert_eq!(state.next_run, 5);
    assert_eq!(state.running.keys().copied().collect::<Vec<_>>(), [RunId(3)]);
    assert_eq!(state.sessions.iter().map(|session| session.pid).collect::<Vec<_>>(), [78]);
    assert_eq!(state.tasks["photos"].last_success, Some(at(220)));
    assert_eq!(state.tasks["documents"].due.as_ref().map(|due| due.slot), Some(at(400)));
    assert_eq!(state.tasks["gone"].schedule, None);
    assert_eq!(state.history(None).len(), 3);
    assert_eq!(read(&folder.0), Ok(state.clone()), "by a reader beside the daemon");
    let (ledger, notices) = folder.open();
    assert_eq!((ledger.state().clone(), notices), (state.clone(), vec![]), "by the next daemon");
    let (ledger, notices) = folder.open();
    assert_eq!((ledger.state().clone(), notices), (state.clone(), vec![]), "from the snapshot");
    let mode = fs::metadata(folder.ledger()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_tail_torn_at_any_byte_costs_only_the_last_records() {
    let folder = Folder::new();
    drop(folder.open());
    let empty = fs::read(folder.ledger()).expect("it is there").len();
    let mut states = vec![State::default()];
    for record in batches().concat() {
        let mut state = states.last().expect("one").clone();
        state.apply(&record);
        states.push(state);
    }
    let (ledger, _) = folder.open();
    for batch in batches() {
        ledger.append(&batch).expect("it is written");
    }
    let bytes = fs::read(folder.ledger()).expect("it is there");
    for length in empty..bytes.len() {
        fs::write(folder.ledger(), &bytes[..length]).expect("it is written");
        let whole = bytes[empty..length].iter().filter(|byte| **byte == b'\n').count();
        let torn = (bytes[..length].last() != Some(&b'\n')).then(|| {
            let line = bytes[..length].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            Notice::TornTail { bytes: (length - line) as u64 }
        });
        let (ledger, notices) = folder.open();
        assert_eq!(*ledger.state(), states[whole], "torn at {length}");
        assert_eq!(notices, torn.into_iter().collect::<Vec<_>>());
        ledger.append(&[started(9, "photos", 900)]).expect("it is written");
        assert!(folder.open().0.state().running.contains_key(&RunId(9)));
    }
    assert_eq!(folder.aside(), [""; 0].map(PathBuf::from));
}

#[test]
fn what_was_torn_is_cut_away_before_anything_is_written_behind_it() {
    let folder = Folder::new();
    let state = filled(&folder);
    let mut bytes = fs::read(folder.ledger()).expect("it is there");
    bytes.extend(b"half a rec");
    fs::write(folder.ledger(), &bytes).expect("it is written");
    let (ledger, _) = folder.open_uncompacted();
    assert_eq!(*ledger.state(), state);
    ledger.append(&[task("new")]).expect("it is written");
    let (again, notices) = folder.open_uncompacted();
    assert_eq!(notices, []);
    assert!(again.state().tasks.contains_key("new"));
}

#[test]
fn a_zeroed_tail_is_torn() {
    let folder = Folder::new();
    let state = filled(&folder);
    let mut bytes = fs::read(folder.ledger()).expect("it is there");
    bytes.extend([0; 5_000]);
    fs::write(folder.ledger(), &bytes).expect("it is written");
    let (ledger, notices) = folder.open();
    assert_eq!(*ledger.state(), state);
    assert_eq!(notices, [Notice::TornTail { bytes: 5_000 }]);
}

#[test]
fn a_batch_that_was_never_synced_may_lose_its_first_lines() {
    let folder = Folder::new();
    let (ledger, _) = folder.open();
    ledger.append(&[task("documents")]).expect("it is written");
    let state = ledger.state().clone();
    let before = fs::read(folder.ledger()).expect("it is there").len();
    ledger.append(&[started(1, "documents", 1), started(2, "documents", 2)]).expect("it is written");
    let mut bytes = fs::read(folder.ledger()).expect("it is there");
    bytes[before..before + 20].fill(0);
    fs::write(folder.ledger(), &bytes).expect("it is written");
    let (ledger, notices) = folder.open();
    assert_eq!(*ledger.state(), state);
    assert!(matches!(&notices[..], [Notice::SetAside { kept: true, .. }]), "{notices:?}");
    assert_eq!(fs::read(&folder.aside()[0]).expect("it is there"), bytes);
}

#[test]
fn damage_at_any_byte_is_set_aside_or_torn_and_never_believed() {
    let folder = Folder::new();
    filled(&folder);
    let bytes = fs::read(folder.ledger()).expect("it is there");
    let lines: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    let last_epoch = lines[lines.len() - 4];
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x15;
        let folder = Folder::new();
        fs::write(folder.ledger(), &damaged).expect("it is written");
        let (ledger, notices) = folder.open();
        let Notice::SetAside { path, kept, .. } = &notices[0] else {
            assert!(place > last_epoch, "byte {place}: {notices:?}");
            continue;
        };
        // The line end between the last two epochs belongs to either.
        assert!(*kept == (place > last_epoch) || place == last_epoch, "byte {place}");
        assert_eq!(fs::read(path).expect("it is there"), damaged);
        assert!(ledger.state().next_run >= 5, "byte {place}: run ids are never given twice");
        if !kept {
            assert!(ledger.state().tasks.values().all(|task| task.schedule.is_none() && task.due.is_none()));
        }
        ledger.append(&[task("documents")]).expect("it goes on");
    }
}

#[test]
fn a_line_that_is_missing_or_stands_there_twice_is_damage() {
    let folder = Folder::new();
    filled(&folder);
    let text = fs::read_to_string(folder.ledger()).expect("it is there");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let epoch = |line: &&str| line.split(' ').nth(1).expect("a place").split_once('.').expect("a place").0.to_string();
    for number in 0..lines.len() {
        let without = [&lines[..number], &lines[number + 1..]].concat();
        let twice = [&lines[..=number], &lines[number..]].concat();
        // Of the last of several of an epoch, or of the file, nobody knows that it was there.
        let own = epoch(&lines[number]);
        let follows = lines.get(number + 1).is_some_and(|next| epoch(next) == own);
        let precedes = number > 0 && epoch(&lines[number - 1]) == own;
        let is_last = number + 1 == lines.len();
        let is_missed = follows || own == "0" || !precedes && !is_last;
        for (changed, is_known) in [(without, is_missed), (twice, true)] {
            let folder = Folder::new();
            fs::write(folder.ledger(), changed.concat()).expect("it is written");
            let (_, notices) = folder.open();
            let is_told = matches!(&notices[..], [Notice::SetAside { .. }]);
            assert_eq!(is_told, is_known, "line {number}: {notices:?}");
        }
    }
}

#[test]
fn what_is_no_ledger_is_set_aside_and_never_overwritten() {
    let contents: [&[u8]; 4] = [b"", b"\n", b"something else\n", &[0; 10_000]];
    for content in contents {
        let folder = Folder::new();
        fs::write(folder.ledger(), content).expect("it is written");
        let (ledger, notices) = folder.open();
        assert!(matches!(&notices[..], [Notice::SetAside { kept: false, .. }]), "{notices:?}");
        assert_eq!(fs::read(&folder.aside()[0]).expect("it is there"), content);
        ledger.append(&[task("documents")]).expect("it goes on");
        fs::write(folder.ledger(), content).expect("it is written");
        drop(folder.open());
        assert_eq!(folder.aside().len(), 2, "in the same second too");
    }
    let folder = Folder::new();
    fs::create_dir(folder.ledger()).expect("a folder");
    assert!(matches!(&folder.open().1[..], [Notice::SetAside { .. }]));
    let folder = Folder::new();
    std::os::unix::fs::symlink("/dev/full", folder.ledger()).expect("a link");
    assert!(matches!(&folder.open().1[..], [Notice::SetAside { .. }]));
    let message = folder.open().1.iter().map(Notice::to_string).collect::<String>();
    assert_eq!(message, "", "once is enough");
}

#[test]
fn the_ledger_is_compacted_while_it_grows() {
    let folder = Folder::new();
    let (ledger, _) = folder.open();
    ledger.append(&[task("documents")]).expect("it is written");
    ledger.disk().compact_at = 20_000;
    for run in 1..500_u64 {
        ledger.append(&[started(run, "documents", run as i64)]).expect("it is written");
        ledger.append(&[ended(run, run as i64, Outcome::Success)]).expect("it is written");
        ledger.disk().compact_at = 40_000;
    }
    assert!(ledger.disk().length < 50_000, "{} bytes", ledger.disk().length);
    assert_eq!(ledger.state().history(None).len(), 100);
    assert_eq!(ledger.state().next_run, 500);
    let state = ledger.state().clone();
    assert_eq!(*folder.open().0.state(), state);
}

#[test]
fn slots_handled_before_the_clock_was_corrected_are_remembered() {
    let mut state = State::default();
    state.apply(&task("documents"));
    state.apply(&started(1, "documents", 1_000_000));
    state.apply(&started(2, "documents", 100));
    let documents = &state.tasks["documents"];
    assert_eq!((documents.last_slot, documents.before_correction), (at(100), Some(at(1_000_000))));
    state.apply(&started(3, "documents", 1_000_100));
    let documents = &state.tasks["documents"];
    assert_eq!((documents.last_slot, documents.before_correction), (at(1_000_100), None));
}

#[test]
fn a_due_run_that_starts_late_does_not_bring_its_old_slot_back() {
    let mut state = State::default();
    state.apply(&task("documents"));
    let due = Due { slot: at(100), cause: Cause::Slot, since: at(100) };
    state.apply(&Record::Due { task: "documents".to_string(), due });
    state.apply(&Record::NotRun {
        task: "documents".to_string(),
        slot: at(90_000),
        cause: Cause::Missed,
        wall: at(91_000),
        outcome: Outcome::Skipped(SkipReason::Missed),
    });
    assert!(state.tasks["documents"].due.is_some());
    state.apply(&started(1, "documents", 100));
    assert_eq!(state.tasks["documents"].last_slot, at(90_000));
    assert_eq!(state.tasks["documents"].before_correction, None);
}

/// A file system of 64 KiB, where the user may mount one.
struct SmallDisk(Folder);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = Folder::new();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&folder.0);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0.0).output();
    }
}

#[test]
fn a_full_disk_is_an_error_that_harms_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = &disk.0;
    let (ledger, _) = folder.open();
    ledger.append(&[task("documents")]).expect("it is written");
    let filler = folder.0.join("filler");
    let mut written = 0;
    for run in 1..2_000 {
        if run == 20 {
            // Until not one page is left.
            let _ = fs::write(&filler, vec![1; 64 * 1024]);
        }
        match ledger.append(&[started(run, "documents", run as i64)]) {
            Ok(()) => written = run,
            Err(_) => break,
        }
    }
    assert!((19..1_999).contains(&written), "the disk was full after {written}");
    assert_eq!(ledger.state().next_run, written + 1);
    assert!(ledger.append(&[started(5_000, "documents", 5_000)]).is_err());
    let state = ledger.state().clone();
    drop(ledger);
    let (ledger, notices) = folder.open();
    assert_eq!(*ledger.state(), state);
    assert_eq!(notices, []);
    assert!(ledger.compact().is_err());
    assert!(ledger.append(&vec![ended(1, 1, Outcome::Success); 100]).is_err());
    fs::remove_file(&filler).expect("there is room again");
    ledger.append(&[started(6_000, "documents", 6_000)]).expect("it is written");
    let state = ledger.state().clone();
    let (ledger, notices) = folder.open();
    assert_eq!((ledger.state().clone(), notices), (state.clone(), vec![]));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_waited_for() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = &disk.0;
    let filler = folder.0.join("filler");
    let _ = fs::write(&filler, vec![1; 64 * 1024]);
    let (ledger, notices) = folder.open();
    assert_eq!(notices, []);
    assert!(ledger.compact().is_err());
    assert!(ledger.append(&[task("documents")]).is_err());
    fs::remove_file(&filler).expect("there is room again");
    ledger.append(&[task("documents")]).expect("it is written");
    assert!(folder.open().0.state().tasks.contains_key("documents"));
}
