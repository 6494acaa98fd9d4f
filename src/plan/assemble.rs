//! Merges the layers of each task: step over task over profiles over `defaults`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::build::Programs;
use super::command::{StepSpec, Variable};
use super::exit_codes;
use super::host::expand;
use super::layer::{HooksLayer, Layer, Setting};
use super::pool::Pools;
use super::tasks::TaskSpec;
use super::{Condition, Hooks, MaxAge, Missed, OutputMode, Overlap, PassEnvironment, Policy, Retry};
use super::{Host, ProgramSpec, RunAs, Signal, Step, StopPolicy, Task, Value};

const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(60);
const DEFAULT_MISSED_DELAY: Duration = Duration::from_secs(60);
const DEFAULT_RECHECK: Duration = Duration::from_secs(5 * 60);
/// For hooks, `only_if` and `finally`: they must not keep a task from its end.
const DEFAULT_SIDE_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of arguments and variables that all tasks come to with what they take from
/// profiles and `defaults`: a small file could stand for a huge plan otherwise.
const MAX_PLAN_BYTES: usize = 64 << 20;

/// What is wrong when that is exceeded.
pub(super) const TOO_LARGE: &str =
    "the tasks up to this one come to more than 64 MiB with what they take from profiles and defaults";

/// The plan became too large.
#[derive(Debug)]
pub(super) struct TooLarge;

pub(super) struct Assembler<'p, 'c> {
    host: &'p Host,
    defaults: &'p Layer,
    profiles: &'p [(&'c str, Layer)],
    programs: &'p mut Programs,
    bytes: usize,
    pools: Pools,
}

/// What a task gives to each of its commands.
struct Context<'l> {
    layers: &'l [&'l Layer],
    /// In order of name.
    environment: Vec<(&'l str, &'l Value)>,
    pass_environment: PassEnvironment,
    working_directory: PathBuf,
    /// As whom they run, if not as the daemon's user, and that user's home directory, or the daemon's.
    user: Option<Arc<RunAs>>,
    home: Cow<'l, str>,
    needed: bool,
}

