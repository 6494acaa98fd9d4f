//! Commands as written: what to run, and what stands beside it. `~` stays what it is until it is known
//! as whom a command runs.

use std::time::Duration;

use super::exit_codes::{self, CodesLayer};
use super::layer::Setting;
use super::scope::Scope;
use super::{SecretId, Value as VariableValue, Wrap};
use crate::config::{Kind, Node, Section, Value};
use crate::program::Sha256Digest;

/// The daemon's variables that no command ever gets: they are between it and its supervisor.
const NEVER_PASSED_ON: [&str; 4] = ["NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "LISTEN_*", "WATCHDOG_*"];

const WANTED_COMMAND: &str = "a list such as [restic, backup, ~/Documents]";
const WANTED_STEP: &str = "a command, or a map with `command`";

/// A variable that a layer sets, or removes.
pub(super) type Variable = (String, Option<VariableValue>);

/// A program and its arguments, without the surroundings that layers give it.
#[derive(Debug, Clone)]
pub(super) struct CommandLine {
    pub program: String,
    pub arguments: Vec<String>,
    pub sha256: Option<Sha256Digest>,
    pub stdin: Option<SecretId>,
}

/// A step, a hook, a condition or an entry of `finally`.
#[derive(Debug)]
pub(super) struct StepSpec {
    pub name: Option<String>,
    pub line: CommandLine,
    pub environment: Vec<Variable>,
    pub working_directory: Setting<String>,
    pub exit_codes: Setting<CodesLayer>,
    pub timeout: Setting<Duration>,
}

/// Whether any command may be given this variable.
pub fn is_never_passed_on(name: &str) -> bool {
    NEVER_PASSED_ON.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => name == *pattern,
    })
}

impl StepSpec {
    pub fn bare(line: CommandLine) -> Self {
        StepSpec {
            name: None,
            line,
            environment: Vec::new(),
            working_directory: Setting::Unset,
            exit_codes: Setting::Unset,
            timeout: Setting::Unset,
        }
    }
}

/// Reads a step: the bare list or a map.
pub(super) fn step<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<StepSpec> {
    match &node.value {
        Value::Map(_) => {
            let mut section = node.section(WANTED_STEP, &mut scope.problems)?;
            let step = step_of(&mut section, scope);
            section.finish(&mut scope.problems);
            step
        }
        _ => bare_step(node, scope),
    }
}

/// Reads a hook, whose standard input is the end of the run's output.
pub(super) fn hook<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<StepSpec> {
    let step = step(node, scope)?;
    if step.line.stdin.is_some() {
        scope
            .problems
            .add(node.at, "a hook has the last lines of output on its standard input, so it takes no `stdin`");
    }
    Some(step)
}

pub(super) fn bare_step(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<StepSpec> {
    let (program, arguments) = words(node, scope)?;
    Some(StepSpec::bare(CommandLine { program, arguments, sha256: None, stdin: None }))
}

/// Reads the keys of a step's map.
pub(super) fn step_of<'c>(section: &mut Section<'c, '_>, scope: &mut Scope<'c>) -> Option<StepSpec> {
    let name = section.optional("name").and_then(|node| scope.name(node)).map(str::to_string);
    let line = command_line(section, scope);
    let environment = section.optional("environment").map(|node| environment(node, scope));
    let working_directory = Setting::read(section.take("working_directory"), |node| scope.unexpanded_path(node));
    let exit_codes = Setting::read(section.take("exit_codes"), |node| exit_codes::read(node, scope));
    let timeout = Setting::read(section.take("timeout"), |node| node.positive_duration(&mut scope.problems));
    let environment = environment.unwrap_or_default();
    Some(StepSpec { name, line: line?, environment, working_directory, exit_codes, timeout })
}

/// Reads `command` with `stdin` and `sha256` beside it.
pub(super) fn command_line<'c>(section: &mut Section<'c, '_>, scope: &mut Scope<'c>) -> Option<CommandLine> {
    let command = section.required("command", &mut scope.problems).and_then(|node| words(node, scope));
    let sha256 = section.optional("sha256").and_then(|node| digest(node, scope));
    let stdin = section.optional("stdin").and_then(|node| {
        let mut stdin = node.section("a map such as {secret: vault}", &mut scope.problems)?;
        let secret = stdin.required("secret", &mut scope.problems).and_then(|node| scope.secret(node));
        stdin.finish(&mut scope.problems);
        secret
    });
    let (program, arguments) = command?;
    Some(CommandLine { program, arguments, sha256, stdin })
}

