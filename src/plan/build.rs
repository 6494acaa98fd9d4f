//! From the file as written to the plan: what each part says is read and checked once, then merged.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use super::assemble::{Assembler, TOO_LARGE, TooLarge};
use super::command::{self, CommandLine, StepSpec};
use super::layer::{self, Layer};
use super::scope::Scope;
use super::{Host, LogSettings, OnError, Order, Plan, ProgramId, ProgramSpec, Protection, SecretboxSettings};
use super::{System, Task, lint, secrets};
use crate::clock::Zone;
use crate::config::{Config, Node, Problem, Section, Value};
use crate::log;
use crate::program::Sha256Digest;
use crate::schedule::Schedule;

const DEFAULT_MAX_CONCURRENT_RUNS: u32 = 16;
/// Each run has a thread and a few descriptors.
const LIMIT_MAX_CONCURRENT_RUNS: u32 = 1_000;
const DEFAULT_MAX_TOKEN_TTL: Duration = Duration::from_secs(10);
/// The kernel's limit for the path of a socket is 104 bytes or more; `.control` comes behind it.
const MAX_SOCKET_PATH: usize = 95;

const LEVELS: [(&str, log::Level); 5] = [
    ("error", log::Level::Error),
    ("warn", log::Level::Warn),
    ("info", log::Level::Info),
    ("debug", log::Level::Debug),
    ("trace", log::Level::Trace),
];
const FORMATS: [(&str, log::Format); 2] = [("text", log::Format::Text), ("json", log::Format::Json)];
const ZONES: [(&str, Zone); 2] = [("local", Zone::Local), ("utc", Zone::Utc)];
const MEMORY_KINDS: [(&str, Protection); 2] = [("secret", Protection::Secret), ("locked", Protection::Locked)];
const ORDERS: [(&str, Order); 2] = [("sequence", Order::Sequence), ("parallel", Order::Parallel)];
const ON_ERRORS: [(&str, OnError); 2] = [("stop", OnError::Stop), ("continue", OnError::Continue)];

/// A task as written, with the names that it uses resolved.
pub(super) struct TaskSpec<'c> {
    pub name: &'c str,
    /// Indices of `profiles`, the nearest last.
    pub profiles: Vec<usize>,
    pub layer: Layer,
    pub schedules: Vec<Schedule>,
    pub order: Order,
    pub on_error: OnError,
    pub work: Work,
    pub finally: Vec<StepSpec>,
}

/// What a task does: its environment and the like stand beside it and are its policy.
pub(super) enum Work {
    Command(CommandLine),
    Steps(Vec<StepSpec>),
}

/// The programs that the plan names, each once.
#[derive(Default)]
pub(super) struct Programs {
    specs: Vec<ProgramSpec>,
    ids: HashMap<ProgramSpec, ProgramId>,
}

impl Programs {
    /// Takes in a program, or finds it again. Where its name is no relative path, `base` does not matter.
    pub fn add(&mut self, spec: ProgramSpec) -> ProgramId {
        let is_relative = spec.name.contains('/') && !spec.name.starts_with('/');
        let base = if is_relative { spec.base } else { PathBuf::new() };
        let key = ProgramSpec { base, needed: false, ..spec };
        let next = ProgramId(self.specs.len() as u32);
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                self.specs.push(key.clone());
                self.ids.insert(key, next);
                next
            }
        };
        self.specs[id.index()].needed |= spec.needed;
        id
    }

    /// A program that a source asks, with the daemon's rights.
    pub fn of_source(&mut self, name: &str, sha256: Option<Sha256Digest>, scope: &Scope<'_>) -> ProgramId {
        self.add(ProgramSpec {
            name: scope.host.expand(name),
            base: scope.host.current_dir.clone(),
            path_variable: None,
            sha256,
            user: None,
            needed: true,
        })
    }
}

impl Plan {
    /// Makes the plan, with warnings of what is legal but surely not meant.
    ///
    /// # Errors
    /// Every problem of the file, in its order.
    pub fn from_config(config: &Config<'_>, host: &Host) -> Result<(Plan, Vec<Problem>), Vec<Problem>> {
        let mut scope = Scope::new(host, config.problems());
        let plan = read(config.root(), &mut scope);
        match plan {
            Some(plan) if scope.problems.is_empty() => {
                let warnings = lint::warnings(&plan);
                Ok((plan, warnings))
            }
            _ => Err(scope.problems.located(config.root())),
        }
    }
}

