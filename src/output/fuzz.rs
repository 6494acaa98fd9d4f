//! Output of random bytes and pieces of secrets, in random chunks: shown as the slow and obvious way shows it, with
//! nothing lost, nothing obeyed, and no secret left.

use super::Redactor;
use super::tests::{Named, add, arena, feed, patterns, shown_in_chunks};
use crate::testing::{Random, fuzz};

type Secrets = [(String, Vec<u8>)];

/// What secrets and output are made of. No backslash, so that what is escaped can be told.
const ALPHABETS: &[&[u8]] = &[
    b"ab",
    b"ab\n",
    b"abcd\r\n",
    b"ab \n",
    b"0123456789",
    b"abc\t\x1b\x00\x7f\n",
    "é日\u{202e}\u{9b}\u{61c}–ab\n\r".as_bytes(),
    b"\xff\x00\x1b\xc3\xa9\xe2\x80\xae\n",
];

/// What must be shown, worked out the slow and obvious way.
mod reference {
    use super::Secrets;

    const LINE_MAX: usize = 16 * 1024;

    /// What is shown of some bytes of a line.
    #[derive(Clone)]
    pub enum Piece {
        Byte(u8),
        Marker(String),
    }

    /// A line before it is escaped, and how many bytes were cut off.
    #[derive(Default)]
    pub struct Line {
        pub bytes: Vec<u8>,
        pub cut: usize,
    }

    pub fn parts(value: &[u8]) -> Vec<Vec<u8>> {
        let whole = std::iter::once(value);
        let lines = value.split(|&byte| byte == b'\n' || byte == b'\r').filter(|line| !line.trim_ascii().is_empty());
        let trim = |part: &[u8]| {
            let inner = part.trim_ascii();
            if inner.len() < 6 { part.to_vec() } else { inner.to_vec() }
        };
        whole.chain(lines).map(trim).filter(|part| part.len() >= 6).collect()
    }

    fn redacted(secrets: &Secrets, output: &[u8]) -> Vec<Piece> {
        let parts: Vec<(&str, Vec<u8>)> = secrets
            .iter()
            .flat_map(|(name, value)| parts(value).into_iter().map(|part| (name.as_str(), part)))
            .collect();
        let (mut shown, mut hidden, mut last) = (Vec::new(), 0, "");
        for start in 0..output.len() {
            let mut longest: Option<(&str, usize)> = None;
            for (name, part) in &parts {
                if output[start..].starts_with(part) && longest.is_none_or(|(_, len)| part.len() > len) {
                    longest = Some((name, part.len()));
                }
            }
            if let Some((name, len)) = longest {
                if start >= hidden || (start + len > hidden && name != last) {
                    shown.push(Piece::Marker(format!("[secret {name}]")));
                    last = name;
                }
                hidden = hidden.max(start + len);
            }
            if start >= hidden {
                shown.push(Piece::Byte(output[start]));
            }
        }
        shown
    }

    impl Line {
        fn add(&mut self, text: &[u8]) {
            if self.cut > 0 || self.bytes.len() + text.len() > LINE_MAX {
                self.cut += text.len();
            } else {
                self.bytes.extend_from_slice(text);
            }
        }

        fn is_empty(&self) -> bool {
            self.bytes.is_empty() && self.cut == 0
        }
    }

