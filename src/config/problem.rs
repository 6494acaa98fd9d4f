//! What is wrong with a configuration, each with its place, collected so that all is told in one go.

use std::cmp::Reverse;
use std::path::Path;

use super::tree::{Node, Value};
use crate::error::Error;

/// The most problems that are told at once: nobody reads further.
const MAX_PROBLEMS: usize = 100;

/// The most problems that are kept until they are sorted.
const MAX_KEPT: usize = 10_000;

/// The most names among which the nearest to a wrong one is looked for.
const MAX_COMPARED: usize = 1_000;

/// The longest key that is repeated in a message.
const MAX_SHOWN_KEY: usize = 40;

/// One thing that is wrong with the file. It tells a place and what was expected, never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `line 3 column 7` where the parser knows it, else a path such as `tasks[2].steps[0].command[1]`;
    /// empty for the file as a whole.
    pub place: String,
    pub what: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(place: impl Into<String>, what: impl Into<String>, hint: Option<&str>) -> Self {
        Problem { place: place.into(), what: what.into(), hint: hint.map(str::to_string) }
    }

    /// The problem as an error of the file that has it.
    pub fn in_file(self, file: &Path) -> Error {
        let object = match self.place.as_str() {
            "" => file.display().to_string(),
            place => format!("{}: {place}", file.display()),
        };
        Error { object, what: self.what, hint: self.hint }
    }
}

/// A place in the text, both counted from 1.
pub fn place(line: usize, column: usize) -> String {
    format!("line {line} column {column}")
}

/// The problems found so far, each at a node of the tree.
#[derive(Debug, Default)]
pub struct Problems(Vec<Found>);

#[derive(Debug)]
struct Found {
    at: u32,
    what: String,
    hint: Option<String>,
}

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is wrong with the node at `at`.
    pub fn add(&mut self, at: u32, what: impl Into<String>) {
        self.add_hint(at, what, None);
    }

    /// As `add`, with what to do about it.
    pub fn add_hint(&mut self, at: u32, what: impl Into<String>, hint: Option<String>) {
        if self.0.len() < MAX_KEPT {
            self.0.push(Found { at, what: what.into(), hint });
        }
    }

    /// Notes a name that stands for nothing, with the nearest that does as a hint.
    pub fn add_unknown<'n>(&mut self, at: u32, what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) {
        let hint = self.nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        self.add_hint(at, what, hint);
    }

    /// As `nearest`, as long as anybody would read the answer.
    pub fn nearest<'n>(&self, name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        if self.0.len() >= MAX_PROBLEMS {
            return None;
        }
        // What can be no name may be a value that slipped to its place.
        let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let known: Vec<&str> = known.into_iter().filter(is_name).take(MAX_COMPARED + 1).collect();
        (known.len() <= MAX_COMPARED).then(|| nearest(name, known)).flatten()
    }

    /// The problems in order of the file, with the paths of their nodes.
    pub fn located(mut self, root: &Node<'_>) -> Vec<Problem> {
        self.0.sort_by_key(|found| found.at);
        let more = self.0.len().saturating_sub(MAX_PROBLEMS);
        self.0.truncate(MAX_PROBLEMS);
        self.0.sort_by_key(|found| Reverse(found.at));
        let mut located = Vec::new();
        locate(root, &mut String::new(), &mut self.0, &mut located);
        if more > 0 {
            located.push(Problem::new("", format!("{more} or more further problems are not shown"), None));
        }
        located
    }
}

/// Takes from the end of `rest` the problems of this node and of those below it.
fn locate(node: &Node<'_>, path: &mut String, rest: &mut Vec<Found>, located: &mut Vec<Problem>) {
    while let Some(found) = rest.pop_if(|found| found.at <= node.at) {
        located.push(Problem { place: path.clone(), what: found.what, hint: found.hint });
    }
    let length = path.len();
    match &node.value {
        Value::Scalar(..) => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                locate(item, path, rest, located);
                path.truncate(length);
            }
        }
        Value::Map(entries) => {
            for (index, (key, item)) in entries.iter().enumerate() {
                push_key(path, key, index);
                locate(item, path, rest, located);
                path.truncate(length);
            }
        }
    }
}

/// A key is shown if it looks like one: anything else may be a value that slipped to its place.
fn push_key(path: &mut String, key: &str, index: usize) {
    if !path.is_empty() {
        path.push('.');
    }
    let shown = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key == "<<" || (1..=MAX_SHOWN_KEY).contains(&key.len()) && key.bytes().all(shown) {
        path.push_str(key);
    } else {
        path.push_str(&format!("(key {})", index + 1));
    }
}

/// The one of `known` that `name` was most likely meant to be, if any is close enough.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let limit = match name.len() {
        0..=1 | 65.. => return None,
        2..=4 => 1,
        _ => 2,
    };
    let near = known.into_iter().filter(|other| other.len().abs_diff(name.len()) <= limit);
    let rated = near.map(|other| (distance(name.as_bytes(), other.as_bytes()), other));
    rated.filter(|&(distance, _)| distance <= limit).min().map(|(_, other)| other)
}

/// How many insertions, deletions, changes and swaps of neighbours turn `a` into `b`
/// (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["command", "schedule", "steps", "name"];
        assert_eq!(nearest("comand", known), Some("command"));
        assert_eq!(nearest("shcedule", known), Some("schedule"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("retention", known), None);
        assert_eq!(nearest("", known), None);
    }
}
