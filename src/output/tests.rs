//! What is shown of what a command printed, however its bytes happened to arrive.

use std::sync::{Arc, OnceLock};

use super::{Patterns, Record, Redactor};
use crate::plan::OutputMode;
use crate::secret::{Protection, Secret, protect};
use crate::sys::Arena;

type Named<'a> = (&'a str, &'a [u8]);

fn arena() -> &'static Arena {
    static ARENA: OnceLock<&'static Arena> = OnceLock::new();
    ARENA.get_or_init(|| protect(Protection::Locked).expect("locked memory").arena)
}

fn patterns(secrets: &[Named]) -> Arc<Patterns> {
    let in_memory = |(name, value): &Named| {
        let mut block = arena().block(value.len()).expect("locked memory");
        block.copy_from_slice(value);
        (Arc::from(*name), Arc::new(Secret::new(block)))
    };
    Arc::new(Patterns::new(arena(), secrets.iter().map(in_memory).collect()).expect("locked memory"))
}

/// Adds `text` to `lines`, as a sink that must be given whole lines and never nothing.
fn add(text: &str, lines: &mut Vec<String>) {
    assert!(text.ends_with('\n'));
    lines.extend(text[..text.len() - 1].split('\n').map(str::to_string));
}

/// As the runner does it: what was read goes into the redactor's own space.
fn feed(redactor: &mut Redactor, mut bytes: &[u8], lines: &mut Vec<String>) {
    while !bytes.is_empty() {
        let space = redactor.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        redactor.advance(count, &mut |text| add(text, lines));
        bytes = &bytes[count..];
    }
}

fn shown_in_chunks<'a>(secrets: &[Named], chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut redactor = Redactor::new(arena(), patterns(secrets));
    let mut lines = Vec::new();
    for chunk in chunks {
        feed(&mut redactor, chunk, &mut lines);
    }
    redactor.finish(&mut |text| add(text, &mut lines));
    lines
}

fn shown(secrets: &[Named], output: &[u8]) -> Vec<String> {
    shown_in_chunks(secrets, [output])
}

/// Shown the same way in one piece, byte by byte, and split at every border.
fn assert_shown(secrets: &[Named], output: &[u8], expected: &[&str]) {
    assert_eq!(shown(secrets, output), expected);
    assert_eq!(shown_in_chunks(secrets, output.chunks(1)), expected, "byte by byte");
    for border in 0..=output.len() {
        let (first, second) = output.split_at(border);
        assert_eq!(shown_in_chunks(secrets, [first, second]), expected, "split at {border}");
    }
}

#[test]
fn a_secret_is_replaced_wherever_it_stands() {
    let secrets: &[Named] = &[("vault", b"hunter2-hunter2")];
    assert_shown(secrets, b"hunter2-hunter2\n", &["[secret vault]"]);
    assert_shown(secrets, b"password=hunter2-hunter2; next\nplain\n", &["password=[secret vault]; next", "plain"]);
    assert_shown(secrets, b"xhunter2-hunter2hunter2-hunter2y\n", &["x[secret vault][secret vault]y"]);
    assert_shown(secrets, b"hunter2-hunter\n", &["hunter2-hunter"]);
}

#[test]
fn a_last_line_without_a_newline_is_kept_and_redacted() {
    let secrets: &[Named] = &[("vault", b"hunter2-hunter2")];
    assert_shown(secrets, b"one\nhunter2-hunter2", &["one", "[secret vault]"]);
    assert_shown(secrets, b"one\nhunter2-h", &["one", "hunter2-h"]);
    assert_shown(secrets, b"", &[]);
    assert_shown(secrets, b"\n\na", &["", "", "a"]);
}

#[test]
fn six_bytes_are_redacted_and_five_are_not() {
    let secrets: &[Named] = &[("six", b"abcdef"), ("five", b"12345")];
    assert_shown(secrets, b"abcdef 12345\n", &["[secret six] 12345"]);
}

#[test]
fn each_line_of_a_many_line_secret_is_replaced() {
    let secrets: &[Named] = &[("key", b"-----BEGIN-----\nabcdefgh\nxyz\n12345678\n-----END-----")];
    assert_shown(secrets, b"got 12345678 and abcdefgh, xyz\n", &["got [secret key] and [secret key], xyz"]);
    assert_shown(secrets, b"-----BEGIN-----\r\nabcdefgh\r\nelse\r\n", &["[secret key]", "[secret key]", "else"]);
}

