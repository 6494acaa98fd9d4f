//! The file as written: what is refused before it is parsed, and that texts arrive as written.

use std::fs;
use std::path::PathBuf;

use super::fuzz::true_depth;
use super::scan::{MAX_DEPTH, scan};
use super::{Config, Kind, MAX_BYTES, Node, Value, read, usual};
use crate::testing::Random;

/// Writes nesting of just this depth, in all styles.
fn nested(random: &mut Random, depth: usize, indent: usize, text: &mut String) {
    if depth == 0 {
        text.push_str("x\n");
        return;
    }
    let pad = " ".repeat(indent + 1);
    match random.below(6) {
        0 => {
            text.push_str("- ");
            nested(random, depth - 1, indent + 2, text);
        }
        1 => {
            text.push_str("'k[': x\n");
            text.push_str(&format!("{}k: \n{pad}", " ".repeat(indent)));
            nested(random, depth - 1, indent + 1, text);
        }
        2 => {
            text.push_str("? ");
            nested(random, depth - 1, indent + 2, text);
        }
        3 => {
            text.push_str("# don't [ {\n");
            text.push_str(&" ".repeat(indent));
            nested(random, depth, indent, text);
        }
        4 => {
            text.push_str("k: |\n");
            text.push_str(&format!("{pad}[ {{ '\n{}k2:\n{pad}", " ".repeat(indent)));
            nested(random, depth - 1, indent + 1, text);
        }
        _ => {
            flow(random, depth, text);
            text.push('\n');
        }
    }
}

fn flow(random: &mut Random, depth: usize, text: &mut String) {
    if depth == 0 {
        text.push_str(["don't", "'['", "\"{\\\"\"", "a[b"][random.below(3)]);
        return;
    }
    match random.below(if depth > 1 { 4 } else { 2 }) {
        0 => {
            text.push('[');
            flow(random, depth - 1, text);
            text.push(']');
        }
        1 => {
            text.push_str("{'}': x, k: ");
            flow(random, depth - 1, text);
            text.push('}');
        }
        2 => {
            text.push_str("[k: ");
            flow(random, depth - 2, text);
            text.push(']');
        }
        _ => {
            text.push('[');
            flow(random, depth - 2, text);
            text.push_str(": x]");
        }
    }
}

#[test]
fn sixty_four_levels_pass_in_every_style_and_one_more_does_not() {
    let mut random = Random::new(2);
    for depth in [1, 10, 62, 63, 64, 65, 66, 80].repeat(200) {
        let mut text = String::new();
        nested(&mut random, depth, 0, &mut text);
        let Some(found) = true_depth(&text) else {
            continue;
        };
        let passes = scan(&text).is_ok();
        assert_eq!(passes, found <= MAX_DEPTH, "depth {found} of {text:?}");
    }
}

#[test]
fn nesting_is_refused_before_the_parser_would_take_minutes() {
    let size = MAX_BYTES as usize;
    for unit in ["[", "{a: ", "[a: ", "- ", "? ", "a: [", "[{", "{[", "[[]: ", "'a': [ "] {
        let text = unit.repeat(size / unit.len());
        let refusal = scan(&text).expect_err(unit);
        assert!(refusal.what.contains("nested"), "{unit}: {refusal:?}");
        assert!(refusal.place.starts_with("line 1 column "), "{unit}: {refusal:?}");
        for before in ["", "---\n", "|\n x\n---\n", "a: |\n x\n---\n", "a: '\n---\n"] {
            let text = format!("{before}{}", &text[..size - size % unit.len() - 100]);
            assert!(Config::parse(&text).is_err(), "{before}{unit}");
        }
    }
    let mut stairs = String::new();
    for indent in 0..2_000 {
        stairs.push_str(&" ".repeat(indent));
        stairs.push_str("a:\n");
    }
    assert!(scan(&stairs).expect_err("stairs").place.starts_with("line 65"));
}

