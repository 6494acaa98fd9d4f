//! What only the inside of a process shows: where else in its memory an answer stands. What
//! sources give and say is tested from outside, in tests/it/source.rs.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::{Backoff, Surroundings, Variables, ask};
use crate::plan::{ProgramId, SecretSpec, Source};
use crate::secret::{Protection, protect};

/// Names the kind of source that the test `asked` asks, in a process of its own.
const KIND: &str = "BACKUPNIZZA_TEST_SOURCE";

/// The file that holds the value.
const KEY: &str = "BACKUPNIZZA_TEST_KEY";

const NEEDLE: &str = "a-needle-in-a-haystack";

/// The same from its end, so that looking for it does not put it into memory.
const BACKWARDS: &[u8] = b"kcatsyah-a-ni-eldeen-a";

/// A file with the value, removed when the test is over.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new() -> KeyFile {
        let path = std::env::temp_dir().join(format!("backupnizza-key-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| writeln!(file, "{NEEDLE}")).expect("a file");
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The command line of the process that runs `asked`.
fn asking_process() -> Vec<OsString> {
    let this = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "source::tests::asked", "--ignored", "--nocapture", "--quiet"];
    [this.into_os_string()].into_iter().chain(arguments.map(OsString::from)).collect()
}

/// Asks a source and says how often the answer stands in the memory of this process.
#[test]
#[ignore = "the process that other tests start"]
fn asked() {
    let key = PathBuf::from(std::env::var_os(KEY).expect("a file"));
    let source = match std::env::var(KIND).expect("a kind").as_str() {
        "command" => {
            let arguments = vec![key.to_str().expect("a path").to_owned()];
            Source::Command { program: ProgramId::any(), arguments }
        }
        "file" => Source::File(key),
        "prompt" => Source::Prompt("Passphrase: ".to_owned()),
        kind => unreachable!("a source: {kind}"),
    };
    let spec = SecretSpec { name: "vault".to_owned(), source, timeout: Some(Duration::from_secs(60)) };
    let arena = protect(Protection::Locked).expect("locked memory").arena;
    let around = Surroundings { variables: &Variables::default(), credentials: None, stop: &AtomicBool::new(false) };
    let answer = ask(&spec, Some(Path::new("/bin/cat")), &around, arena).expect("an answer");
    let copies = copies_in_memory(BACKWARDS);
    let is_right = answer.secret.expose() == NEEDLE.as_bytes();
    writeln!(io::stdout(), "\ncopies: {copies}, right: {is_right}").expect("standard output");
}

/// How often a text stands in this process's writable memory.
fn copies_in_memory(backwards: &[u8]) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("own maps");
    let memory = fs::File::open("/proc/self/mem").expect("own memory");
    let mut page = [0; 4096];
    let mut copies = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        for address in (from..to).step_by(page.len()) {
            if memory.read_exact_at(&mut page, address).is_ok() {
                copies += page.windows(backwards.len()).filter(|text| text.iter().rev().eq(backwards)).count();
                page.fill(0);
            }
        }
    }
    copies
}

fn assert_one_copy(output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("copies: 1, right: true"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_answer_stands_in_protected_memory_and_nowhere_else() {
    let key = KeyFile::new();
    let process = asking_process();
    for kind in ["command", "file"] {
        let mut asking = Command::new(&process[0]);
        asking.args(&process[1..]).env(KIND, kind).env(KEY, &key.0);
        assert_one_copy(&asking.output().expect("this program"));
    }
    // Typed on a terminal; where there is no Python, tests/it/source.rs says so.
    let mut driver = Command::new("python3");
    driver.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py"));
    driver.args(["expect", "Passphrase: ", "type", &format!("{NEEDLE}^M"), "ended", "0", "--"]).args(&process);
    match driver.env(KIND, "prompt").env(KEY, &key.0).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        output => assert_one_copy(&output.expect("python3")),
    }
}

#[test]
fn what_is_unavailable_is_asked_for_again_after_10_s_doubling_to_10_min() {
    let mut backoff = Backoff::new();
    let delays: Vec<u64> = (0..9).map(|_| backoff.after_failure().as_secs()).collect();
    assert_eq!(delays, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
}