#[test]
fn a_many_line_secret_printed_whole_is_one_marker_with_its_short_lines() {
    let secrets: &[Named] = &[("key", b"-----BEGIN-----\nabcdefgh\nxyz\n12345678\n-----END-----\n\n")];
    let output = b"before\n-----BEGIN-----\nabcdefgh\nxyz\n12345678\n-----END-----\nafter\n";
    assert_shown(secrets, output, &["before", "[secret key]", "after"]);
}

#[test]
fn a_many_line_secret_that_stops_halfway_is_replaced_line_by_line() {
    let secrets: &[Named] = &[("key", b"abcdefgh\nijklmnop\nqrstuvwx")];
    assert_shown(secrets, b"abcdefgh\nijklmnop\nqrst", &["[secret key]", "[secret key]", "qrst"]);
}

#[test]
fn line_endings_and_blanks_around_a_secret_do_not_hide_it() {
    let secrets: &[Named] = &[("vault", b"  hunter2-hunter2 \n")];
    assert_shown(secrets, b"<hunter2-hunter2>\n", &["<[secret vault]>"]);
    let dos: &[Named] = &[("key", b"abcdefgh\r\nijklmnop\r\n")];
    assert_shown(dos, b"ijklmnop, abcdefgh\n", &["[secret key], [secret key]"]);
}

#[test]
fn of_a_secret_that_begins_another_the_longest_is_named() {
    let secrets: &[Named] = &[("short", b"abcdef"), ("long", b"abcdefghij")];
    assert_shown(secrets, b"abcdefghij abcdefgh abcdef", &["[secret long] [secret short]gh [secret short]"]);
}

#[test]
fn nothing_of_overlapping_secrets_stays_visible() {
    let secrets: &[Named] = &[("first", b"11abcdef"), ("second", b"cdef222222"), ("inner", b"1abcde")];
    assert_shown(secrets, b"-11abcdef222222-\n", &["-[secret first][secret second]-"]);
    let itself: &[Named] = &[("echo", b"abcabc")];
    assert_shown(itself, b"abcabcabcabcab\n", &["[secret echo]ab"]);
}

#[test]
fn of_two_secrets_with_the_same_text_the_first_is_named() {
    let secrets: &[Named] = &[("one", b"hunter2-hunter2"), ("two", b"hunter2-hunter2")];
    assert_shown(secrets, b"hunter2-hunter2\n", &["[secret one]"]);
}

#[test]
fn a_secret_of_64_kib_is_replaced_however_it_arrives() {
    let secret: Vec<u8> = (0..64 * 1024u32).map(|n| b'a' + (n.wrapping_mul(n) >> 7) as u8 % 26).collect();
    let secrets: &[Named] = &[("huge", &secret)];
    let output = [b"<".as_slice(), &secret, b">\n", &secret[..secret.len() - 1], b"\n"].concat();
    for size in [1000, 4096, 70_000, output.len()] {
        let lines = shown_in_chunks(secrets, output.chunks(size));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "<[secret huge]>");
        assert!(lines[1].ends_with("… [cut, 49151 bytes more]"), "what is not the whole secret is a long line");
    }
}

#[test]
fn a_long_line_is_cut_and_says_so() {
    let longest = "x".repeat(16 * 1024);
    assert_eq!(shown(&[], format!("{longest}\nnext\n").as_bytes()), [longest.as_str(), "next"]);
    let cut = format!("{longest}… [cut, 3 bytes more]");
    for size in [1, 1000, 4096, 20_000] {
        let output = format!("{longest}abc\nnext\n{longest}abc");
        assert_eq!(shown_in_chunks(&[], output.as_bytes().chunks(size)), [&cut, "next", &cut]);
    }
}

#[test]
fn a_secret_across_the_cut_is_replaced_before_the_cut() {
    let secrets: &[Named] = &[("vault", b"hunter2-hunter2")];
    for before in 16 * 1024 - 20..16 * 1024 + 5 {
        let output = format!("{}hunter2-hunter2\n", "x".repeat(before));
        let lines = shown_in_chunks(secrets, output.as_bytes().chunks(999));
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains("hunter"), "{before} bytes before it");
        assert_eq!(lines[0].contains("[secret vault]"), before + "[secret vault]".len() <= 16 * 1024);
        assert_eq!(lines[0].contains("[secret"), lines[0].contains("[secret vault]"));
    }
}

