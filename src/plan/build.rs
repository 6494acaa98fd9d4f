//! From the file as written to the plan: what each part says is read and checked once, then merged.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::assemble::Assembler;
use super::layer;
use super::scope::Scope;
use super::{
    Host, LogSettings, Plan, ProgramId, ProgramSpec, Protection, SecretboxSettings, System, lint, secrets, tasks,
};
use crate::clock::Zone;
use crate::config::{Config, Node, Problem};
use crate::log;
use crate::program::Sha256Digest;

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
    let tasks = map.required("tasks", &mut scope.problems).map(|node| tasks::read(node, &mut assembler, scope));
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