fn read<'c>(root: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<Plan> {
    let mut map = root.section("a map with `tasks`", &mut scope.problems)?;
    let mut programs = Programs::default();
    let zone = map.optional("timezone").and_then(|node| node.word(&ZONES, &mut scope.problems));
    let max_concurrent_runs = map
        .optional("max_concurrent_runs")
        .and_then(|node| node.number(1..=LIMIT_MAX_CONCURRENT_RUNS, &mut scope.problems));
    let state_dir = map.optional("state_dir").and_then(|node| scope.path(node));
    let metrics_file = map.optional("metrics_file").and_then(|node| scope.path(node));
    let log = log_settings(map.optional("log"), scope);
    let secretbox = secretbox(map.optional("secretbox"), scope);
    let secrets = map.optional("secrets").map(|node| secrets::read(node, &mut programs, scope));
    let profiles = map.optional("profiles").map(|node| layer::profiles(node, scope)).unwrap_or_default();
    let defaults = map.optional("defaults").map(|node| layer::of_map(node, scope)).unwrap_or_default();
    let mut assembler = Assembler::new(scope.host, &defaults, &profiles, &mut programs);
    let tasks = map.required("tasks", &mut scope.problems).map(|node| tasks(node, &mut assembler, scope));
    map.finish(&mut scope.problems);
    Some(Plan {
        file: scope.host.file.clone(),
        zone: zone.unwrap_or_default(),
        max_concurrent_runs: max_concurrent_runs.unwrap_or(DEFAULT_MAX_CONCURRENT_RUNS) as usize,
        state_dir: state_dir.unwrap_or_else(|| scope.host.default_state_dir()),
        metrics_file,
        log,
        secretbox: secretbox?,
        secrets: secrets.unwrap_or_default(),
        programs: programs.specs,
        locks: std::mem::take(&mut scope.lock_names),
        tasks: tasks?,
    })
}

fn log_settings<'c>(node: Option<&'c Node<'_>>, scope: &mut Scope<'c>) -> LogSettings {
    let mut settings = LogSettings { level: log::Level::Info, format: log::Format::Text };
    let map = node.and_then(|node| node.section("a map with `level` and `format`", &mut scope.problems));
    if let Some(mut map) = map {
        let level = map.optional("level").and_then(|node| node.word(&LEVELS, &mut scope.problems));
        let format = map.optional("format").and_then(|node| node.word(&FORMATS, &mut scope.problems));
        map.finish(&mut scope.problems);
        settings = LogSettings { level: level.unwrap_or(settings.level), format: format.unwrap_or(settings.format) };
    }
    settings
}

fn secretbox<'c>(node: Option<&'c Node<'_>>, scope: &mut Scope<'c>) -> Option<SecretboxSettings> {
    const WANTED: &str = "a map with `socket`, `max_token_ttl` and `memory`";
    let at = node.map_or(0, |node| node.at);
    let map = node.and_then(|node| node.section(WANTED, &mut scope.problems));
    let (mut socket, mut max_token_ttl, mut memory) = (None, None, None);
    if let Some(mut map) = map {
        socket = map.optional("socket").map(|node| (node.at, scope.path(node)));
        max_token_ttl = map.optional("max_token_ttl").and_then(|node| node.positive_duration(&mut scope.problems));
        memory = map.optional("memory").and_then(|node| node.word(&MEMORY_KINDS, &mut scope.problems));
        map.finish(&mut scope.problems);
    }
    let (at, socket) = match socket {
        Some((at, socket)) => (at, socket?),
        None => (at, scope.host.default_socket()),
    };
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        scope.problems.add(at, format!("the path of the socket is longer than {MAX_SOCKET_PATH} bytes"));
    }
    let default_memory = match scope.host.system {
        System::Linux => Protection::Secret,
        System::MacOs => Protection::Locked,
    };
    Some(SecretboxSettings {
        socket,
        max_token_ttl: max_token_ttl.unwrap_or(DEFAULT_MAX_TOKEN_TTL),
        memory: memory.unwrap_or(default_memory),
    })
}

/// Reads the tasks, and assembles each as long as there is no problem.
fn tasks<'c>(node: &'c Node<'_>, assembler: &mut Assembler<'_, 'c>, scope: &mut Scope<'c>) -> Vec<Task> {
    let items = node.list("a list of tasks", &mut scope.problems).unwrap_or_default();
    let profiles = assembler.profile_names();
    let mut names = HashSet::with_capacity(items.len());
    let mut tasks = Vec::with_capacity(items.len());
    for item in items {
        let Some(mut map) = item.section("a map with `name` and `command`", &mut scope.problems) else {
            continue;
        };
        let spec = task(&mut map, &profiles, &mut names, scope);
        map.finish(&mut scope.problems);
        let Some(spec) = spec.filter(|_| scope.problems.is_empty()) else {
            continue;
        };
        match assembler.task(&spec) {
            Ok(task) => tasks.push(task),
            Err(TooLarge) => scope.problems.add(item.at, TOO_LARGE),
        }
    }
    tasks
}

