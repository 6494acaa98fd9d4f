//! A secret's value, in protected memory from the moment it is read.
//!
//! It cannot be cloned, printed or compared; `expose` is the one way to its bytes, and a test
//! lists the files that call it.

use std::fmt;
use std::io::{self, Read};

use crate::error::Error;
use crate::sys::{Arena, Block, MemoryError};

pub use crate::sys::Protection;

/// The longest secret, in bytes. What is longer is a file, not a password.
pub const SECRET_MAX: usize = 64 * 1024;

/// A secret's value.
pub struct Secret(Block);

impl Secret {
    pub fn new(value: Block) -> Secret {
        Secret(value)
    }

    /// The bytes themselves, to be written to where they are needed and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The process's protected memory, and why it is not of the kind that was wanted, if so.
pub struct Memory {
    pub arena: &'static Arena,
    pub fallback: Option<MemoryError>,
}

/// Sets up protected memory for the life of the process: as `wanted`, else locked memory.
pub fn protect(wanted: Protection) -> Result<Memory, Error> {
    let (arena, fallback) = match Arena::new(wanted) {
        Ok(arena) => (arena, None),
        Err(reason) if wanted == Protection::Secret => {
            let arena = Arena::new(Protection::Locked).map_err(|error| no_memory(&error))?;
            (arena, Some(reason))
        }
        Err(error) => return Err(no_memory(&error)),
    };
    Ok(Memory { arena: Box::leak(Box::new(arena)), fallback })
}

/// The message for memory that could not be had.
pub fn no_memory(error: &MemoryError) -> Error {
    Error::new("protected memory", error)
        .hint("raise the limit of locked memory (LimitMEMLOCK= in a systemd unit, `ulimit -l` in a shell)")
}

/// Why a value could not be read.
#[derive(Debug)]
pub enum ReadError {
    Empty,
    TooLong,
    Memory(MemoryError),
    Io(io::Error),
}

/// Reads a value to its end straight into protected memory, without the one line ending that
/// commands and editors put behind it.
pub fn read_value(arena: &'static Arena, reader: &mut impl Read) -> Result<Secret, ReadError> {
    let mut value = read_all(arena, reader)?;
    let len = without_line_ending(&value).len();
    if len == 0 {
        return Err(ReadError::Empty);
    }
    value.truncate(len);
    Ok(Secret(value))
}

/// Grows by doubling: most values are short, and protected memory is scarce.
fn read_all(arena: &'static Arena, reader: &mut impl Read) -> Result<Block, ReadError> {
    const FIRST: usize = 256;
    let mut buffer = arena.block(FIRST).map_err(ReadError::Memory)?;
    let mut len = 0;
    loop {
        if len == buffer.len() {
            if len > SECRET_MAX {
                return Err(ReadError::TooLong);
            }
            // One byte and a line ending more than the limit, so that what is too long shows.
            let mut larger = arena.block((len * 2).min(SECRET_MAX + 3)).map_err(ReadError::Memory)?;
            larger[..len].copy_from_slice(&buffer);
            buffer = larger;
        }
        match reader.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Io(error)),
        }
    }
    if without_line_ending(&buffer[..len]).len() > SECRET_MAX {
        return Err(ReadError::TooLong);
    }
    buffer.truncate(len);
    Ok(buffer)
}

fn without_line_ending(value: &[u8]) -> &[u8] {
    match value {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n'] => rest,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> &'static Arena {
        protect(Protection::Locked).expect("locked memory").arena
    }

    fn value(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
        read_value(arena(), &mut &bytes[..]).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn exactly_one_line_ending_is_dropped() {
        assert_eq!(value(b"pass\n").expect("a value"), b"pass");
        assert_eq!(value(b"pass\r\n").expect("a value"), b"pass");
        assert_eq!(value(b"pass\n\n").expect("a value"), b"pass\n");
        assert_eq!(value(b" pass ").expect("a value"), b" pass ");
    }

    #[test]
    fn nothing_and_a_bare_line_ending_are_empty() {
        assert!(matches!(value(b""), Err(ReadError::Empty)));
        assert!(matches!(value(b"\n"), Err(ReadError::Empty)));
    }

    #[test]
    fn a_value_of_64_kib_fits_and_one_byte_more_does_not() {
        let longest = vec![b'x'; SECRET_MAX];
        assert_eq!(value(&longest).expect("a value").len(), SECRET_MAX);
        let with_ending = [longest.as_slice(), b"\r\n"].concat();
        assert_eq!(value(&with_ending).expect("a value").len(), SECRET_MAX);
        let longer = vec![b'x'; SECRET_MAX + 1];
        assert!(matches!(value(&longer), Err(ReadError::TooLong)));
        assert!(matches!(value(&vec![b'x'; SECRET_MAX * 3]), Err(ReadError::TooLong)));
    }

    #[test]
    fn a_secret_shows_nothing_of_itself() {
        let secret = read_value(arena(), &mut &b"hunter2"[..]).expect("a value");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
