//! What README.md shows is what there is: its configurations pass, its tables list what programs are given.

use std::fs;
use std::path::Path;

use crate::harness::{Sandbox, finish};

/// A fenced block of README.md.
pub struct Block {
    /// The last heading before it.
    pub heading: String,
    pub language: String,
    pub text: String,
}

pub fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md")
}

/// All fenced blocks, without the indentation of a list in which they stand.
pub fn blocks() -> Vec<Block> {
    let (text, mut heading) = (readme(), String::new());
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')) {
            heading = title.to_owned();
        }
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let inner = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let text = inner.map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect();
            blocks.push(Block { heading: heading.clone(), language: language.to_owned(), text });
        }
    }
    blocks
}

impl Block {
    fn has(&self, key: &str) -> bool {
        self.text.lines().any(|line| line.starts_with(&format!("{key}:")))
    }

    /// Another program's configuration, beside which ours is shown.
    fn is_foreign(&self) -> bool {
        self.text.starts_with("# before: ") || self.has("groups")
    }

    /// As a whole configuration; fragments are completed.
    fn completed(&self) -> String {
        match self.has("tasks") {
            true => self.text.clone(),
            false => self.with_tasks("[{name: t, schedule: '@daily', command: [x]}]"),
        }
    }

    /// A fragment with these tasks.
    pub fn with_tasks(&self, tasks: &str) -> String {
        let indented = || self.text.lines().map(|line| format!("  {line}\n")).collect::<String>();
        let head = if self.has("hooks") { format!("defaults:\n{}", indented()) } else { self.text.clone() };
        format!("{head}tasks: {tasks}\n")
    }
}

#[test]
fn every_configuration_passes_and_nothing_is_said_against_it() {
    let sandbox = Sandbox::new();
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.language == "yaml" && !block.is_foreign()) {
        seen += 1;
        sandbox.config(&block.completed());
        let said = finish(sandbox.backupnizza(["check", "--offline", "backup.yaml"]));
        assert_eq!((said.status, said.stderr.as_str()), (0, ""), "{}:\n{}", block.heading, block.completed());
    }
    assert!(seen > 7, "{seen} configurations");
}