#[test]
fn a_cut_never_goes_through_a_character() {
    let output = format!("x{}\n", "é".repeat(9000));
    let lines = shown(&[], output.as_bytes());
    assert_eq!(lines, [format!("x{}… [cut, {} bytes more]", "é".repeat(8191), 2 * (9000 - 8191))]);
}

#[test]
fn carriage_returns_end_lines_and_never_add_empty_ones() {
    assert_shown(&[], b"a\r\nb\r\n\r\nc\n", &["a", "b", "", "c"]);
    assert_shown(&[], b"10%\r20%\r30%\ndone\n", &["10%", "20%", "30%", "done"]);
    assert_shown(&[], b"\r10%\r20%\r\r\ndone", &["10%", "20%", "done"]);
    assert_shown(&[], b"10%\r\n\nx", &["10%", "", "x"]);
}

#[test]
fn an_update_is_shown_before_the_next_one_comes() {
    let mut redactor = Redactor::new(arena(), patterns(&[]));
    let mut lines = Vec::new();
    feed(&mut redactor, b"10%\r20%", &mut lines);
    assert_eq!(lines, ["10%"]);
    feed(&mut redactor, b"\rx", &mut lines);
    assert_eq!(lines, ["10%", "20%"]);
}

#[test]
fn a_complete_line_is_shown_at_once_unless_a_secret_may_have_begun() {
    let mut redactor = Redactor::new(arena(), patterns(&[("key", b"abcdefgh\nijklmnop")]));
    let mut lines = Vec::new();
    feed(&mut redactor, b"one\ntwo\n", &mut lines);
    assert_eq!(lines, ["one", "two"]);
    feed(&mut redactor, b"abcdefgh\n", &mut lines);
    assert_eq!(lines, ["one", "two"]);
    feed(&mut redactor, b"x\n", &mut lines);
    assert_eq!(lines, ["one", "two", "[secret key]", "x"]);
}

#[test]
fn control_characters_never_reach_a_terminal() {
    assert_shown(&[], b"\x1b[31mred\x1b[0m\x07\x00\x7f\tend\n", &["\\x1b[31mred\\x1b[0m\\x07\\x00\\x7f\tend"]);
    assert_shown(
        &[],
        "\u{9b}31m \u{202e}gnp.\u{2066}\u{200f}\u{2028}\n".as_bytes(),
        &["\\u{9b}31m \\u{202e}gnp.\\u{2066}\\u{200f}\\u{2028}"],
    );
}

#[test]
fn bytes_that_are_not_utf8_are_escaped_and_the_rest_is_not() {
    assert_shown(&[], "naïve ☃ 日本語\n".as_bytes(), &["naïve ☃ 日本語"]);
    assert_shown(&[], b"a\xffb\xc3\n\xe2\x98\n\x80caf\xc3\xa9\xc3", &["a\\xffb\\xc3", "\\xe2\\x98", "\\x80café\\xc3"]);
}

#[test]
fn a_secret_that_is_no_text_is_replaced_too() {
    let secrets: &[Named] = &[("raw", b"\xff\x00\x1b\xc3\x01\x02\x80")];
    assert_shown(secrets, b"<\xff\x00\x1b\xc3\x01\x02\x80>\n", &["<[secret raw]>"]);
}

#[test]
fn withheld_output_is_one_line_that_says_so() {
    let mut redactor = Redactor::new(arena(), patterns(&[("vault", b"hunter2-hunter2")]));
    let mut lines = Vec::new();
    feed(&mut redactor, b"one\nhunter2-", &mut lines);
    redactor.withhold(&mut |text| add(text, &mut lines));
    redactor.withhold(&mut |text| add(text, &mut lines));
    feed(&mut redactor, b"hunter2\nhunter2-hunter2\nplain\n", &mut lines);
    redactor.finish(&mut |text| add(text, &mut lines));
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], "one");
    assert!(lines[1].starts_with("[output withheld"));
}

#[test]
fn withholding_lets_go_of_the_secrets() {
    let secrets = patterns(&[("vault", b"hunter2-hunter2")]);
    let mut redactor = Redactor::new(arena(), Arc::clone(&secrets));
    redactor.withhold(&mut |_| {});
    assert_eq!(Arc::strong_count(&secrets), 1);
}