pub(super) fn digest(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<Sha256Digest> {
    const WANTED: &str = "64 hexadecimal digits";
    let digest = Sha256Digest::from_hex(node.raw(WANTED, &mut scope.problems)?);
    if digest.is_none() {
        scope.problems.add(node.at, format!("expected {WANTED}"));
    }
    digest
}

/// Reads the words of a command, of which the first is the program.
pub(super) fn words(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<(String, Vec<String>)> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Scalar(Kind::Text, _) => {
            let hint = "each word is an item; for a line of shell write [sh, -c, \"…\"]";
            node.expected(WANTED_COMMAND, Some(hint), &mut scope.problems);
            return None;
        }
        _ => {
            node.expected(WANTED_COMMAND, None, &mut scope.problems);
            return None;
        }
    };
    let Some(program) = items.first() else {
        scope.problems.add(node.at, format!("empty, expected {WANTED_COMMAND}"));
        return None;
    };
    if matches!(&program.value, Value::Scalar(_, text) if text.is_empty()) {
        scope.problems.add(program.at, "empty, expected the name of a program");
        return None;
    }
    let mut words = Vec::with_capacity(items.len() - 1);
    let mut program = None;
    for item in items {
        let word = word(item, scope)?;
        match program {
            None => program = Some(word),
            Some(_) => words.push(word),
        }
    }
    program.map(|program| (program, words))
}

/// A plain scalar is taken as written, so that `14`, `~` and `true` are what they look like.
fn word(item: &Node<'_>, scope: &mut Scope<'_>) -> Option<String> {
    if matches!(&item.value, Value::Scalar(Kind::Null, text) if text.is_empty()) {
        scope.problems.add(item.at, "nothing, expected a word; an empty one is written \"\"");
        return None;
    }
    item.raw("a word of the command", &mut scope.problems).map(str::to_string)
}

/// Reads `environment`; what is wrong in it is left out.
pub(super) fn environment<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Vec<Variable> {
    let Some(entries) = node.map("a map of variables", &mut scope.problems) else {
        return Vec::new();
    };
    let mut variables = Vec::with_capacity(entries.len());
    for (name, node) in entries.iter().filter(|(name, _)| name != "<<") {
        if let Some(why) = why_no_variable(name) {
            scope.problems.add(node.at, why);
        } else if node.is_null() {
            variables.push((name.to_string(), None));
        } else if let Some(value) = variable_value(node, scope) {
            variables.push((name.to_string(), Some(value)));
        }
    }
    variables
}

fn why_no_variable(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("an empty name of a variable"),
        _ if name.contains('=') => Some("the name of a variable cannot hold `=`"),
        _ if name.starts_with("BACKUPNIZZA_") => Some("names that begin with BACKUPNIZZA_ are reserved"),
        _ if is_never_passed_on(name) => {
            Some("this variable is between the daemon and its supervisor, no command gets it")
        }
        _ => None,
    }
}

fn variable_value<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<VariableValue> {
    const WANTED: &str = "text, or a map such as {secret: vault, as: command}";
    if let Value::Scalar(_, text) = &node.value {
        return Some(VariableValue::Text(text.to_string()));
    }
    let mut section = node.section(WANTED, &mut scope.problems)?;
    let secret = section.required("secret", &mut scope.problems).and_then(|node| scope.secret(node));
    let way = section.required("as", &mut scope.problems);
    let ways = [("command", Way::Command), ("file", Way::File), ("value", Way::Plain)];
    let way = way.and_then(|node| node.word(&ways, &mut scope.problems));
    let value = match way {
        None => {
            // Which keys fit cannot be told then, so that none of them is called unknown.
            section.know(&["uses", "max_ttl", "template"]);
            None
        }
        Some(Way::Command) => token(secret, &mut section, scope),
        Some(Way::File) => {
            wrap(&mut section, scope).zip(secret).map(|(wrap, secret)| VariableValue::File { secret, wrap })
        }
        Some(Way::Plain) => {
            wrap(&mut section, scope).zip(secret).map(|(wrap, secret)| VariableValue::Plain { secret, wrap })
        }
    };
    section.finish(&mut scope.problems);
    value
}

/// What `as:` says.
#[derive(Debug, Clone, Copy)]
enum Way {
    Command,
    File,
    Plain,
}

fn token<'c>(secret: Option<SecretId>, section: &mut Section<'c, '_>, scope: &mut Scope<'c>) -> Option<VariableValue> {
    let uses = section.optional("uses").map(|node| node.number(1..=1_000_000, &mut scope.problems));
    let max_ttl = section.optional("max_ttl").and_then(|node| node.positive_duration(&mut scope.problems));
    if let Some(node) = section.optional("template") {
        scope.problems.add(node.at, "`template` goes with `as: value` and `as: file` only");
    }
    Some(VariableValue::Token { secret: secret?, uses: uses.unwrap_or(Some(1))?, max_ttl })
}

fn wrap<'c>(section: &mut Section<'c, '_>, scope: &mut Scope<'c>) -> Option<Wrap> {
    for key in ["uses", "max_ttl"] {
        if let Some(node) = section.optional(key) {
            scope.problems.add(node.at, format!("`{key}` goes with `as: command` only"));
        }
    }
    let Some(node) = section.optional("template") else {
        return Some(Wrap::default());
    };
    let text = node.text("a text with {} for the secret", &mut scope.problems)?;
    match text.split_once("{}") {
        Some((prefix, suffix)) if !suffix.contains("{}") => {
            Some(Wrap { prefix: prefix.to_string(), suffix: suffix.to_string() })
        }
        _ => {
            scope.problems.add(node.at, "expected exactly one {}, which stands for the secret");
            None
        }
    }
}