    pub fn lines(secrets: &Secrets, output: &[u8]) -> Vec<Line> {
        let (mut lines, mut line, mut after_return) = (Vec::new(), Line::default(), false);
        for piece in redacted(secrets, output) {
            match piece {
                Piece::Byte(b'\n') if after_return => after_return = false,
                Piece::Byte(b'\n') => lines.push(std::mem::take(&mut line)),
                Piece::Byte(b'\r') if line.is_empty() => {}
                Piece::Byte(b'\r') => {
                    lines.push(std::mem::take(&mut line));
                    after_return = true;
                }
                Piece::Byte(byte) => {
                    line.add(&[byte]);
                    after_return = false;
                }
                Piece::Marker(marker) => {
                    line.add(marker.as_bytes());
                    after_return = false;
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }

    /// The bytes of a line before it was escaped; none of them was a backslash.
    pub fn unescaped(line: &str) -> Vec<u8> {
        let mut parts = line.split('\\');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let rest = if let Some(part) = part.strip_prefix('x') {
                bytes.push(u8::from_str_radix(&part[..2], 16).expect("two digits"));
                &part[2..]
            } else {
                let (number, rest) = part[2..].split_once('}').expect("a number in braces");
                let c = u32::from_str_radix(number, 16).ok().and_then(char::from_u32).expect("a character");
                bytes.extend_from_slice(c.to_string().as_bytes());
                rest
            };
            bytes.extend_from_slice(rest.as_bytes());
        }
        bytes
    }
}

/// Secrets of all sizes, some of which begin like others.
fn random_secrets(random: &mut Random, alphabet: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut secrets: Vec<(String, Vec<u8>)> = Vec::new();
    for name in &["V", "W", "X", "Y"][..1 + random.below(4)] {
        let len = if random.once_in(16) { random.below(400) } else { 1 + random.below(24) };
        let mut value = random.bytes(alphabet, len);
        if !secrets.is_empty() && random.once_in(3) {
            let (_, other) = random.pick(&secrets);
            value.splice(..0, other[..random.below(other.len() + 1)].to_vec());
        }
        secrets.push((name.to_string(), value));
    }
    secrets
}

/// Random bytes and pieces of the secrets, so that whole ones, halves and overlaps occur often.
fn random_output(random: &mut Random, alphabet: &[u8], secrets: &Secrets) -> Vec<u8> {
    let mut output = Vec::new();
    for _ in 0..random.below(12) {
        let (_, secret) = &secrets[random.below(secrets.len())];
        match random.below(4) {
            0 => output.extend_from_slice(secret),
            1 => output.extend_from_slice(&secret[..random.below(secret.len() + 1)]),
            2 => output.extend_from_slice(&secret[random.below(secret.len() + 1)..]),
            _ => {
                let len = random.below(10);
                output.extend(random.bytes(alphabet, len));
            }
        }
    }
    // A line of about the longest that is shown.
    if random.once_in(5_000) {
        let len = 16 * 1024 - random.below(100);
        let at = random.below(output.len() + 1);
        output.splice(at..at, std::iter::repeat_n(b'-', len));
    }
    output
}

fn named(secrets: &Secrets) -> Vec<Named<'_>> {
    secrets.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

#[test]
fn random_output_in_random_chunks_is_shown_as_the_slow_way_shows_it() {
    fuzz(4, |random| {
        let alphabet = random.pick(ALPHABETS);
        let secrets = random_secrets(random, alphabet);
        let output = random_output(random, alphabet, &secrets);
        let longest = random.pick(&[1, 9, 100, 5_000]);
        let shown = shown_in_chunks(&named(&secrets), random.chunks(&output, longest));
        let lines = reference::lines(&secrets, &output);
        assert_eq!(shown.len(), lines.len(), "{secrets:?} in {output:?}");
        for (shown, line) in shown.iter().zip(&lines) {
            assert_shows(shown, line);
            assert_harmless(shown);
        }
        assert_no_secret(&shown, &secrets);
        shown.iter().any(|line| line.contains("[secret "))
    });
}

/// All bytes of the line, as they are wherever that does no harm.
fn assert_shows(shown: &str, line: &reference::Line) {
    let (shown, cut) = match shown.split_once("… [cut, ") {
        Some((shown, rest)) => (shown, rest.strip_suffix(" bytes more]").and_then(|count| count.parse().ok())),
        None => (shown, Some(0)),
    };
    let bytes = reference::unescaped(shown);
    let missing = line.bytes.len() - bytes.len();
    // A character that the cut went through is cut off whole.
    assert!(line.bytes.starts_with(&bytes) && missing < 4 && (missing == 0 || line.cut > 0), "{shown:?}");
    assert_eq!(cut, Some(line.cut + missing), "{shown:?}");
    let is_harmless = |text: &str| !text.contains(is_obeyed);
    if std::str::from_utf8(&bytes).is_ok_and(is_harmless) {
        assert_eq!(shown.as_bytes(), bytes);
    }
}

fn is_obeyed(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\t') || reorders || c == '\u{2028}' || c == '\u{2029}'
}

fn assert_harmless(shown: &str) {
    assert!(!shown.contains(is_obeyed), "{shown:?}");
}

/// No line of a secret stands in what is shown, not escaped either.
fn assert_no_secret(shown: &[String], secrets: &Secrets) {
    for part in secrets.iter().flat_map(|(_, value)| reference::parts(value)) {
        let shows = |line: &String| reference::unescaped(line).windows(part.len()).any(|window| window == part);
        assert!(!shown.iter().any(shows), "{part:?} is in {shown:?}");
    }
}

#[test]
fn a_change_of_the_secrets_in_the_midst_of_output_lets_none_through() {
    fuzz(4, |random| {
        let alphabet = random.pick(&ALPHABETS[..5]);
        let secrets = random_secrets(random, alphabet);
        let output = random_output(random, alphabet, &secrets);
        let chunks = random.chunks(&output, 9);
        let change = random.below(chunks.len() + 1);
        let mut redactor = Redactor::new(arena(), patterns(&named(&secrets)));
        let mut lines = Vec::new();
        for chunk in &chunks[..change] {
            feed(&mut redactor, chunk, &mut lines);
        }
        if random.once_in(2) {
            redactor.withhold(&mut |text| add(text, &mut lines));
            let at_withholding = lines.len();
            chunks[change..].iter().for_each(|chunk| feed(&mut redactor, chunk, &mut lines));
            redactor.finish(&mut |text| add(text, &mut lines));
            assert_eq!(lines.len(), at_withholding, "something is shown after the secrets were wiped");
            assert!(lines.pop().is_some_and(|last| last.starts_with("[output withheld")));
        } else {
            let mut more = vec![("new".to_owned(), random.bytes(alphabet, 9))];
            more.extend(secrets.iter().cloned());
            redactor.look_for(patterns(&named(&more)));
            chunks[change..].iter().for_each(|chunk| feed(&mut redactor, chunk, &mut lines));
            redactor.finish(&mut |text| add(text, &mut lines));
        }
        assert_no_secret(&lines, &secrets);
        lines.iter().any(|line| line.contains("[secret "))
    });
}