#[test]
fn new_secrets_are_looked_for_in_what_follows() {
    let mut redactor = Redactor::new(arena(), patterns(&[("old", b"hunter2-hunter2")]));
    let mut lines = Vec::new();
    feed(&mut redactor, b"hunter2-hunter2 hunter2-hun", &mut lines);
    redactor.look_for(patterns(&[("old", b"hunter2-hunter2"), ("new", b"swordfish")]));
    feed(&mut redactor, b"ter2 swordfish\n", &mut lines);
    assert_eq!(lines, ["[secret old] [secret old] [secret new]"]);
}

fn record(mode: OutputMode, lines: impl Iterator<Item = String>) -> (Record, Vec<String>) {
    let mut record = Record::new(mode);
    let mut logged = Vec::new();
    for line in lines {
        record.lines(&(line + "\n"), &mut |text| add(text, &mut logged));
    }
    (record, logged)
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

#[test]
fn the_key_output_decides_what_is_logged_and_when() {
    for (mode, at_once, after_failure) in
        [(OutputMode::Log, 5, 0), (OutputMode::OnFailure, 0, 5), (OutputMode::Discard, 0, 0)]
    {
        let (record, logged) = record(mode, numbers(5));
        assert_eq!(logged.len(), at_once, "{mode:?}");
        let mut late = Vec::new();
        record.settle(true, &mut |text| add(text, &mut late));
        assert!(late.is_empty(), "{mode:?}");
        record.settle(false, &mut |text| add(text, &mut late));
        assert_eq!(late, numbers(after_failure).collect::<Vec<_>>(), "{mode:?}");
        assert_eq!(record.tail().lines().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    }
}

#[test]
fn the_tail_is_the_last_100_lines_in_every_mode() {
    for mode in [OutputMode::Log, OutputMode::OnFailure, OutputMode::Discard] {
        let (record, _) = record(mode, numbers(25_000));
        assert_eq!(record.tail().lines().collect::<Vec<_>>(), numbers(25_000).skip(24_900).collect::<Vec<_>>());
        assert_eq!(record.last_line(), Some("24999"));
    }
    assert_eq!(Record::new(OutputMode::Log).tail(), "");
    assert_eq!(Record::new(OutputMode::Log).last_line(), None);
}

#[test]
fn the_tail_is_bounded_in_bytes_but_has_the_last_line() {
    for mode in [OutputMode::Log, OutputMode::OnFailure, OutputMode::Discard] {
        let (long_lines, _) = record(mode, numbers(50).map(|n| n + &"x".repeat(10_000)));
        assert_eq!(long_lines.tail().lines().count(), 6);
        assert!(long_lines.tail().lines().all(|line| line.len() > 10_000));
        let (huge, _) = record(mode, numbers(3).map(|n| n + &"x".repeat(100_000)));
        assert_eq!(huge.tail().lines().map(|line| &line[..1]).collect::<Vec<_>>(), ["2"]);
    }
}

#[test]
fn what_is_held_for_a_failure_is_bounded_and_says_what_is_missing() {
    let (record, _) = record(OutputMode::OnFailure, numbers(500_000));
    let mut logged = Vec::new();
    record.settle(false, &mut |text| add(text, &mut logged));
    let dropped = 500_000 - (logged.len() - 1);
    assert_eq!(logged[0], format!("… [{dropped} earlier lines dropped]"));
    assert_eq!(logged[1..], numbers(500_000).skip(dropped).collect::<Vec<_>>());
    let held: usize = logged.iter().map(|line| line.len() + 1).sum();
    assert!((1024 * 1024..=2 * 1024 * 1024 + 100).contains(&held), "{held} bytes held");
}

/// Small numbers from a seed, the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn bytes(&mut self, alphabet: &[u8], len: usize) -> Vec<u8> {
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

/// What must be shown, worked out the slow and obvious way.
mod reference {
    fn parts(value: &[u8]) -> Vec<Vec<u8>> {
        let whole = std::iter::once(value);
        let lines = value.split(|&byte| byte == b'\n' || byte == b'\r').filter(|line| !line.trim_ascii().is_empty());
        let trim = |part: &[u8]| {
            let inner = part.trim_ascii();
            if inner.len() < 6 { part.to_vec() } else { inner.to_vec() }
        };
        whole.chain(lines).map(trim).filter(|part| part.len() >= 6).collect()
    }

    fn redacted(secrets: &[(String, Vec<u8>)], output: &[u8]) -> Vec<u8> {
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
                    shown.extend_from_slice(format!("[secret {name}]").as_bytes());
                    last = name;
                }
                hidden = hidden.max(start + len);
            }
            if start >= hidden {
                shown.push(output[start]);
            }
        }
        shown
    }

    pub fn lines(output: &[u8]) -> Vec<Vec<u8>> {
        let (mut lines, mut line, mut after_return) = (Vec::new(), Vec::new(), false);
        for &byte in output {
            match byte {
                b'\n' if after_return => after_return = false,
                b'\n' => lines.push(std::mem::take(&mut line)),
                b'\r' if line.is_empty() => {}
                b'\r' => {
                    lines.push(std::mem::take(&mut line));
                    after_return = true;
                }
                byte => {
                    line.push(byte);
                    after_return = false;
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }

    pub fn shown(secrets: &[(String, Vec<u8>)], output: &[u8]) -> Vec<String> {
        let text = |line| String::from_utf8(line).expect("an alphabet of ASCII");
        lines(&redacted(secrets, output)).into_iter().map(text).collect()
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

/// An output of random bytes and pieces of the secrets, so that whole ones, halves and overlaps occur often.
fn random_output(dice: &mut Dice, alphabet: &[u8], secrets: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut output = Vec::new();
    for _ in 0..dice.below(12) {
        let secret = &secrets[dice.below(secrets.len())].1;
        let piece = match dice.below(4) {
            0 => secret.clone(),
            1 => secret[..dice.below(secret.len() + 1)].to_vec(),
            2 => secret[dice.below(secret.len() + 1)..].to_vec(),
            _ => {
                let len = dice.below(10);
                dice.bytes(alphabet, len)
            }
        };
        output.extend(piece);
    }
    output
}

fn random_chunks<'a>(dice: &mut Dice, mut rest: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, next) = rest.split_at(1 + dice.below(rest.len().min(9)));
        chunks.push(chunk);
        rest = next;
    }
    chunks
}

#[test]
fn random_output_in_random_chunks_is_shown_as_the_slow_way_shows_it() {
    let mut dice = Dice(7);
    for round in 0..20_000 {
        let alphabet: &[u8] = [b"ab".as_slice(), b"ab\n", b"abcd\r\n", b"ab \n", b"0123456789"][dice.below(5)];
        let secrets: Vec<(String, Vec<u8>)> = (0..1 + dice.below(4))
            .map(|n| {
                let len = 1 + dice.below(24);
                (["V", "W", "X", "Y"][n].to_string(), dice.bytes(alphabet, len))
            })
            .collect();
        let output = random_output(&mut dice, alphabet, &secrets);
        let named: Vec<Named> = secrets.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let lines = shown_in_chunks(&named, random_chunks(&mut dice, &output));
        assert_eq!(lines, reference::shown(&secrets, &output), "round {round}");
        for value in secrets.iter().flat_map(|(_, value)| value.split(|&byte| byte == b'\n' || byte == b'\r')) {
            let text = std::str::from_utf8(value.trim_ascii()).expect("an alphabet of ASCII");
            let shows = text.len() >= 6 && lines.iter().any(|line| line.contains(text));
            assert!(!shows, "round {round} shows a secret");
        }
    }
}

#[test]
fn whatever_bytes_come_nothing_is_lost_and_nothing_obeyed() {
    let pieces: &[&[u8]] = &[
        b"a",
        b"word",
        b"\n",
        b"\r",
        b"\r\n",
        b"\t",
        b"\x1b[0m",
        b"\x7f",
        b"\0",
        b"\xff",
        b"\xc2",
        b"\x85",
        b"\x9b",
        b"\xe2",
        b"\x80",
        b"\xae",
        b"\xe2\x80\xae",
        b"\xc2\x9b",
        b"\xe2\x81\xa9",
        b"\xd8\x9c",
        b"\xe2\x80\x93",
        "日".as_bytes(),
        "é".as_bytes(),
    ];
    let mut dice = Dice(11);
    for round in 0..20_000 {
        let output: Vec<u8> = (0..dice.below(40)).flat_map(|_| pieces[dice.below(pieces.len())]).copied().collect();
        let lines = shown_in_chunks(&[], random_chunks(&mut dice, &output));
        assert_eq!(lines, shown(&[], &output), "round {round}");
        let obeyed = |c: char| (c.is_control() && c != '\t') || ['\u{202e}', '\u{2069}', '\u{61c}'].contains(&c);
        assert!(!lines.iter().any(|line| line.contains(obeyed)), "round {round}");
        let bytes: Vec<Vec<u8>> = lines.iter().map(|line| reference::unescaped(line)).collect();
        assert_eq!(bytes, reference::lines(&output), "round {round}");
    }
}
