//! `env:` sources: taken out of the process's environment once, before anything can inherit them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::secret::{ReadError, SECRET_MAX, Secret, no_memory};
use crate::sys::{self, Arena, Block, MemoryError};

use super::Reason;

/// The variables that `env:` sources name, and their values.
#[derive(Debug, Default)]
pub struct Variables(Vec<Variable>);

#[derive(Debug)]
struct Variable {
    name: String,
    value: Mutex<Value>,
}

#[derive(Debug)]
enum Value {
    Unset,
    Kept(Block),
    TooLong,
    /// By `wipe`; the environment itself was overwritten long before.
    Wiped,
}

impl Variables {
    /// Takes the variables of these names out of the environment and overwrites them there.
    ///
    /// To be called once, before the process has a second thread. A value that does not fit in
    /// protected memory is overwritten all the same.
    pub fn take<'a>(names: impl IntoIterator<Item = &'a str>, arena: &'static Arena) -> Result<Variables, Error> {
        let mut taken = Variables::default();
        let mut no_room = None;
        for name in names {
            if taken.0.iter().any(|variable| variable.name == name) {
                continue;
            }
            let mut value = Value::Unset;
            sys::overwrite_variable(name.as_ref(), |bytes| match keep(bytes, arena) {
                Ok(kept) => value = kept,
                Err(error) => no_room = Some(error),
            });
            taken.0.push(Variable { name: name.to_owned(), value: Mutex::new(value) });
        }
        no_room.map_or(Ok(taken), |error| Err(no_memory(&error)))
    }

    /// Their names; tools are not given these variables, not even empty.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|variable| variable.name.as_str())
    }

    /// Forgets all values for good.
    pub fn wipe(&self) {
        for variable in &self.0 {
            let mut value = variable.value();
            if matches!(*value, Value::Kept(_)) {
                *value = Value::Wiped;
            }
        }
    }

    /// A copy of one value. It is given as it is: a line ending at its end belongs to it.
    pub(super) fn value(&self, name: &str, arena: &'static Arena) -> Result<Secret, Reason> {
        let Some(variable) = self.0.iter().find(|variable| variable.name == name) else {
            return Err(Reason::wrong("its environment variable is not set"));
        };
        match &*variable.value() {
            Value::Unset => Err(Reason::wrong("its environment variable is not set")),
            Value::Kept(bytes) if bytes.is_empty() => Err(ReadError::Empty.into_reason("its environment variable")),
            Value::Kept(bytes) => {
                let copy = copy(bytes, arena).map_err(|error| ReadError::Memory(error).into_reason("it"))?;
                Ok(Secret::new(copy))
            }
            Value::TooLong => Err(ReadError::TooLong.into_reason("its environment variable")),
            Value::Wiped => Err(Reason::wrong("its environment variable was wiped with all secrets")
                .hint("start the daemon again with the variable set")),
        }
    }
}

impl Variable {
    fn value(&self) -> MutexGuard<'_, Value> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep(bytes: &[u8], arena: &'static Arena) -> Result<Value, MemoryError> {
    if bytes.len() > SECRET_MAX { Ok(Value::TooLong) } else { copy(bytes, arena).map(Value::Kept) }
}

fn copy(bytes: &[u8], arena: &'static Arena) -> Result<Block, MemoryError> {
    let mut block = arena.block(bytes.len())?;
    block.copy_from_slice(bytes);
    Ok(block)
}