#[test]
fn quotes_comments_and_apostrophes_hide_no_bracket() {
    let brackets = "[".repeat(MAX_DEPTH + 1);
    for before in
        ["a: don't ", "a: 'it''s' # don't\nb: ", "a: \"\\\"\"\nb: ", "a: |\n  '\nb: ", "# '\nb: ", "- &a don't\n- "]
    {
        let text = format!("{before}{brackets}");
        // Behind plain text they are text; everywhere else they count.
        let is_text = before.ends_with("don't ");
        assert_eq!(scan(&text).is_ok(), is_text, "{before:?}");
    }
    for quoted in [format!("a: '{brackets}'"), format!("a: \"{brackets}\""), format!("a: |\n  {brackets}")] {
        assert!(scan(&quoted).is_ok(), "{quoted}");
    }
}

#[test]
fn tags_and_control_characters_are_refused_at_their_place() {
    for (text, place) in [
        ("a: !x b", "line 1 column 4"),
        ("a:\n- !!str 14", "line 2 column 3"),
        ("a: é\0", "line 1 column 5"),
        ("a: 'b\u{7f}'", "line 1 column 6"),
        ("\u{85}a: \u{9c}", "line 2 column 4"),
    ] {
        assert_eq!(scan(text).expect_err(text).place, place, "{text:?}");
    }
    assert!(scan("a: 'b!' # !\nc: d !e").is_ok());
}

fn list(text: &str) -> Vec<(Kind, String)> {
    let config = Config::parse(text).expect(text);
    let Value::List(items) = &config.root.value else { panic!("{text} is no list") };
    let scalar = |item: &Node<'_>| match &item.value {
        Value::Scalar(kind, text) => (*kind, text.to_string()),
        _ => panic!("no scalar"),
    };
    items.iter().map(scalar).collect()
}

#[test]
fn plain_scalars_keep_their_text_and_tell_what_they_read_as() {
    for (text, kind) in [
        ("14", Kind::Number),
        ("-3", Kind::Number),
        ("-0", Kind::Number),
        ("0x10", Kind::Number),
        ("0o17", Kind::Number),
        ("+5", Kind::Number),
        ("1.50", Kind::Number),
        ("1e3", Kind::Number),
        (".5", Kind::Number),
        ("-.inf", Kind::Number),
        (".NaN", Kind::Number),
        ("99999999999999999999", Kind::Number),
        ("340282366920938463463374607431768211455", Kind::Number),
        ("340282366920938463463374607431768211456000", Kind::Number),
        ("007", Kind::Text),
        ("12h", Kind::Text),
        ("true", Kind::Boolean),
        ("True", Kind::Boolean),
        ("FALSE", Kind::Boolean),
        ("yes", Kind::Text),
        ("~", Kind::Null),
        ("null", Kind::Null),
        ("NULL", Kind::Null),
        ("~/x", Kind::Text),
        ("-", Kind::Text),
    ] {
        let flow = if text == "-" { "'-'" } else { text };
        assert_eq!(list(&format!("[{flow}, {flow}]")), [(kind, text.to_string()), (kind, text.to_string())]);
    }
    assert_eq!(list("['14', \"null\", '']").iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::Text; 3]);
    assert_eq!(list("-\n- b"), [(Kind::Null, String::new()), (Kind::Text, "b".to_string())]);
}