impl<'p, 'c> Assembler<'p, 'c> {
    pub fn new(
        host: &'p Host,
        defaults: &'p Layer,
        profiles: &'p [(&'c str, Layer)],
        programs: &'p mut Programs,
    ) -> Self {
        Assembler { host, defaults, profiles, programs, bytes: 0, pools: Pools::default() }
    }

    /// The profiles' indices by name.
    pub fn profile_names(&self) -> HashMap<&'c str, usize> {
        self.profiles.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect()
    }

    pub fn task(&mut self, spec: &TaskSpec<'_>) -> Result<Task, TooLarge> {
        let profiles = self.profiles;
        let chosen = spec.profiles.iter().map(|&index| &profiles[index].1);
        // From the farthest to the nearest.
        let layers: Vec<&Layer> = iter::once(self.defaults).chain(chosen).chain([&spec.layer]).collect();
        let layers = layers.as_slice();
        let enabled = *pick(layers, |layer| &layer.enabled).unwrap_or(&true);
        let user = pick(layers, |layer| &layer.user).cloned().flatten();
        let own = user.clone();
        let home = own.as_ref().map_or_else(|| self.host.home.to_string_lossy(), |user| user.home.as_str().into());
        let context = Context {
            layers,
            environment: merged_environment(layers).ok_or(TooLarge)?,
            pass_environment: pick(layers, |layer| &layer.pass_environment)
                .cloned()
                .unwrap_or(PassEnvironment::Named(Vec::new())),
            working_directory: pick(layers, |layer| &layer.working_directory)
                .map_or_else(|| home.to_string(), |path| expand(path, &home))
                .into(),
            user,
            home,
            needed: enabled,
        };
        let (steps, finally) = self.work(spec, &context);
        let policy = self.policy(layers, &context);
        if self.bytes > MAX_PLAN_BYTES {
            return Err(TooLarge);
        }
        Ok(Task {
            name: spec.name.to_string(),
            enabled,
            schedules: spec.schedules.clone(),
            order: spec.order,
            on_error: spec.on_error,
            steps,
            finally,
            policy: self.pools.policies.share(policy),
        })
    }

    fn work(&mut self, spec: &TaskSpec<'_>, context: &Context<'_>) -> (Vec<Step>, Vec<Step>) {
        let mut names = names(spec.steps.iter().chain(&spec.finally)).into_iter();
        let mut steps = Vec::with_capacity(spec.steps.len());
        for step in &spec.steps {
            let name = names.next().unwrap_or_default();
            steps.push(self.task_step(step, name, None, context));
        }
        let mut finally = Vec::with_capacity(spec.finally.len());
        for step in &spec.finally {
            let name = names.next().unwrap_or_default();
            finally.push(self.task_step(step, name, Some(DEFAULT_SIDE_TIMEOUT), context));
        }
        (steps, finally)
    }

    /// A step that gets the task's environment.
    fn task_step(&mut self, spec: &StepSpec, name: String, timeout: Option<Duration>, context: &Context<'_>) -> Step {
        let environment = if spec.environment.is_empty() {
            context.environment.iter().map(|(name, value)| (name.to_string(), (*value).clone())).collect()
        } else {
            with_own_environment(&context.environment, &spec.environment)
        };
        self.step(spec, name, environment, timeout, context)
    }

    /// A hook or a condition, which gets its own environment alone.
    fn side_step(&mut self, spec: &StepSpec, name: &str, context: &Context<'_>) -> Step {
        let environment = with_own_environment(&[], &spec.environment);
        let name = spec.name.clone().unwrap_or_else(|| name.to_string());
        self.step(spec, name, environment, Some(DEFAULT_SIDE_TIMEOUT), context)
    }

    fn step(
        &mut self,
        spec: &StepSpec,
        name: String,
        mut environment: Vec<(String, Value)>,
        timeout: Option<Duration>,
        context: &Context<'_>,
    ) -> Step {
        let home = context.home.as_ref();
        let working_directory = match &spec.working_directory {
            Setting::Unset => context.working_directory.clone(),
            Setting::Reset => home.into(),
            Setting::To(path) => expand(path, home).into(),
        };
        for (_, value) in &mut environment {
            if let Value::Text(text) = value
                && text.starts_with('~')
            {
                *text = expand(text, home);
            }
        }
        let arguments: Vec<String> = spec.line.arguments.iter().map(|argument| expand(argument, home)).collect();
        let codes = context.layers.iter().map(|layer| &layer.exit_codes).chain([&spec.exit_codes]);
        self.bytes += environment
            .iter()
            .map(|(name, value)| size_of::<(String, Value)>() + name.len() + text_length(value))
            .sum::<usize>();
        self.bytes += arguments.iter().map(|argument| size_of::<String>() + argument.len()).sum::<usize>();
        let own_path = environment.iter().find(|(name, _)| name == "PATH").and_then(|(_, value)| value.text());
        let program = self.programs.add(ProgramSpec {
            name: expand(&spec.line.program, home),
            base: working_directory.clone(),
            path_variable: own_path.map(str::to_owned),
            sha256: spec.line.sha256,
            user: context.user.as_ref().map(|user| user.uid),
            needed: context.needed,
        });
        Step {
            name,
            program,
            arguments: self.pools.arguments.share(arguments),
            environment: self.pools.environments.share(environment),
            pass_environment: context.pass_environment.clone(),
            stdin: spec.line.stdin,
            exit_codes: self.pools.exit_codes.share(exit_codes::merge(&spec.line.program, codes)),
            timeout: match spec.timeout {
                Setting::Unset | Setting::Reset => timeout,
                Setting::To(timeout) => Some(timeout),
            },
            working_directory: self.pools.directories.share(working_directory),
            user: context.user.clone(),
        }
    }

    fn policy(&mut self, layers: &[&Layer], context: &Context<'_>) -> Policy {
        Policy {
            timeout: pick(layers, |layer| &layer.timeout).copied(),
            stop: StopPolicy {
                signal: *pick(layers, |layer| &layer.stop_signal).unwrap_or(&Signal::Int),
                grace: *pick(layers, |layer| &layer.stop_grace).unwrap_or(&DEFAULT_STOP_GRACE),
            },
            retry: Retry {
                times: *pick_within(layers, |layer| &layer.retry, |retry| &retry.times).unwrap_or(&0),
                delay: *pick_within(layers, |layer| &layer.retry, |retry| &retry.delay).unwrap_or(&DEFAULT_RETRY_DELAY),
            },
            overlap: *pick(layers, |layer| &layer.overlap).unwrap_or(&Overlap::Skip),
            missed: *pick(layers, |layer| &layer.missed).unwrap_or(&Missed::Run),
            missed_delay: *pick(layers, |layer| &layer.missed_delay).unwrap_or(&DEFAULT_MISSED_DELAY),
            jitter: *pick(layers, |layer| &layer.jitter).unwrap_or(&Duration::ZERO),
            locks: pick(layers, |layer| &layer.locks).cloned().unwrap_or_default(),
            only_if: pick(layers, |layer| &layer.only_if).map(|condition| {
                Box::new(Condition {
                    check: self.side_step(&condition.check, "only_if", context),
                    recheck: match condition.recheck {
                        Setting::Unset | Setting::Reset => DEFAULT_RECHECK,
                        Setting::To(recheck) => recheck,
                    },
                })
            }),
            run_anyway_after: pick(layers, |layer| &layer.run_anyway_after).copied(),
            max_wait: pick(layers, |layer| &layer.max_wait).copied(),
            max_age: *pick(layers, |layer| &layer.max_age).unwrap_or(&MaxAge::FromSchedule),
            output: *pick(layers, |layer| &layer.output).unwrap_or(&OutputMode::Log),
            hooks: self.hooks(layers, context),
        }
    }

    fn hooks(&mut self, layers: &[&Layer], context: &Context<'_>) -> Hooks {
        let mut hook = |name: &str, of: fn(&HooksLayer) -> &Setting<StepSpec>| {
            let spec = pick_within(layers, |layer| &layer.hooks, |hooks| of(hooks))?;
            let step = self.side_step(spec, name, context);
            Some(self.pools.hooks.share(step))
        };
        Hooks {
            start: hook("start", |hooks| &hooks.start),
            success: hook("success", |hooks| &hooks.success),
            warning: hook("warning", |hooks| &hooks.warning),
            failure: hook("failure", |hooks| &hooks.failure),
            end: hook("end", |hooks| &hooks.end),
            stale: hook("stale", |hooks| &hooks.stale),
            recovery: hook("recovery", |hooks| &hooks.recovery),
        }
    }
}

