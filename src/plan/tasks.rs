//! The list of tasks as written: each is read and checked by itself, then assembled with what its layers say.

use std::collections::{HashMap, HashSet};

use super::assemble::{Assembler, TOO_LARGE, TooLarge};
use super::command::{self, StepSpec};
use super::layer::{self, Layer};
use super::scope::Scope;
use super::{OnError, Order, Task};
use crate::config::{Node, Section, Value};
use crate::schedule::Schedule;

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
    /// Of a task with a `command`, that alone: its environment and the like stand beside it and are its policy.
    pub steps: Vec<StepSpec>,
    pub finally: Vec<StepSpec>,
}

/// Reads the tasks, and assembles each as long as there is no problem.
pub(super) fn read<'c>(node: &'c Node<'_>, assembler: &mut Assembler<'_, 'c>, scope: &mut Scope<'c>) -> Vec<Task> {
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
    let written = command_or_steps(map, &mut step_names, scope);
    let finally = map.optional("finally").map(|node| steps(node, "a list of commands", &mut step_names, scope));
    let finally = finally.unwrap_or_default();
    Some(TaskSpec {
        name: name?.1,
        profiles: profiles.unwrap_or_default(),
        layer,
        schedules: schedules.unwrap_or_default(),
        order: order.unwrap_or(Order::Sequence),
        on_error: on_error.unwrap_or(OnError::Stop),
        steps: written?,
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
fn command_or_steps<'c>(
    map: &mut Section<'c, '_>,
    names: &mut HashSet<String>,
    scope: &mut Scope<'c>,
) -> Option<Vec<StepSpec>> {
    let Some(list) = map.optional("steps") else {
        if map.optional("command").is_none() {
            map.know(&["stdin", "sha256"]);
            scope.problems.add(map.at(), "has nothing to do, expected `command` or `steps`");
            return None;
        }
        return command::command_line(map, scope).map(|line| vec![StepSpec::bare(line)]);
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
    Some(steps)
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