#[test]
fn aliases_cannot_stand_for_more_than_the_budget() {
    let long_list = format!("a: &a [{}]\nb:\n", "x, ".repeat(50_000));
    let quadratic = long_list + &"- *a\n".repeat(10_000);
    let long_text = format!("a: &a \"{}\\t\"\nb:\n", "x".repeat(100_000)) + &"- *a\n".repeat(10_000);
    let itself = "a: &a [*a]".to_string();
    let deep = format!("a: &a {}x{}\nb: {}*a{}", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40));
    for (text, what) in [
        (quadratic, "1,000,000 values"),
        (long_text, "16 MiB of text"),
        (itself, "nested deeper"),
        (deep, "nested deeper"),
    ] {
        let problem = Config::parse(&text).expect_err(what);
        assert!(problem.what.contains(what), "{problem:?}");
        assert!(problem.place.starts_with("line "), "{problem:?}");
    }
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("backupnizza-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file in the temporary folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_a_regular_file_of_text_and_of_sane_size_is_read() {
    let folder = Folder::new("read");
    let fifo = folder.0.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    for (file, what) in [
        (folder.0.clone(), "a folder, expected a file"),
        (fifo, "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
        (folder.0.join("none"), "no such file"),
        (folder.file("large", &vec![b' '; MAX_BYTES as usize + 1]), "larger than 4 MiB"),
        (folder.file("latin", b"a: b\nc: \xe9"), "not UTF-8"),
    ] {
        assert_eq!(read(&file).expect_err(what).what, what);
    }
    assert_eq!(read(&folder.file("latin", b"a: b\nc: \xe9")).expect_err("latin").place, "line 2");
    assert_eq!(read(&folder.file("good", "a: é".as_bytes())).expect("a good file"), "a: é");
    assert_eq!(
        read(&folder.file("limit", &vec![b' '; MAX_BYTES as usize])).map(|text| text.len()),
        Ok(MAX_BYTES as usize)
    );
}

#[test]
fn several_documents_and_nothing_are_told_as_such() {
    for (text, what) in [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("---\n", "empty"),
        ("~", "empty"),
        ("a: b\n---\nc: d", "more than one document"),
        ("\u{feff}a: b\n---\nc: d", "more than one document"),
    ] {
        assert!(Config::parse(text).expect_err(text).what.contains(what), "{text:?}");
    }
    for text in ["\u{feff}a: b", "\u{feff}---\na: &c b"] {
        assert!(Config::parse(text).is_ok(), "{text:?}");
    }
}

#[test]
fn an_item_that_is_a_list_in_brackets_adds_nothing_to_the_keys_behind_it() {
    assert_eq!(scan("a:\n- []\n- a: \n").expect("YAML").depth, 3);
    assert_eq!(scan("a:\n- [[]]: b\n").expect("YAML").depth, 5);
}

#[test]
fn usual_configurations_need_no_parser() {
    let example = include_str!("../../backup.example.yaml");
    let marked = "# backups\n---\ntasks: # all\n  - a: |  # 2nd\n      b\n\n    c: 'd''e'\n";
    let dumped = "tasks:\n- command:\n  - restic\n  - backup\n  name: documents\n  schedule: 0 3 * * *\n- {}\n";
    let json = "{\n  \"tasks\": [\n    {\"name\": \"documents\", \"retry\": {\"attempts\":3}}\n  ]\n}\n";
    for text in [example, marked, dumped, json] {
        assert!(usual::read(text).is_some(), "{text}");
    }
}

#[test]
fn the_items_of_a_long_list_are_numbered_in_their_order() {
    let tasks: String = (0..4_000).map(|number| format!("- {{name: task-{number}, <<: x, n: 0x10}}\n")).collect();
    let text = format!("a: ~\ntasks:\n{tasks}");
    let config = Config::parse(&text).expect("YAML");
    let Value::Map(entries) = &config.root().value else { panic!("a map") };
    let Value::List(items) = &entries[1].1.value else { panic!("a list") };
    assert!(items.len() == 4_000 && items.is_sorted_by_key(|item| item.at));
    let problems = config.problems().located(config.root());
    assert_eq!((problems[0].place.as_str(), problems[99].place.as_str()), ("tasks[0].<<", "tasks[99].<<"));
    let broken = Config::parse(&format!("{text}- [\n")).expect_err("broken");
    assert_eq!(broken.place, "line 4004 column 1");
}

#[test]
fn a_nul_is_found_however_it_is_written() {
    let problems = |text: &str| {
        let config = Config::parse(text).expect(text);
        config.problems().located(config.root()).into_iter().map(|problem| problem.what).collect::<Vec<_>>()
    };
    assert_eq!(problems("a: \"b\\0c\""), ["holds a NUL character"]);
    assert_eq!(problems("a: [\"\\x00\", 'b\\0']"), ["holds a NUL character"]);
    assert_eq!(problems("{\"a\\u0000\": b}"), ["the key holds a NUL character"]);
    assert!(Config::parse("a: b\0").is_err());
}
