//! The plan's programs as they are on this machine, each looked at once however many commands share it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Plan, ProgramId, ProgramSpec};
use crate::error::Error;
use crate::program::{self, Program, Recheck, Warning};

/// What became of looking for each program of a plan.
pub struct Programs(Vec<RwLock<Result<Arc<Program>, Error>>>);

impl Programs {
    /// Looks for all programs, on the daemon's `path_variable` where a command has none of its own.
    /// The warnings tell of groups that could change them.
    pub fn look_at(plan: &Plan, path_variable: &OsStr) -> (Programs, Vec<Warning>) {
        let path_variable: Arc<OsStr> = path_variable.into();
        let mut warnings = Vec::new();
        let all = plan.programs().map(|(_, spec)| {
            let looked_at = look_at(spec, &path_variable).map(|(program, mut found)| {
                warnings.append(&mut found);
                Arc::new(program)
            });
            RwLock::new(looked_at)
        });
        let programs = Programs(all.collect());
        warnings.sort();
        warnings.dedup();
        (programs, warnings)
    }

    /// What is wrong with the programs that something enabled needs.
    pub fn problems(&self, plan: &Plan) -> Vec<Error> {
        plan.programs().filter(|(_, spec)| spec.needed).filter_map(|(id, _)| self.get(id).err()).collect()
    }

    pub fn get(&self, id: ProgramId) -> Result<Arc<Program>, Error> {
        self.0[id.index()].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The program, if it may still be run, and what to tell of a change that is none to worry about.
    pub fn check(&self, id: ProgramId) -> Result<(Arc<Program>, Vec<Warning>), Error> {
        let program = self.get(id)?;
        match program::check_again(&program)? {
            Recheck::Unchanged => Ok((program, Vec::new())),
            Recheck::Renewed { program, notices } => {
                let program: Arc<Program> = Arc::from(program);
                *self.0[id.index()].write().unwrap_or_else(PoisonError::into_inner) = Ok(program.clone());
                Ok((program, notices))
            }
        }
    }
}

impl Programs {
    /// Looks for all programs again, and takes them as they are now. If something is wrong with one that
    /// something enabled needs, all stay as they were.
    pub fn look_again(&self, plan: &Plan, path_variable: &OsStr) -> Result<Vec<Warning>, Vec<Error>> {
        let (now, warnings) = Programs::look_at(plan, path_variable);
        let problems = now.problems(plan);
        if !problems.is_empty() {
            return Err(problems);
        }
        for (old, new) in self.0.iter().zip(now.0) {
            *old.write().unwrap_or_else(PoisonError::into_inner) =
                new.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        Ok(warnings)
    }
}

fn look_at(spec: &ProgramSpec, path_variable: &Arc<OsStr>) -> Result<(Program, Vec<Warning>), Error> {
    let path_variable = match &spec.path_variable {
        Some(own) => Arc::from(OsString::from(own)),
        None => path_variable.clone(),
    };
    let path = program::find(&spec.name, &path_variable, Path::new(&spec.base))?;
    program::inspect(&path, spec.sha256.as_ref(), &path_variable)
}
