//! What README.md shows is what there is: its configurations pass, its tables list what programs are given.

use std::fs;
use std::path::Path;

use serde_yaml::Value;

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

/// What stands as code in the first columns of the tables behind this heading.
pub fn table_keys(heading: &str) -> Vec<String> {
    let text = readme();
    let lines = text.lines().skip_while(|line| line.trim_start_matches('#') != format!(" {heading}")).skip(1);
    let section = lines.take_while(|line| !line.starts_with('#'));
    let first_columns = section.filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let keys = first_columns.flat_map(|column| column.split(['`', ',', ' ']).filter(|key| !key.is_empty()));
    keys.map(str::to_owned).collect()
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
    assert!(seen > 10, "{seen} configurations");
}

/// The keys of a JSON value in their order, those of lists' items with `[]`; of `last` only itself.
fn keys(value: &Value, prefix: &str, all: &mut Vec<String>) {
    match value {
        Value::Mapping(map) if !prefix.ends_with("last") => {
            for (key, inner) in map {
                let path = [prefix, key.as_str().expect("a key")].into_iter().filter(|part| !part.is_empty());
                keys(inner, &path.collect::<Vec<_>>().join("."), all);
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| keys(item, &format!("{prefix}[]"), all)),
        _ if all.iter().any(|path| path == prefix) => {}
        _ => all.push(prefix.to_owned()),
    }
}

#[test]
fn the_json_is_as_it_is_documented() {
    let sandbox = Sandbox::new();
    sandbox.write("vault", "correct horse battery staple");
    let _daemon = sandbox.daemon(
        r#"
secrets: [{name: vault, file: ~/vault}]
tasks: [{name: t, schedule: "@daily", environment: {V: {secret: vault, as: value}}, command: [sh, -c, 'echo said; exit 1']}]
"#,
    );
    let ask = |arguments: &[&str], status| {
        let mut command = sandbox.backupnizza(arguments.iter().copied());
        command.env("BACKUPNIZZA_SOCKET", sandbox.socket());
        finish(command).expect(status).stdout()
    };
    ask(&["run", "t"], 1);
    let real = [ask(&["status", "--json"], 1), ask(&["history", "--json"], 0)].map(|text| {
        let mut real = Vec::new();
        keys(&serde_yaml::from_str(&text).expect("JSON"), "", &mut real);
        real
    });
    assert_eq!(table_keys("For programs"), real.concat());
}

#[test]
fn whoever_comes_from_elsewhere_is_shown_a_before_and_an_after() {
    let blocks = blocks();
    for origin in ["from crontab", "from resticprofile", "from borgmatic", "from the Go backupnizza"] {
        let begin = |head: &str| {
            let here = blocks.iter().filter(|block| block.heading == origin);
            here.filter(|block| block.text.starts_with(head)).count()
        };
        assert!(begin("# before: ") >= 1 && begin("# after\n") == 1, "{origin}");
    }
}
