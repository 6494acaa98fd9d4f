//! The one error type: an object, what is wrong with it, and what to do about it.
//!
//! It is written for the person who reads it, so it carries text and nothing to
//! match on; whoever must decide on a failure uses a type of their own.

use std::fmt;

/// What went wrong, in the voice of every message of this program:
/// `OBJECT: what is wrong`, lower case, no full stop, and a hint where there is something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub object: String,
    pub what: String,
    pub hint: Option<String>,
}

impl Error {
    pub fn new(object: impl fmt::Display, what: impl fmt::Display) -> Self {
        Error { object: object.to_string(), what: what.to_string(), hint: None }
    }

    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.object), printable(&self.what))
    }
}

impl std::error::Error for Error {}

/// `text` with control characters escaped, so that a hostile name can neither
/// forge a line of the log nor talk to the terminal.
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(|c| {
                let escape = c.is_control();
                escape.then(|| c.escape_default()).into_iter().flatten().chain((!escape).then_some(c))
            })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}
