//! The code itself: what its readers may rely on, read as text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files and folders of src. Each uses only those that stand before it, so a reader who goes
/// through them in this order never meets what has not been explained.
const ORDER: &[&str] = &[
    "testing",
    "sys",
    "error",
    "clock",
    "log",
    "socket",
    "secret",
    "schedule",
    "config",
    "program",
    "plan",
    "outcome",
    "source",
    "secretbox",
    "ledger",
    "agenda",
    "launch",
    "output",
    "runner",
    "report",
    "metrics",
    "control",
    "file_locks",
    "startup",
    "service",
    "once",
    "daemon",
    "cli",
    "main",
];

/// Where the bytes of a secret are looked at. A new place needs a reason and a line here.
const EXPOSES: &[(&str, &str)] = &[
    ("output/patterns.rs", "what to look for in output"),
    ("runner/given.rs", "a variable's value"),
    ("runner/pump.rs", "into a command's standard input or pipe"),
    ("secretbox/listener.rs", "to the holder of a token"),
    ("source/mod.rs", "what is odd about an answer"),
    ("source/tool.rs", "what a tool says beside it is shown without it"),
];

/// The longest file, its tests aside. One that needs more becomes a folder.
const LINES_MAX: usize = 700;

/// As rustfmt has it for code.
const COLUMNS_MAX: usize = 120;

struct SourceFile {
    /// Below src.
    name: String,
    /// Up to its tests, if they are in the file.
    code: String,
    text: String,
}

impl SourceFile {
    fn module(&self) -> &str {
        let first = self.name.split('/').next().expect("a name");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Whether the whole file is compiled for tests only.
    fn is_test(&self) -> bool {
        let file = self.name.rsplit('/').next().expect("a name");
        ["tests.rs", "testing.rs", "fuzz.rs", "simulation.rs"].contains(&file)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    files
}

fn source_files() -> Vec<SourceFile> {
    let src = root().join("src");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        let name = path.strip_prefix(&src).expect("below src").to_str().expect("a name").to_owned();
        SourceFile { name, code, text }
    };
    rust_files(&src).into_iter().map(read).collect()
}

/// The modules that `text` names by `crate::`.
fn uses(text: &str) -> BTreeSet<&str> {
    let behind = text.split("crate::").skip(1);
    behind.map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()).collect()
}

fn place(module: &str) -> usize {
    ORDER.iter().position(|known| *known == module).unwrap_or_else(|| panic!("{module} has no place in the order"))
}

#[test]
fn modules_use_only_those_before_them() {
    let files = source_files();
    for file in &files {
        for used in uses(&file.text) {
            assert!(!used.is_empty(), "{}: `crate::{{…}}` hides the order; a `use` for each module", file.name);
            let (user, used_place) = (place(file.module()), place(used));
            assert!(used_place <= user, "{} uses {used}, which stands behind {}", file.name, file.module());
        }
    }
    let there: BTreeSet<&str> = files.iter().map(SourceFile::module).collect();
    assert_eq!(there, ORDER.iter().copied().collect(), "the order names what there is");
}

#[test]
fn unsafe_code_and_libc_are_below_sys_alone() {
    let forbidden = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "libc::", "use libc", "unsafe_code"];
    for file in source_files().iter().filter(|file| file.module() != "sys") {
        for word in forbidden {
            assert!(!file.text.contains(word), "{}: {word}", file.name);
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn secrets_are_exposed_in_few_places() {
    let files = source_files();
    let exposing: Vec<&str> = files
        .iter()
        .filter(|file| !file.is_test() && file.code.contains(".expose()"))
        .map(|file| file.name.as_str())
        .collect();
    let known: Vec<&str> = EXPOSES.iter().map(|(name, _)| *name).collect();
    assert_eq!(exposing, known);
}

#[test]
fn every_file_says_what_it_owns_and_is_no_longer_than_that() {
    for file in source_files() {
        assert!(file.text.starts_with("//! "), "{} begins with what it owns", file.name);
        let lines = file.code.lines().count();
        let wide = file.text.lines().find(|line| line.trim_start().starts_with("//") && line.len() > COLUMNS_MAX);
        assert_eq!(wide, None, "{} has a comment wider than {COLUMNS_MAX} columns", file.name);
        assert!(file.is_test() || lines <= LINES_MAX, "{} has {lines} lines, expected {LINES_MAX} at most", file.name);
    }
    for path in rust_files(&root().join("tests/it")) {
        let text = fs::read_to_string(&path).expect("a test");
        assert!(text.starts_with("//! "), "{} begins with what it tests", path.display());
    }
}

/// A test that sleeps is slow where it need not be and wrong where the machine is slower still.
/// The harness has one pause, between two looks at what a test waits for.
#[test]
fn tests_do_not_sleep() {
    // Put together, so that it does not stand here.
    let call = ["thread", "sleep"].join("::");
    for path in rust_files(&root().join("tests/it")) {
        if path.ends_with("harness.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a test");
        assert!(!text.contains(&call), "{} sleeps", path.display());
    }
}

#[test]
fn every_test_that_security_names_exists() {
    let text = fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let named: BTreeSet<&str> = quoted.filter(|name| name.contains("::")).collect();
    assert!(named.len() > 40, "only {} names", named.len());
    let folders = [root().join("src"), root().join("tests/it")];
    let code: String = folders
        .iter()
        .flat_map(|folder| rust_files(folder))
        .map(|file| fs::read_to_string(file).expect("a file"))
        .collect();
    let missing: Vec<&&str> = named
        .iter()
        .filter(|name| {
            let function = name.rsplit("::").next().unwrap_or_default();
            !code.contains(&format!("fn {function}("))
        })
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
