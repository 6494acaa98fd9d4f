//! Typed access to the tree: each question records what is wrong with the answer and goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::Problems;
use super::tree::{Kind, Node, Value};
use crate::clock;

impl<'t> Node<'t> {
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(Kind::Null, _))
    }

    /// What stands here, for messages.
    fn found(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Kind::Null, _) => "nothing",
            Value::Scalar(Kind::Boolean, _) => "a boolean",
            Value::Scalar(Kind::Number, _) => "a number",
            Value::Scalar(Kind::Text, _) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Notes that `wanted` was expected here.
    pub fn expected(&self, wanted: &str, hint: Option<&str>, problems: &mut Problems) {
        let what = format!("expected {wanted}, found {}", self.found());
        problems.add_hint(self.at, what, hint.map(str::to_string));
    }

    /// Text that is not empty; a number or a boolean needs quotes to be one.
    pub fn text(&self, wanted: &str, problems: &mut Problems) -> Option<&str> {
        match &self.value {
            Value::Scalar(Kind::Text, text) if text.is_empty() => {
                problems.add(self.at, format!("empty, expected {wanted}"));
                None
            }
            Value::Scalar(Kind::Text, text) => Some(text),
            Value::Scalar(Kind::Number | Kind::Boolean, _) => {
                self.expected(wanted, Some("put it in quotes to make it text"), problems);
                None
            }
            _ => {
                self.expected(wanted, None, problems);
                None
            }
        }
    }

    /// Any scalar as it is written.
    pub fn raw(&self, wanted: &str, problems: &mut Problems) -> Option<&str> {
        match &self.value {
            Value::Scalar(_, text) => Some(text),
            _ => {
                self.expected(wanted, None, problems);
                None
            }
        }
    }

    pub fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        match &self.value {
            Value::Scalar(Kind::Boolean, text) => Some(text.eq_ignore_ascii_case("true")),
            _ => {
                self.expected("true or false", None, problems);
                None
            }
        }
    }

    pub fn number(&self, range: RangeInclusive<u32>, problems: &mut Problems) -> Option<u32> {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        match &self.value {
            Value::Scalar(Kind::Number, text) => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                if number.is_none() {
                    problems.add(self.at, format!("expected {}", wanted()));
                }
                number
            }
            _ => {
                self.expected(&wanted(), None, problems);
                None
            }
        }
    }

    pub fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        match &self.value {
            Value::Scalar(Kind::Text, text) => {
                clock::parse_duration(text).map_err(|what| problems.add(self.at, what)).ok()
            }
            Value::Scalar(Kind::Number, _) => {
                problems.add(self.at, "a number without a unit, expected a duration such as 90s, 5m or 1h30m");
                None
            }
            _ => {
                self.expected("a duration such as 90s, 5m or 1h30m", None, problems);
                None
            }
        }
    }

    /// A duration longer than none at all.
    pub fn positive_duration(&self, problems: &mut Problems) -> Option<Duration> {
        let duration = self.duration(problems)?;
        if duration.is_zero() {
            problems.add(self.at, "expected a duration longer than 0s");
            return None;
        }
        Some(duration)
    }

    /// One of a few words that each stand for something.
    pub fn word<T: Copy>(&self, words: &[(&'static str, T)], problems: &mut Problems) -> Option<T> {
        if let Value::Scalar(Kind::Text, text) = &self.value
            && let Some((_, meaning)) = words.iter().find(|(name, _)| name == text)
        {
            return Some(*meaning);
        }
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let wanted = format!("one of {}", names.join(", "));
        let text = self.text(&wanted, problems)?;
        problems.add_unknown(self.at, &format!("expected {wanted}"), text, names);
        None
    }

    pub fn list(&self, wanted: &str, problems: &mut Problems) -> Option<&[Node<'t>]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => {
                self.expected(wanted, None, problems);
                None
            }
        }
    }

    pub fn map(&self, wanted: &str, problems: &mut Problems) -> Option<&[(std::borrow::Cow<'t, str>, Node<'t>)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.expected(wanted, None, problems);
                None
            }
        }
    }

    pub fn section(&self, wanted: &str, problems: &mut Problems) -> Option<Section<'_, 't>> {
        self.map(wanted, problems).map(|entries| Section { at: self.at, entries, asked: Vec::with_capacity(KEYS) })
    }
}

/// More than any map has keys.
const KEYS: usize = 48;

/// A map whose keys are the program's own: those that nobody asks for are unknown.
pub struct Section<'c, 't> {
    at: u32,
    entries: &'c [(std::borrow::Cow<'t, str>, Node<'t>)],
    /// Some of them twice.
    asked: Vec<&'static str>,
}

impl<'c, 't> Section<'c, 't> {
    /// The number of the map's node.
    pub fn at(&self) -> u32 {
        self.at
    }

    /// What stands at `key`, also if that is null.
    pub fn take(&mut self, key: &'static str) -> Option<&'c Node<'t>> {
        self.asked.push(key);
        self.entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Takes these keys for known without a look at them.
    pub fn know(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// What stands at `key`, where null is as good as nothing.
    pub fn optional(&mut self, key: &'static str) -> Option<&'c Node<'t>> {
        self.take(key).filter(|node| !node.is_null())
    }

    /// What stands at `key`, which must be there.
    pub fn required(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'c Node<'t>> {
        let node = self.optional(key);
        if node.is_none() {
            problems.add(self.at, format!("`{key}` is missing"));
        }
        node
    }

    /// Notes the keys that nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, node) in self.entries {
            if self.asked.contains(&key.as_ref()) || key == "<<" {
                continue;
            }
            let hint = match problems.nearest(key, self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", each_once(&self.asked).join(", ")),
            };
            problems.add_hint(node.at, "unknown key", Some(hint));
        }
    }
}

/// In order of their first places.
fn each_once(keys: &[&'static str]) -> Vec<&'static str> {
    let is_first = |&(index, key): &(usize, &&'static str)| !keys[..index].contains(key);
    keys.iter().enumerate().filter(is_first).map(|(_, key)| *key).collect()
}
