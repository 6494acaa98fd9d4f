//! What every part of the file is read against: the names that it may use and the problems so far.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Host, LockId, RunAs, SecretId};
use crate::config::{Kind, Node, Problems, Value};

/// The longest name, since names of locks and secrets become names of files.
const MAX_NAME: usize = 128;

/// The surroundings of what is being read.
pub(super) struct Scope<'c> {
    pub host: &'c Host,
    pub problems: Problems,
    pub secrets: HashMap<&'c str, SecretId>,
    /// Those that were looked for, each once.
    users: HashMap<&'c str, Result<Option<Arc<RunAs>>, &'static str>>,
    locks: HashMap<&'c str, LockId>,
    pub lock_names: Vec<String>,
}

impl<'c> Scope<'c> {
    pub fn new(host: &'c Host, problems: Problems) -> Self {
        Scope {
            host,
            problems,
            secrets: HashMap::new(),
            users: HashMap::new(),
            locks: HashMap::new(),
            lock_names: Vec::new(),
        }
    }

    /// A name that stands as a value: letters, digits, `.`, `_`, `-`.
    pub fn name<'n>(&mut self, node: &'n Node<'_>) -> Option<&'n str> {
        let name = node.text("a name", &mut self.problems)?;
        match why_no_name(name) {
            Some(why) => {
                self.problems.add(node.at, why);
                None
            }
            None => Some(name),
        }
    }

    /// The secret that `node` names.
    pub fn secret(&mut self, node: &Node<'_>) -> Option<SecretId> {
        let name = node.text("the name of a secret", &mut self.problems)?;
        let id = self.secrets.get(name).copied();
        if id.is_none() {
            self.problems.add_unknown(node.at, "no secret has this name", name, self.secrets.keys().copied());
        }
        id
    }

    /// The lock that `node` names; naming it makes it.
    pub fn lock(&mut self, node: &'c Node<'_>) -> Option<LockId> {
        let name = self.name(node)?;
        let next = LockId(self.lock_names.len() as u32);
        let id = *self.locks.entry(name).or_insert(next);
        if id == next {
            self.lock_names.push(name.to_string());
        }
        Some(id)
    }

    /// An absolute path, or one below the home directory of the daemon's user.
    pub fn path(&mut self, node: &Node<'_>) -> Option<PathBuf> {
        self.unexpanded_path(node).map(|path| self.host.expand(&path).into())
    }

    /// An absolute path, or one below a home directory that is not known yet.
    pub fn unexpanded_path(&mut self, node: &Node<'_>) -> Option<String> {
        const WANTED: &str = "an absolute path or one that begins with ~/";
        // A bare `~` reads as null, but it is as good a path as any.
        let text = match &node.value {
            Value::Scalar(Kind::Null, text) if text == "~" => Cow::Borrowed("~"),
            _ => Cow::Borrowed(node.text(WANTED, &mut self.problems)?),
        };
        if !(text.starts_with('/') || text == "~" || text.starts_with("~/")) {
            self.problems.add(node.at, format!("expected {WANTED}"));
            return None;
        }
        Some(text.into_owned())
    }

    /// The user that `node` names, `None` for the daemon's own.
    pub fn user(&mut self, node: &'c Node<'_>) -> Option<Option<Arc<RunAs>>> {
        let name = node.text("the name of a user", &mut self.problems)?;
        let find = self.host.find_user;
        match self.users.entry(name).or_insert_with(|| find(name).map(|user| user.map(Arc::new))) {
            Ok(user) => Some(user.clone()),
            Err(why) => {
                self.problems.add(node.at, *why);
                None
            }
        }
    }

    /// The name of an environment variable that stands as a value.
    pub fn variable<'n>(&mut self, node: &'n Node<'_>) -> Option<&'n str> {
        let name = node.text("the name of a variable", &mut self.problems)?;
        if name.contains('=') {
            self.problems.add(node.at, "the name of a variable cannot hold `=`");
            return None;
        }
        Some(name)
    }
}

/// Why `name` cannot be the name of anything.
pub(super) fn why_no_name(name: &str) -> Option<&'static str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match name {
        "" => Some("an empty name"),
        "." | ".." => Some("`.` and `..` cannot be names, since names become names of files"),
        _ if name.len() > MAX_NAME => Some("a name of more than 128 characters"),
        _ if !name.bytes().all(fits) => Some("expected a name of letters, digits, `.`, `_` and `-`"),
        _ => None,
    }
}
