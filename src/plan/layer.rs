//! Policy keys as one place of the file gives them: `defaults`, a profile, or a task.
//!
//! Each place is read and checked once, however many tasks use it; merging comes after.

use std::sync::Arc;
use std::time::Duration;

use super::command::{self, StepSpec, Variable};
use super::exit_codes::{self, CodesLayer};
use super::scope::{Scope, why_no_name};
use super::{LockRequest, MaxAge, Missed, OutputMode, Overlap, PassEnvironment, RunAs, Signal};
use crate::config::{Kind, Node, Section, Value};

/// What a layer says of one key.
#[derive(Debug, Clone, Default)]
pub(super) enum Setting<T> {
    /// Nothing: the layers below decide.
    #[default]
    Unset,
    /// `null`: back to the default that is built in.
    Reset,
    To(T),
}

impl<T> Setting<T> {
    /// The setting that `node` holds; one that is wrong counts as none, its problem is noted.
    pub fn read<'c, 't: 'c>(node: Option<&'c Node<'t>>, read: impl FnOnce(&'c Node<'t>) -> Option<T>) -> Self {
        match node {
            None => Setting::Unset,
            Some(node) if node.is_null() => Setting::Reset,
            Some(node) => read(node).map_or(Setting::Unset, Setting::To),
        }
    }
}

/// The policy keys of one place.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub environment: Setting<Vec<Variable>>,
    pub pass_environment: Setting<PassEnvironment>,
    pub working_directory: Setting<String>,
    /// `None` inside is the daemon's own.
    pub user: Setting<Option<Arc<RunAs>>>,
    pub timeout: Setting<Duration>,
    pub stop_signal: Setting<Signal>,
    pub stop_grace: Setting<Duration>,
    pub retry: Setting<RetryLayer>,
    pub overlap: Setting<Overlap>,
    pub missed: Setting<Missed>,
    pub missed_delay: Setting<Duration>,
    pub jitter: Setting<Duration>,
    pub locks: Setting<Vec<LockRequest>>,
    pub only_if: Setting<Box<ConditionSpec>>,
    pub run_anyway_after: Setting<Duration>,
    pub max_wait: Setting<Duration>,
    pub max_age: Setting<MaxAge>,
    pub exit_codes: Setting<CodesLayer>,
    pub output: Setting<OutputMode>,
    pub hooks: Setting<Box<HooksLayer>>,
    pub enabled: Setting<bool>,
}

#[derive(Debug, Default)]
pub(super) struct RetryLayer {
    pub times: Setting<u32>,
    pub delay: Setting<Duration>,
}

#[derive(Debug)]
pub(super) struct ConditionSpec {
    pub check: StepSpec,
    pub recheck: Setting<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct HooksLayer {
    pub start: Setting<StepSpec>,
    pub success: Setting<StepSpec>,
    pub warning: Setting<StepSpec>,
    pub failure: Setting<StepSpec>,
    pub end: Setting<StepSpec>,
    pub stale: Setting<StepSpec>,
    pub recovery: Setting<StepSpec>,
}

/// Reads the policy keys of a map, which may have others besides.
pub(super) fn read<'c>(map: &mut Section<'c, '_>, scope: &mut Scope<'c>) -> Layer {
    Layer {
        environment: Setting::read(map.take("environment"), |node| Some(command::environment(node, scope))),
        pass_environment: Setting::read(map.take("pass_environment"), |node| pass_environment(node, scope)),
        working_directory: Setting::read(map.take("working_directory"), |node| scope.unexpanded_path(node)),
        user: Setting::read(map.take("user"), |node| scope.user(node)),
        timeout: Setting::read(map.take("timeout"), |node| node.positive_duration(&mut scope.problems)),
        stop_signal: Setting::read(map.take("stop_signal"), |node| node.word(&SIGNALS, &mut scope.problems)),
        stop_grace: Setting::read(map.take("stop_grace"), |node| node.duration(&mut scope.problems)),
        retry: Setting::read(map.take("retry"), |node| retry(node, scope)),
        overlap: Setting::read(map.take("overlap"), |node| node.word(&OVERLAPS, &mut scope.problems)),
        missed: Setting::read(map.take("missed"), |node| node.word(&MISSED, &mut scope.problems)),
        missed_delay: Setting::read(map.take("missed_delay"), |node| node.duration(&mut scope.problems)),
        jitter: Setting::read(map.take("jitter"), |node| node.duration(&mut scope.problems)),
        locks: Setting::read(map.take("lock"), |node| locks(node, scope)),
        only_if: Setting::read(map.take("only_if"), |node| condition(node, scope).map(Box::new)),
        run_anyway_after: Setting::read(map.take("run_anyway_after"), |node| {
            node.positive_duration(&mut scope.problems)
        }),
        max_wait: Setting::read(map.take("max_wait"), |node| node.duration(&mut scope.problems)),
        max_age: Setting::read(map.take("max_age"), |node| max_age(node, scope)),
        exit_codes: Setting::read(map.take("exit_codes"), |node| exit_codes::read(node, scope)),
        output: Setting::read(map.take("output"), |node| node.word(&OUTPUTS, &mut scope.problems)),
        hooks: Setting::read(map.take("hooks"), |node| hooks(node, scope).map(Box::new)),
        enabled: Setting::read(map.take("enabled"), |node| node.boolean(&mut scope.problems)),
    }
}

