//! The configuration file as written: read, bounded, and taken apart into a tree.
//!
//! A tree that is read field by field, not serde structs: those stop at the first problem, and
//! repeat values in their messages, where every problem is to be told in one go and no value ever.

mod problem;
mod scalar;
mod scan;
mod section;
mod tree;
mod usual;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

pub use problem::{Problem, Problems, nearest};
pub use section::Section;
pub use tree::{Kind, Node, Value};

/// The largest file that is read, in bytes: ten thousand tasks and more.
const MAX_BYTES: u64 = 4 << 20;

/// A configuration, well-formed but not understood.
#[derive(Debug)]
pub struct Config<'t> {
    root: Node<'t>,
}

/// Reads the file's text.
///
/// # Errors
/// It is no regular file, cannot be read, is larger than 4 MiB or not UTF-8.
pub fn read(file: &Path) -> Result<String, Problem> {
    // Looked at before it is opened: opening a FIFO would wait for its writer.
    let bytes = regular(fs::metadata(file)).and_then(|()| {
        let opened = File::open(file).map_err(io_problem)?;
        let metadata = opened.metadata().map_err(io_problem)?;
        let length = metadata.len().min(MAX_BYTES) as usize;
        regular(Ok(metadata))?;
        // With room to see the end.
        let mut bytes = Vec::with_capacity(length + 1);
        opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io_problem)?;
        Ok(bytes)
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Problem::new("", "larger than 4 MiB", None));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Problem::new(format!("line {line}"), "not UTF-8", None)
    })
}

fn regular(metadata: io::Result<fs::Metadata>) -> Result<(), Problem> {
    match metadata.map_err(io_problem)? {
        metadata if metadata.is_file() => Ok(()),
        metadata if metadata.is_dir() => Err(Problem::new("", "a folder, expected a file", None)),
        _ => Err(Problem::new("", "not a regular file", None)),
    }
}

fn io_problem(error: io::Error) -> Problem {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        _ => format!("cannot be read: {error}"),
    };
    Problem::new("", what, None)
}

impl<'t> Config<'t> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// What the parser reports, nesting deeper than 64, tags, more than one document, growth by
    /// aliases beyond all measure, and a file without content.
    pub fn parse(text: &'t str) -> Result<Self, Problem> {
        // Some editors begin a file with the mark of its byte order.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root = match usual::read(text) {
            Some(root) => root,
            None => by_parser(text)?,
        };
        match root.value {
            Value::Scalar(Kind::Null, _) => {
                let hint = "`backupnizza example` prints a file to start from";
                Err(Problem::new("", "empty, expected a map with `tasks`", Some(hint)))
            }
            _ => Ok(Config { root }),
        }
    }

    pub fn root(&self) -> &Node<'t> {
        &self.root
    }

    /// What is wrong whatever the tree means: keys given twice, merge keys, NUL.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        tree::check(&self.root, &mut problems);
        problems
    }
}

fn by_parser(text: &str) -> Result<Node<'_>, Problem> {
    let scan = scan::scan(text)?;
    tree::read(text, scan.unusual_scalars)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
