//! What is shown of what a command printed, however its bytes happened to arrive.

use std::sync::{Arc, OnceLock};

use super::{Patterns, Record, Redactor};
use crate::plan::OutputMode;
use crate::secret::{Protection, Secret, protect};
use crate::sys::Arena;

pub type Named<'a> = (&'a str, &'a [u8]);

pub fn arena() -> &'static Arena {
    static ARENA: OnceLock<&'static Arena> = OnceLock::new();
    ARENA.get_or_init(|| protect(Protection::Locked).expect("locked memory").arena)
}

pub fn patterns(secrets: &[Named]) -> Arc<Patterns> {
    let in_memory = |(name, value): &Named| {
        let mut block = arena().block(value.len()).expect("locked memory");
        block.copy_from_slice(value);
        (Arc::from(*name), Arc::new(Secret::new(block)))
    };
    Arc::new(Patterns::new(arena(), secrets.iter().map(in_memory).collect()).expect("locked memory"))
}

/// Adds `text` to `lines`, as a sink that must be given whole lines and never nothing.
pub fn add(text: &str, lines: &mut Vec<String>) {
    assert!(text.ends_with('\n'));
    lines.extend(text[..text.len() - 1].split('\n').map(str::to_string));
}

/// As the runner does it: what was read goes into the redactor's own space.
pub fn feed(redactor: &mut Redactor, mut bytes: &[u8], lines: &mut Vec<String>) {
    while !bytes.is_empty() {
        let space = redactor.space();
        let count = bytes.len().min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        redactor.advance(count, &mut |text| add(text, lines));
        bytes = &bytes[count..];
    }
}

pub fn shown_in_chunks<'a>(secrets: &[Named], chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
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

/// Each with thousands of lines, of which hundreds begin alike. Compared one by one they would take many minutes.
#[test]
fn very_many_lines_that_begin_alike_are_all_replaced() {
    let line = |secret: usize, line: usize| format!("secret{secret:02}-{line:04}");
    let value = |secret: usize| (0..4_500).map(|number| line(secret, number) + "\n").collect::<String>().into_bytes();
    let values: Vec<Vec<u8>> = (0..20).map(value).collect();
    let secrets: Vec<Named> = values.iter().map(|value| ("key", value.as_slice())).collect();
    let output: String = (0..20).map(|secret| format!("<{}>\n", line(secret, 37 * secret))).collect();
    assert_eq!(shown(&secrets, output.repeat(100).as_bytes()), vec!["<[secret key]>"; 20 * 100]);
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
fn the_tail_is_whole_wherever_older_lines_were_dropped() {
    let text = |n: usize| format!("{n} {}", "x".repeat(400));
    let mut record = Record::new(OutputMode::Discard);
    for n in 0..1000 {
        record.lines(&(text(n) + "\n"), &mut |_| {});
        let expected: Vec<String> = (0..=n).skip((n + 1).saturating_sub(100)).map(text).collect();
        assert_eq!(record.tail().lines().collect::<Vec<_>>(), expected, "after {n} lines");
    }
}

#[test]
fn the_line_that_tells_of_an_error_is_preferred_among_the_last_few() {
    let told = |lines: &[&str]| {
        let (record, _) = record(OutputMode::Log, lines.iter().map(|line| (*line).to_owned()));
        record.last_line().map(str::to_owned)
    };
    let restic = ["error: early", "Fatal: no repository", "Is there a repository at the following location?", "/srv"];
    assert_eq!(told(&restic).as_deref(), Some("Fatal: no repository"));
    assert_eq!(told(&["ERROR : one", "Error: two", "done"]).as_deref(), Some("Error: two"));
    assert_eq!(told(&["all", "well"]).as_deref(), Some("well"));
    let long_ago: Vec<&str> = ["an error"].into_iter().chain(["on"; 10]).collect();
    assert_eq!(told(&long_ago).as_deref(), Some("on"));
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
