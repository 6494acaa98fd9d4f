//! What client and daemon say to each other at the socket, bounded on both sides.
//!
//! A client sends one line, `backupnizza VERSION TOKEN`; the daemon answers `secret LENGTH` on a
//! line and that many bytes, or `version VERSION` on a line, or closes the connection: a refusal
//! has no words.

use std::io::{self, Read};

use super::token::TOKEN_LEN;
use crate::secret::SECRET_MAX;

/// Of the conversation, not of the program: it changes when an older side would misunderstand.
const VERSION: &[u8] = b"1";

const GREETING: &[u8] = b"backupnizza ";

/// The longest request, line ending included.
pub const REQUEST_MAX: usize = 128;

/// The longest first line of an answer, line ending included.
const HEAD_MAX: usize = 32;

/// What has been received of a request so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Incomplete,
    /// The text that is to be a token.
    Token(&'a [u8]),
    OtherVersion,
    Malformed,
}

/// Reads a request out of the bytes received so far.
pub fn parse_request(received: &[u8]) -> Request<'_> {
    let Some(end) = received.iter().take(REQUEST_MAX).position(|&byte| byte == b'\n') else {
        return if received.len() < REQUEST_MAX { Request::Incomplete } else { Request::Malformed };
    };
    let Some(rest) = received[..end].strip_prefix(GREETING) else {
        return Request::Malformed;
    };
    match rest.iter().position(|&byte| byte == b' ') {
        Some(at) if &rest[..at] == VERSION && rest.len() - at - 1 == TOKEN_LEN => Request::Token(&rest[at + 1..]),
        Some(at) if &rest[..at] != VERSION && rest[..at].iter().all(u8::is_ascii_digit) => Request::OtherVersion,
        _ => Request::Malformed,
    }
}

/// The parts of a request for `token`, in order.
pub fn request(token: &[u8]) -> [&[u8]; 5] {
    [GREETING, VERSION, b" ", token, b"\n"]
}

/// The first line before a secret of `len` bytes.
pub fn secret_head(len: usize) -> String {
    format!("secret {len}\n")
}

pub fn version_head() -> String {
    format!("version {}\n", String::from_utf8_lossy(VERSION))
}

/// An answer's first line.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A secret of this many bytes follows.
    Secret(usize),
    OtherVersion,
    /// The daemon closed the connection.
    Refused,
}

/// Reads an answer's first line and not a byte more.
pub fn read_head(reader: &mut impl Read) -> io::Result<Head> {
    let mut line = [0; HEAD_MAX];
    let mut len = 0;
    while len < HEAD_MAX {
        match reader.read(&mut line[len..=len]) {
            Ok(0) => return Ok(Head::Refused),
            Ok(_) if line[len] == b'\n' => return parse_head(&line[..len]),
            Ok(_) => len += 1,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_hang_up(&error) => return Ok(Head::Refused),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// A daemon that closes a connection before it has read the request resets it.
pub fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn parse_head(line: &[u8]) -> io::Result<Head> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let line = std::str::from_utf8(line).map_err(|_| invalid())?;
    match line.split_once(' ') {
        Some(("secret", len)) => match len.parse() {
            Ok(len) if len <= SECRET_MAX => Ok(Head::Secret(len)),
            _ => Err(invalid()),
        },
        Some(("version", _)) => Ok(Head::OtherVersion),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_back_as_it_was_made() {
        let token = [b'a'; TOKEN_LEN];
        let bytes = request(&token).concat();
        assert!(bytes.len() <= REQUEST_MAX);
        assert_eq!(parse_request(&bytes), Request::Token(&token));
        for end in 0..bytes.len() {
            assert_eq!(parse_request(&bytes[..end]), Request::Incomplete, "the first {end} bytes");
        }
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for bytes in
            [&b"\n"[..], b"GET / HTTP/1.1\n", b"backupnizza 1 short\n", b"backupnizza 1\n", &[b'x'; REQUEST_MAX]]
        {
            assert_eq!(parse_request(bytes), Request::Malformed);
        }
        assert_eq!(parse_request(b"backupnizza 2 anything\n"), Request::OtherVersion);
    }

    #[test]
    fn an_answer_names_a_length_within_bounds_or_refuses() {
        let head = |bytes: &[u8]| read_head(&mut &bytes[..]);
        assert_eq!(head(secret_head(12).as_bytes()).expect("an answer"), Head::Secret(12));
        assert_eq!(head(version_head().as_bytes()).expect("an answer"), Head::OtherVersion);
        assert_eq!(head(b"").expect("an answer"), Head::Refused);
        assert!(head(b"secret 99999999\n").is_err());
        assert!(head(b"secret -1\n").is_err());
        assert!(head(&[b'x'; 100]).is_err());
    }
}
