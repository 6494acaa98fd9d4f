//! JSON (RFC 8259) as it is written: objects and arrays of what reports consist of.

use std::fmt::Display;

use chrono::{DateTime, Utc};

use crate::clock::{self, Zone};
use crate::log::escape_json;

/// An object, member by member in the order of writing.
pub struct Object(String);

impl Object {
    pub fn new() -> Object {
        Object(String::new())
    }

    pub fn text(self, key: &str, value: &str) -> Object {
        self.maybe_text(key, Some(value))
    }

    pub fn maybe_text(self, key: &str, value: Option<&str>) -> Object {
        self.member(key, value.map(|value| format!("\"{}\"", escape_json(value))))
    }

    pub fn number(self, key: &str, value: Option<impl Display>) -> Object {
        self.member(key, value.map(|value| value.to_string()))
    }

    pub fn flag(self, key: &str, value: bool) -> Object {
        self.member(key, Some(value.to_string()))
    }

    pub fn time(self, key: &str, value: Option<DateTime<Utc>>, zone: Zone) -> Object {
        self.member(key, value.map(|time| format!("\"{}\"", clock::format_time(time, zone))))
    }

    pub fn object(self, key: &str, value: Option<Object>) -> Object {
        self.member(key, value.map(Object::finish))
    }

    pub fn array(self, key: &str, value: Array) -> Object {
        self.member(key, Some(format!("[{}]", value.0)))
    }

    fn member(mut self, key: &str, value: Option<String>) -> Object {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += &format!("\"{key}\":{}", value.as_deref().unwrap_or("null"));
        self
    }

    fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }

    /// As a line of its own.
    pub fn line(self) -> String {
        self.finish() + "\n"
    }
}

/// An array of objects.
pub struct Array(String);

impl Array {
    pub fn new() -> Array {
        Array(String::new())
    }

    pub fn object(&mut self, object: Object) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0 += &object.finish();
    }
}
