//! Looking through a process's memory, or a file, for secrets and any 16 bytes in a row of them.
//! The thief does it, because it is faster.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::text;
use crate::harness::{Sandbox, finish};

/// What to look for.
pub struct Needles<'a> {
    thief: &'a Path,
    /// Their texts, for the thief.
    file: PathBuf,
}

/// What was found: names of texts, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub outside: Vec<String>,
    /// In locked memory.
    pub locked: Vec<String>,
}

impl<'a> Needles<'a> {
    /// Texts under names without blanks.
    pub fn new<'t>(
        sandbox: &Sandbox,
        thief: &'a Path,
        texts: impl IntoIterator<Item = (&'t str, &'t [u8])>,
    ) -> Needles<'a> {
        let record =
            |(name, text): (&str, &[u8])| [format!("{name} {}\n", text.len()).as_bytes(), text, b"\n"].concat();
        let file = sandbox.write("needles", texts.into_iter().flat_map(record).collect::<Vec<u8>>());
        Needles { thief, file }
    }

    /// Looks through all that can be read of the memory of process `pid`. To be called as root.
    pub fn find_in_process(&self, pid: u32) -> Found {
        self.find("scan", &pid.to_string())
    }

    pub fn find_in_file(&self, file: &Path) -> Found {
        self.find("scan-file", text(file))
    }

    fn find(&self, what: &str, object: &str) -> Found {
        let mut thief = Command::new(self.thief);
        thief.arg(what).arg(object).arg(&self.file);
        let said = finish(thief).expect(0).stdout();
        let lines = |begin: &str| said.lines().filter_map(|line| line.strip_prefix(begin)).map(str::to_owned).collect();
        let bytes: Vec<String> = lines("bytes ");
        assert!(bytes.len() == 1 && bytes[0].parse().is_ok_and(|bytes: usize| bytes > 100_000), "read little: {said}");
        Found { outside: lines("outside "), locked: lines("locked ") }
    }
}
