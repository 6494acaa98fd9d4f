//! What a command prints, made fit to be seen: secrets out, lines apart, nothing that a terminal obeys.
//!
//! Bytes go one way: `Redactor` (raw bytes in protected memory, secrets replaced) to `Lines`
//! (split, cut, escaped) to a `Record` (logged, kept or dropped as `output:` says). Redaction
//! comes first, so that no border of a line, a chunk or a cut can hide a part of a secret.
//! Nothing here reads or writes; the runner owns the pipe.

mod lines;
mod patterns;
mod record;
mod redactor;
mod words;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use patterns::Patterns;
pub use record::{Follower, Record};
pub use redactor::Redactor;