fn task<'c>(
    map: &mut Section<'c, '_>,
    profiles: &HashMap<&str, usize>,
    names: &mut HashSet<&'c str>,
    scope: &mut Scope<'c>,
) -> Option<TaskSpec<'c>> {
    let name = map.required("name", &mut scope.problems).and_then(|node| Some((node.at, scope.name(node)?)));
    if let Some((at, name)) = name
        && !names.insert(name)
    {
        scope.problems.add(at, "another task has this name");
    }
    let profiles = map.optional("profile").map(|node| profile_list(node, profiles, scope));
    let schedules = map.optional("schedule").map(|node| schedules(node, scope));
    let layer = layer::read(map, scope);
    let order = map.optional("order").and_then(|node| node.word(&ORDERS, &mut scope.problems));
    let on_error = map.optional("on_error").and_then(|node| node.word(&ON_ERRORS, &mut scope.problems));
    let mut step_names = HashSet::new();
    let work = work(map, &mut step_names, scope);
    let finally = map.optional("finally").map(|node| steps(node, "a list of commands", &mut step_names, scope));
    let finally = finally.unwrap_or_default();
    Some(TaskSpec {
        name: name?.1,
        profiles: profiles.unwrap_or_default(),
        layer,
        schedules: schedules.unwrap_or_default(),
        order: order.unwrap_or(Order::Sequence),
        on_error: on_error.unwrap_or(OnError::Stop),
        work: work?,
        finally,
    })
}

/// One name, or a list of names.
fn profile_list(node: &Node<'_>, known: &HashMap<&str, usize>, scope: &mut Scope<'_>) -> Vec<usize> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut profiles: Vec<usize> = Vec::with_capacity(items.len());
    for item in items {
        let Some(name) = item.text("the name of a profile, or a list of them", &mut scope.problems) else {
            continue;
        };
        match known.get(name) {
            Some(index) if profiles.contains(index) => scope.problems.add(item.at, "this profile stands here twice"),
            Some(index) => profiles.push(*index),
            None => scope.problems.add_unknown(item.at, "no profile has this name", name, known.keys().copied()),
        }
    }
    profiles
}

/// One expression, or a list of them.
fn schedules(node: &Node<'_>, scope: &mut Scope<'_>) -> Vec<Schedule> {
    let items = match &node.value {
        Value::List(items) if items.is_empty() => {
            scope.problems.add(node.at, "an empty list; leave it out for a task that runs by hand only");
            return Vec::new();
        }
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut schedules = Vec::with_capacity(items.len());
    for item in items {
        let wanted = "a schedule such as \"30 2 * * *\" or \"@daily\", or a list of them";
        let Some(text) = item.text(wanted, &mut scope.problems) else { continue };
        match Schedule::parse(text) {
            Ok(schedule) => schedules.push(schedule),
            Err(what) => scope.problems.add(item.at, what),
        }
    }
    schedules
}

/// `command`, with what stands beside it, or `steps`.
fn work<'c>(map: &mut Section<'c, '_>, names: &mut HashSet<String>, scope: &mut Scope<'c>) -> Option<Work> {
    let Some(list) = map.optional("steps") else {
        if map.optional("command").is_none() {
            map.know(&["stdin", "sha256"]);
            scope.problems.add(map.at(), "has nothing to do, expected `command` or `steps`");
            return None;
        }
        return command::command_line(map, scope).map(Work::Command);
    };
    for key in ["command", "stdin", "sha256"] {
        if let Some(node) = map.optional(key) {
            scope.problems.add(node.at, format!("`{key}` cannot stand beside `steps`, it belongs into a step"));
        }
    }
    let steps = steps(list, "a list of steps", names, scope);
    if matches!(&list.value, Value::List(items) if items.is_empty()) {
        scope.problems.add(list.at, "an empty list of steps");
    }
    Some(Work::Steps(steps))
}

/// `names` are those of the task's steps so far.
fn steps<'c>(node: &'c Node<'_>, wanted: &str, names: &mut HashSet<String>, scope: &mut Scope<'c>) -> Vec<StepSpec> {
    let items = node.list(wanted, &mut scope.problems).unwrap_or_default();
    let mut steps = Vec::with_capacity(items.len());
    for item in items {
        // `finally: [umount, /mnt]` is one command where a list of commands belongs.
        if let Value::Scalar(..) = item.value {
            let hint = "write each command as a list of its own, [[umount, /mnt/nas]]";
            item.expected("a command, or a map with `command`", Some(hint), &mut scope.problems);
            continue;
        }
        let Some(step) = command::step(item, scope) else { continue };
        if let Some(name) = &step.name
            && !names.insert(name.clone())
        {
            scope.problems.add(item.at, "another step of this task has this name");
        }
        steps.push(step);
    }
    steps
}
