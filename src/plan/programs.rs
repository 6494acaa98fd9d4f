//! The plan's programs as they are on this machine, each looked at once however many commands share it.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Plan, ProgramId, ProgramSpec, RunAs, Step, Task, source_program};
use crate::error::Error;
use crate::program::{self, Program, Recheck, Rights, Warning};

/// The programs of a plan, and this one, which commands call to redeem their tokens.
pub struct Programs {
    all: Vec<Looked>,
    client: Looked,
}

/// What to do where others could exchange this program: nobody else can write what is root's, and nobody can look into
/// the processes of what cannot be read.
const INSTALL: &str =
    "install it as root's, for nobody to read: sudo install -o root -g root -m 0711 backupnizza /usr/local/bin/";

/// What became of looking for a program.
type Looked = RwLock<Result<Arc<Program>, Error>>;

impl Programs {
    /// Looks for all programs, on the daemon's `path_variable` where a command has none of its own, and
    /// at `client`, this program. The warnings tell of groups that could change them.
    pub fn look_at(plan: &Plan, path_variable: &OsStr, client: &Path) -> (Programs, Vec<Warning>) {
        let path_variable: Arc<OsStr> = path_variable.into();
        let mut warnings = Vec::new();
        let mut keep = |looked_at: Result<(Program, Vec<Warning>), Error>| {
            RwLock::new(looked_at.map(|(program, mut found)| {
                warnings.append(&mut found);
                Arc::new(program)
            }))
        };
        let all = plan.programs().map(|(_, spec)| keep(look_at(spec, &path_variable))).collect();
        let client = keep(program::inspect(client, None, &path_variable, None).map_err(|error| error.hint(INSTALL)));
        let programs = Programs { all, client };
        warnings.extend(programs.closed(plan));
        warnings.sort();
        warnings.dedup();
        (programs, warnings)
    }

    /// What the users as whom commands run could not execute.
    fn closed(&self, plan: &Plan) -> Vec<Warning> {
        let mut looked_at = HashSet::new();
        let mut warnings = Vec::new();
        for step in plan.tasks().filter(|(_, task)| task.enabled).flat_map(|(_, task)| task.commands()) {
            let Some(user) = &step.user else { continue };
            let needed = [Some(&self.all[step.program.index()]), step.redeems().then_some(&self.client)];
            for program in needed.into_iter().flatten().filter_map(|looked| get(looked).ok()) {
                if looked_at.insert((user.uid, program.path().to_owned())) {
                    warnings.extend(closed_to(program.path(), user));
                }
            }
        }
        warnings
    }

    /// What is wrong with this program and those that something enabled needs, and who that is.
    pub fn problems(&self, plan: &Plan) -> Vec<Error> {
        let needed = plan.programs().filter(|(_, spec)| spec.needed);
        let wrong: Vec<(ProgramId, Error)> =
            needed.filter_map(|(id, _)| self.get(id).err().map(|error| (id, error))).collect();
        let users = if wrong.is_empty() { Vec::new() } else { users(plan) };
        let told = wrong.into_iter().map(|(id, error)| match users[id.index()].as_ref().map(User::words) {
            Some(user) => Error { what: format!("{}, needed by {user}", error.what), ..error },
            None => match plan.secrets().find(|(_, secret)| source_program(&secret.source) == Some(id)) {
                Some((_, secret)) => {
                    Error { what: format!("{}, needed by secret {}", error.what, secret.name), ..error }
                }
                None => error,
            },
        });
        told.chain(get(&self.client).err()).collect()
    }

    pub fn get(&self, id: ProgramId) -> Result<Arc<Program>, Error> {
        get(&self.all[id.index()])
    }

    /// The program, if it may still be run, and what to tell of a change that is none to worry about.
    pub fn check(&self, id: ProgramId) -> Result<(Arc<Program>, Vec<Warning>), Error> {
        check(&self.all[id.index()])
    }

    /// As `check`, this program.
    pub fn check_client(&self) -> Result<(Arc<Program>, Vec<Warning>), Error> {
        check(&self.client)
    }

    /// Looks for all programs again, and takes them as they are now. If something is wrong with one that
    /// something enabled needs, all stay as they were.
    pub fn look_again(&self, plan: &Plan, path_variable: &OsStr, client: &Path) -> Result<Vec<Warning>, Vec<Error>> {
        let (now, warnings) = Programs::look_at(plan, path_variable, client);
        let problems = now.problems(plan);
        if !problems.is_empty() {
            return Err(problems);
        }
        let new = now.all.into_iter().chain([now.client]);
        for (old, new) in self.all.iter().chain([&self.client]).zip(new) {
            *old.write().unwrap_or_else(PoisonError::into_inner) =
                new.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        Ok(warnings)
    }
}

/// The first command of an enabled task that needs a program, and how many others do.
struct User<'p> {
    task: &'p Task,
    step: &'p Step,
    others: usize,
}

impl User<'_> {
    fn words(&self) -> String {
        let is_step = self.task.steps.iter().chain(&self.task.finally).any(|step| std::ptr::eq(step, self.step));
        let who = match is_step {
            true => format!("step {} of task {}", self.step.name, self.task.name),
            false => format!("a hook or the condition of task {}", self.task.name),
        };
        if self.others > 0 { format!("{who} and {} more", self.others) } else { who }
    }
}

/// Who needs each program of the plan; nobody where only a source does.
fn users(plan: &Plan) -> Vec<Option<User<'_>>> {
    let mut users: Vec<Option<User<'_>>> = plan.programs().map(|_| None).collect();
    for (_, task) in plan.tasks().filter(|(_, task)| task.enabled) {
        for step in task.commands() {
            match &mut users[step.program.index()] {
                Some(user) => user.others += 1,
                none => *none = Some(User { task, step, others: 0 }),
            }
        }
    }
    users
}

fn closed_to(path: &Path, user: &RunAs) -> Option<Warning> {
    let place = program::shown(program::closed_to(path, Rights { uid: user.uid, groups: &user.groups })?);
    Some(Warning {
        object: program::shown(path),
        what: format!("user {} cannot execute it: {place} is closed to that user", user.name),
        hint: Some(format!("chmod o+x {place}, or install it where all may go, such as /usr/local/bin")),
    })
}

fn get(looked: &Looked) -> Result<Arc<Program>, Error> {
    looked.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn check(looked: &Looked) -> Result<(Arc<Program>, Vec<Warning>), Error> {
    let program = get(looked)?;
    match program::check_again(&program)? {
        Recheck::Unchanged => Ok((program, Vec::new())),
        Recheck::Renewed { program, notices } => {
            let program: Arc<Program> = Arc::from(program);
            *looked.write().unwrap_or_else(PoisonError::into_inner) = Ok(program.clone());
            Ok((program, notices))
        }
    }
}

fn look_at(spec: &ProgramSpec, path_variable: &Arc<OsStr>) -> Result<(Program, Vec<Warning>), Error> {
    let path_variable = match &spec.path_variable {
        Some(own) => Arc::from(OsString::from(own)),
        None => path_variable.clone(),
    };
    let path = program::find(&spec.name, &path_variable, Path::new(&spec.base))?;
    program::inspect(&path, spec.sha256.as_ref(), &path_variable, spec.user)
}
