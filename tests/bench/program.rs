//! The program itself: its size, and the crates that link into it.

use std::fs;
use std::process::Command;

use crate::figure::{Figure, Limit, Samples, Unit};
use crate::sandbox::program;

pub fn figures() -> Vec<Figure> {
    let size = fs::metadata(program()).expect("the program").len() as f64 / 1e6;
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}", "--edges", "normal,no-proc-macro"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    vec![
        Figure::new("size of the stripped binary", Unit::Megabytes, Samples::one(size)).limit(Limit::AtMost(2.0)),
        // Without this program itself.
        Figure::new("crates that link into it", Unit::Count, Samples::one(names.len() as f64 - 1.0))
            .limit(Limit::AtMost(24.0)),
    ]
}
