//! What links into the binary: the crates of the contract and what they bring along, no more.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::harness;

/// Those that the source itself uses.
const DIRECT: &[(&str, &str)] = &[
    ("chrono", "calendar and time zones"),
    ("cron", "calendar search"),
    ("getrandom", "tokens"),
    ("lexopt", "the command line"),
    ("libc", "for sys alone; others bring it along anyway"),
    ("serde", "how serde_yaml hands over what it reads"),
    ("serde_yaml", "the configuration file"),
    ("signal-hook", "signals"),
    ("zeroize", "wiping memory that the compiler may not skip"),
];

/// What those bring along.
const INDIRECT: &[(&str, &str)] = &[
    ("cfg-if", "getrandom"),
    ("equivalent", "indexmap"),
    ("errno", "signal-hook-registry"),
    ("hashbrown", "indexmap"),
    ("iana-time-zone", "chrono"),
    ("indexmap", "serde_yaml"),
    ("itoa", "serde_yaml"),
    ("num-traits", "chrono"),
    ("once_cell", "cron"),
    ("ryu", "serde_yaml"),
    ("serde_core", "serde"),
    ("signal-hook-registry", "signal-hook"),
    ("unsafe-libyaml", "serde_yaml"),
    ("winnow", "cron"),
];

const ON_MACOS: &[(&str, &str)] = &[("core-foundation-sys", "iana-time-zone")];

const TARGETS: &[&str] =
    &["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-apple-darwin", "aarch64-apple-darwin"];

fn cargo_tree(target: &str, depth: &str) -> Result<BTreeSet<String>, String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}", "--depth", depth])
        // Macros run in the compiler and do not link.
        .args(["--edges", "normal,no-proc-macro", "--target", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let lines = String::from_utf8(output.stdout).expect("names");
    let names = lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    Ok(names.filter(|name| name != env!("CARGO_PKG_NAME")).collect())
}

fn names<'a>(lists: &[&[(&'a str, &str)]]) -> BTreeSet<&'a str> {
    lists.iter().flat_map(|list| list.iter().map(|(name, _)| *name)).collect()
}

#[test]
fn only_listed_crates_link_into_the_binary() {
    for target in TARGETS {
        let (direct, all) = match (cargo_tree(target, "1"), cargo_tree(target, "99")) {
            (Ok(direct), Ok(all)) => (direct, all),
            // Cargo looks at the manifests of crates that were not needed to build for this system.
            (Err(why), _) | (_, Err(why)) if why.contains("offline") || why.contains("download") => {
                harness::not_tested(&format!("the crates of {target}: {why}"));
                continue;
            }
            (Err(why), _) | (_, Err(why)) => panic!("cargo tree for {target}: {why}"),
        };
        let expected = match target.contains("apple") {
            true => names(&[DIRECT, INDIRECT, ON_MACOS]),
            false => names(&[DIRECT, INDIRECT]),
        };
        assert_eq!(direct.iter().map(String::as_str).collect::<BTreeSet<_>>(), names(&[DIRECT]), "used on {target}");
        assert_eq!(all.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected, "linked on {target}");
    }
}

#[test]
fn no_crate_is_there_twice() {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("Cargo.lock");
    let listed = names(&[DIRECT, INDIRECT, ON_MACOS]);
    let mut count = BTreeMap::new();
    for name in lock.lines().filter_map(|line| line.strip_prefix("name = ")) {
        *count.entry(name.trim_matches('"')).or_insert(0) += 1;
    }
    let twice: Vec<&str> = listed.into_iter().filter(|name| count.get(name) != Some(&1)).collect();
    assert_eq!(twice, [""; 0]);
}