/// What the nearest layer says that says anything; `None` is the default that is built in.
fn pick<'l, T>(layers: &[&'l Layer], of: impl Fn(&'l Layer) -> &'l Setting<T>) -> Option<&'l T> {
    for layer in layers.iter().rev() {
        match of(layer) {
            Setting::Unset => {}
            Setting::Reset => return None,
            Setting::To(value) => return Some(value),
        }
    }
    None
}

/// As `pick`, for a key of a map that merges key by key.
fn pick_within<'l, M: 'l, T>(
    layers: &[&'l Layer],
    map: impl Fn(&'l Layer) -> &'l Setting<M>,
    of: impl Fn(&'l M) -> &'l Setting<T>,
) -> Option<&'l T> {
    for layer in layers.iter().rev() {
        match map(layer) {
            Setting::Unset => {}
            Setting::Reset => return None,
            Setting::To(map) => match of(map) {
                Setting::Unset => {}
                Setting::Reset => return None,
                Setting::To(value) => return Some(value),
            },
        }
    }
    None
}

/// The variables that a task's commands get from its layers, in order of name; `None` if there
/// are too many to look at.
fn merged_environment<'l>(layers: &[&'l Layer]) -> Option<Vec<(&'l str, &'l Value)>> {
    let mut all: Vec<&Variable> = Vec::new();
    for layer in layers {
        match &layer.environment {
            Setting::Unset => {}
            Setting::Reset => all.clear(),
            Setting::To(variables) => all.extend(variables),
        }
        if all.len() * size_of::<Variable>() > MAX_PLAN_BYTES {
            return None;
        }
    }
    Some(last_of_each(all).into_iter().filter_map(|(name, value)| Some((name.as_str(), value.as_ref()?))).collect())
}

/// Of several settings of one variable the last, in order of name.
fn last_of_each(mut variables: Vec<&Variable>) -> Vec<&Variable> {
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    variables.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            *kept = later;
        }
        same
    });
    variables
}

/// The variables with a step's own over them.
fn with_own_environment(outer: &[(&str, &Value)], own: &[Variable]) -> Vec<(String, Value)> {
    let own = last_of_each(own.iter().collect());
    let mut merged = Vec::with_capacity(outer.len() + own.len());
    let mut outer = outer.iter().peekable();
    for (name, value) in own {
        while let Some((before, value)) = outer.next_if(|(before, _)| *before < name.as_str()) {
            merged.push((before.to_string(), (*value).clone()));
        }
        outer.next_if(|(same, _)| same == name);
        if let Some(value) = value {
            merged.push((name.clone(), value.clone()));
        }
    }
    merged.extend(outer.map(|(name, value)| (name.to_string(), (*value).clone())));
    merged.shrink_to_fit();
    merged
}

fn text_length(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Token { .. } => 0,
        Value::File { wrap, .. } | Value::Plain { wrap, .. } => wrap.prefix.len() + wrap.suffix.len(),
    }
}

/// The names of a task's steps: as written, else the program's base name, made unique.
fn names<'s>(steps: impl Iterator<Item = &'s StepSpec> + Clone) -> Vec<String> {
    // Most tasks have just one.
    if let (Some(only), None) = (steps.clone().next(), steps.clone().nth(1)) {
        return vec![only.name.clone().unwrap_or_else(|| base_name(&only.line.program))];
    }
    let mut taken: HashSet<String> = steps.clone().filter_map(|step| step.name.clone()).collect();
    let mut names = Vec::new();
    let mut next = HashMap::new();
    for step in steps {
        names.push(match &step.name {
            Some(name) => name.clone(),
            None => {
                let base = base_name(&step.line.program);
                let number = next.entry(base.clone()).or_insert(1);
                let mut name = if *number == 1 { base.clone() } else { format!("{base}-{number}") };
                while !taken.insert(name.clone()) {
                    *number += 1;
                    name = format!("{base}-{number}");
                }
                *number += 1;
                name
            }
        });
    }
    names
}

/// The program's base name as far as it can be a name.
fn base_name(program: &str) -> String {
    let base = program.rsplit('/').next().unwrap_or(program);
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    match base {
        "" | "." | ".." => "command".to_string(),
        _ => base.chars().take(64).map(fit).collect(),
    }
}
