//! Both sides of the socket against whatever may come through it: nothing beyond the limits is looked at, and what is
//! written is read.

use std::io::{self, Read};

use super::token::TOKEN_LEN;
use super::wire::{Head, REQUEST_MAX, Request, parse_request, read_head, request, secret_head, version_head};
use crate::secret::SECRET_MAX;
use crate::testing::{Random, fuzz};

const PIECES: &[&str] = &[
    "backupnizza ",
    "backupnizza 1 ",
    "1",
    "2",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\0",
    "\u{7f}",
    "é",
    "0",
    "a",
    "9999999999999999999999",
    "GET / HTTP/1.1",
];

const HEAD_PIECES: &[&str] = &[
    "secret ",
    "version ",
    "0",
    "1",
    "65536",
    "65537",
    "99999999999999999999",
    "-",
    "+",
    " ",
    "\n",
    "\r",
    "\0",
    "é",
    "                                ",
];

#[test]
fn requests_are_incomplete_or_malformed_or_a_token_whatever_comes_behind_them() {
    fuzz(20, |random| {
        let token = random.bytes(b"0123456789abcdef", TOKEN_LEN);
        let mut bytes = request(&token).concat();
        match random.below(4) {
            0 => bytes = (0..random.below(2 * REQUEST_MAX)).map(|_| random.byte()).collect(),
            1 => bytes = random.soup(PIECES, 40).into_bytes(),
            2 => random.mutate(&mut bytes, PIECES),
            _ => {}
        }
        assert_bounded(&bytes);
        match parse_request(&bytes) {
            Request::Token(read) => {
                assert_eq!(read.len(), TOKEN_LEN);
                assert!(bytes.starts_with(&request(read).concat()), "{bytes:?}");
                true
            }
            Request::Incomplete | Request::OtherVersion | Request::Malformed => false,
        }
    });
}

/// No byte beyond the limit or behind the line changes the answer, and a whole request is never incomplete.
fn assert_bounded(bytes: &[u8]) {
    let whole = &bytes[..bytes.len().min(REQUEST_MAX)];
    let line = whole.iter().position(|&byte| byte == b'\n').map_or(whole, |end| &whole[..=end]);
    let answer = parse_request(line);
    assert_eq!(parse_request(bytes), answer, "{bytes:?}");
    let is_whole = line.ends_with(b"\n") || line.len() == REQUEST_MAX;
    assert_eq!(answer == Request::Incomplete, !is_whole, "{bytes:?}");
}

/// Gives bytes in small pieces, with interruptions, and counts them.
struct Peer<'a, 'r> {
    bytes: &'a [u8],
    random: &'r mut Random,
    given: usize,
}

impl Read for Peer<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random.once_in(8) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(1 + self.random.below(9));
        let count = (&self.bytes[self.given..]).read(&mut buffer[..count])?;
        self.given += count;
        Ok(count)
    }
}

#[test]
fn an_answers_first_line_is_read_to_its_end_and_no_further() {
    const LINE_MAX: usize = 32;
    fuzz(20, |random| {
        let len = random.below(SECRET_MAX + 1);
        let good = if random.once_in(8) { version_head() } else { secret_head(len) };
        let head = match random.below(3) {
            0 => random.soup(HEAD_PIECES, 8),
            1 => random.mutated(&good, HEAD_PIECES),
            _ => good.clone(),
        };
        let bytes = [head.as_bytes(), b"the secret"].concat();
        let mut peer = Peer { bytes: &bytes, random, given: 0 };
        let answer = read_head(&mut peer);
        let line = bytes.iter().take(LINE_MAX).position(|&byte| byte == b'\n').map(|end| end + 1);
        assert_eq!(peer.given, line.unwrap_or(bytes.len().min(LINE_MAX)), "{head:?}");
        match answer {
            Ok(Head::Secret(read)) => assert!(read <= SECRET_MAX && (head != good || read == len), "{head:?}"),
            Ok(Head::OtherVersion) => assert!(head.starts_with("version "), "{head:?}"),
            Ok(Head::Refused) => assert!(line.is_none() && bytes.len() < LINE_MAX, "{head:?}"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{head:?}");
                assert_ne!(head, good);
            }
        }
        head == good
    });
}