const SIGNALS: [(&str, Signal); 6] = [
    ("HUP", Signal::Hup),
    ("INT", Signal::Int),
    ("QUIT", Signal::Quit),
    ("TERM", Signal::Term),
    ("USR1", Signal::Usr1),
    ("USR2", Signal::Usr2),
];
const OVERLAPS: [(&str, Overlap); 2] = [("skip", Overlap::Skip), ("queue", Overlap::Queue)];
const MISSED: [(&str, Missed); 2] = [("run", Missed::Run), ("skip", Missed::Skip)];
const OUTPUTS: [(&str, OutputMode); 3] =
    [("log", OutputMode::Log), ("on_failure", OutputMode::OnFailure), ("discard", OutputMode::Discard)];

fn pass_environment(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<PassEnvironment> {
    const WANTED: &str = "a list of names of variables, or `all`";
    let items = match &node.value {
        Value::Scalar(Kind::Text, text) if text == "all" => return Some(PassEnvironment::All),
        Value::List(items) => items,
        _ => {
            node.expected(WANTED, None, &mut scope.problems);
            return None;
        }
    };
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let Some(name) = scope.variable(item) else { continue };
        if command::is_never_passed_on(name) || name.starts_with("BACKUPNIZZA_") {
            scope.problems.add(item.at, "this variable is never passed on");
        }
        names.push(name.to_string());
    }
    Some(PassEnvironment::Named(names))
}

fn retry(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<RetryLayer> {
    let mut map = node.section("a map such as {times: 3, delay: 1m}", &mut scope.problems)?;
    let retry = RetryLayer {
        times: Setting::read(map.take("times"), |node| node.number(0..=1_000_000, &mut scope.problems)),
        delay: Setting::read(map.take("delay"), |node| node.duration(&mut scope.problems)),
    };
    map.finish(&mut scope.problems);
    Some(retry)
}

fn locks<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<Vec<LockRequest>> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut requests: Vec<LockRequest> = Vec::with_capacity(items.len());
    for item in items {
        let Some(request) = lock(item, scope) else { continue };
        match requests.binary_search_by_key(&request.lock, |other| other.lock) {
            Ok(_) => scope.problems.add(item.at, "this lock stands here twice"),
            Err(index) => requests.insert(index, request),
        }
    }
    Some(requests)
}

fn lock<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<LockRequest> {
    match &node.value {
        Value::Map(_) => {
            let mut map = node.section("a lock", &mut scope.problems)?;
            let lock = map.required("name", &mut scope.problems).and_then(|node| scope.lock(node));
            let shared = map.optional("shared").and_then(|node| node.boolean(&mut scope.problems));
            map.finish(&mut scope.problems);
            Some(LockRequest { lock: lock?, shared: shared.unwrap_or(false) })
        }
        Value::Scalar(Kind::Text, _) => scope.lock(node).map(|lock| LockRequest { lock, shared: false }),
        _ => {
            node.expected("a name, {name: vault, shared: true}, or a list of those", None, &mut scope.problems);
            None
        }
    }
}

fn condition<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<ConditionSpec> {
    if !matches!(node.value, Value::Map(_)) {
        let check = command::bare_step(node, scope)?;
        return Some(ConditionSpec { check, recheck: Setting::Unset });
    }
    let mut map = node.section("a command", &mut scope.problems)?;
    let check = command::step_of(&mut map, scope);
    let recheck = Setting::read(map.take("recheck"), |node| node.positive_duration(&mut scope.problems));
    map.finish(&mut scope.problems);
    Some(ConditionSpec { check: check?, recheck })
}

fn max_age(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<MaxAge> {
    match &node.value {
        Value::Scalar(Kind::Text, text) if text == "none" => Some(MaxAge::Off),
        _ => node.positive_duration(&mut scope.problems).map(MaxAge::After),
    }
}

fn hooks<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Option<HooksLayer> {
    let mut map = node.section("a map such as {failure: [notify-send, \"backup failed\"]}", &mut scope.problems)?;
    let mut hook = |key| Setting::read(map.take(key), |node| command::hook(node, scope));
    let hooks = HooksLayer {
        start: hook("start"),
        success: hook("success"),
        warning: hook("warning"),
        failure: hook("failure"),
        end: hook("end"),
        stale: hook("stale"),
        recovery: hook("recovery"),
    };
    map.finish(&mut scope.problems);
    Some(hooks)
}

/// Reads a layer that is a map of its own: `defaults`, or a profile.
pub(super) fn of_map<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Layer {
    let Some(mut map) = node.section("a map of policy keys", &mut scope.problems) else {
        return Layer::default();
    };
    let layer = read(&mut map, scope);
    map.finish(&mut scope.problems);
    layer
}

/// Reads `profiles`, by name and in order of the file.
pub(super) fn profiles<'c>(node: &'c Node<'_>, scope: &mut Scope<'c>) -> Vec<(&'c str, Layer)> {
    let Some(entries) = node.map("a map of profiles", &mut scope.problems) else {
        return Vec::new();
    };
    let mut profiles = Vec::with_capacity(entries.len());
    for (name, node) in entries.iter().filter(|(name, _)| name != "<<") {
        if let Some(why) = why_no_name(name) {
            scope.problems.add(node.at, why);
        }
        let layer = if node.is_null() { Layer::default() } else { of_map(node, scope) };
        profiles.push((name.as_ref(), layer));
    }
    profiles
}
