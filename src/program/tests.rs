//! What `program` promises, with real files. Programs in a temporary folder are never such that
//! only root can change them (it is sticky), so that rule is tested on programs made up here.

use super::testing::Folder;
use super::*;
use std::os::unix::fs::symlink;
use std::process::Command;

fn no_path() -> Arc<OsStr> {
    Arc::from(OsStr::new(""))
}

fn look(path: &Path) -> Result<Program, Error> {
    inspect(path, None, &no_path(), None).map(|(program, _)| program)
}

fn refused(program: &Program) -> String {
    check_again(program).expect_err("it has changed").what
}

#[test]
fn a_program_that_nobody_touched_is_unchanged() {
    let folder = Folder::new();
    let path = folder.file("tool", "binary", 0o755);
    let program = look(&path).expect("trusted");
    assert_eq!(program.path(), path);
    assert_eq!(check_again(&program), Ok(Recheck::Unchanged));
}

#[test]
fn a_program_of_the_user_that_changed_must_not_run() {
    let folder = Folder::new();
    let path = folder.file("tool", "one", 0o755);
    let program = look(&path).expect("trusted");
    let another = "has changed since the start: another file is there now";
    folder.file("tool", "two", 0o755);
    assert_eq!(refused(&program), another);
    let hint = check_again(&program).expect_err("changed").hint;
    assert!(hint.expect("a hint").contains("backupnizza refresh"));

    let program = look(&path).expect("trusted");
    fs::write(&path, "three").expect("write");
    assert_eq!(refused(&program), "has changed since the start: it was written to");

    let program = look(&path).expect("trusted");
    folder.mode(&path, 0o700);
    assert_eq!(refused(&program), "has changed since the start: its mode or owner is another");

    let program = look(&path).expect("trusted");
    fs::remove_file(&path).expect("remove");
    assert_eq!(refused(&program), "does not exist");
}

#[test]
fn links_are_followed_again() {
    let folder = Folder::new();
    let one = folder.file("one", "1", 0o755);
    folder.file("two", "2", 0o755);
    let link = folder.path("tool");
    symlink("one", &link).expect("make a link");
    let program = look(&link).expect("trusted");
    assert_eq!((program.path(), &*program.main.real), (&*link, &*one));
    assert_eq!(check_again(&program), Ok(Recheck::Unchanged));
    fs::remove_file(&link).expect("remove");
    symlink("two", &link).expect("make a link");
    assert_eq!(refused(&program), "has changed since the start: another file is there now");
}

#[test]
fn what_cannot_run_is_refused() {
    let folder = Folder::new();
    let what = |path: &Path| look(path).expect_err("not a program").what;
    assert_eq!(what(&folder.path("missing")), "does not exist");
    assert_eq!(what(&folder.file("plain", "", 0o644)), "is not executable");
    assert_eq!(what(&folder.path("")), "is a folder, expected a program");
    assert_eq!(what(&folder.file("open", "", 0o757)), "writable by everyone");
}

/// Between the look at a file and its opening another can be put in its place.
#[test]
fn a_pipe_in_the_place_of_a_program_holds_up_nobody() {
    let folder = Folder::new();
    let identity = look(&folder.file("tool", "binary", 0o755)).expect("trusted").identity();
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let error = read_head(&pipe, identity, None).expect_err("no program");
    assert_eq!(error.what, "changed while it was looked at");
}

#[test]
fn a_pin_holds_the_contents_for_ever() {
    let folder = Folder::new();
    let path = folder.file("tool", "right", 0o755);
    let pin = Sha256Digest::of(b"right");
    let (program, _) = inspect(&path, Some(&pin), &no_path(), None).expect("the pinned contents");

    folder.file("tool", "right", 0o755);
    match check_again(&program).expect("the same contents") {
        Recheck::Renewed { program, notices } => {
            assert_eq!(program.identity(), look(&path).expect("trusted").identity());
            assert!(notices[0].what.contains("pinned"));
        }
        Recheck::Unchanged => panic!("another file with the same contents"),
    }

    folder.file("tool", "wrong", 0o755);
    let other = "its contents are not those that are pinned";
    assert_eq!(refused(&program), other);
    let at_start = inspect(&path, Some(&pin), &no_path(), None).expect_err("other contents");
    assert_eq!(at_start.what, other);
}

#[test]
fn a_pin_reads_files_of_any_length() {
    let folder = Folder::new();
    let contents = "0123456789abcdef".repeat(20_000);
    let path = folder.file("tool", &contents, 0o755);
    let pin = Sha256Digest::of(contents.as_bytes());
    assert!(inspect(&path, Some(&pin), &no_path(), None).is_ok());
}

#[test]
fn the_interpreter_of_a_script_counts() {
    let folder = Folder::new();
    let interpreter = folder.file("interpreter", "binary", 0o755);
    let line = format!("#!{} -e\n", interpreter.display());
    let script = folder.file("script", &line, 0o755);
    let program = look(&script).expect("trusted");
    assert_eq!(check_again(&program), Ok(Recheck::Unchanged));

    folder.file("interpreter", "another", 0o755);
    let error = check_again(&program).expect_err("it has changed");
    assert_eq!(error.object, shown(&interpreter));

    folder.mode(&interpreter, 0o757);
    let error = look(&script).expect_err("others may write the interpreter");
    assert_eq!(error.object, shown(&script));
    assert_eq!(error.what, format!("its interpreter: {}: writable by everyone", interpreter.display()));
    assert!(error.hint.is_some());

    fs::remove_file(&interpreter).expect("remove");
    assert!(look(&script).expect_err("no interpreter").what.ends_with("does not exist"));
}

#[test]
fn what_env_finds_for_a_script_counts() {
    let folder = Folder::new();
    let early = folder.folder("early");
    let tool = folder.file("late/tool", "binary", 0o755);
    let late = folder.path("late");
    let script = folder.file("script", "#!/usr/bin/env tool\n", 0o755);
    let on = |folders: &[&Path]| {
        let path_variable = std::env::join_paths(folders).expect("no colon in the names");
        inspect(&script, None, &path_variable.into(), None).map(|(program, _)| program)
    };
    let program = on(&[&early, &late]).expect("trusted");
    assert_eq!(check_again(&program), Ok(Recheck::Unchanged));

    let another = folder.file("late/tool", "another", 0o755);
    assert_eq!(check_again(&program).expect_err("changed").object, shown(&another));

    let program = on(&[&early, &late]).expect("trusted");
    let earlier = folder.file("early/tool", "binary", 0o755);
    assert_eq!(check_again(&program).expect_err("changed").object, shown(&earlier));

    fs::remove_file(&earlier).expect("remove");
    folder.mode(&early, 0o757);
    let error = on(&[&early, &late]).expect_err("others may put a tool there");
    assert!(error.what.ends_with("writable by everyone"));
    folder.mode(&early, 0o1777);
    let missing = early.join("missing");
    assert!(on(&[&early, &late]).is_err(), "sticky keeps nobody from adding names");
    assert!(on(&[&missing, &late]).is_err(), "others may make that folder");
    assert!(on(&[&late, &early]).is_ok(), "env does not get that far");
    assert!(on(&[Path::new("bin"), &late]).is_err(), "env would search ./bin");
    assert!(on(&[&late, Path::new("bin"), &early]).is_ok(), "env does not get that far");

    fs::remove_file(&tool).expect("remove");
    let error = on(&[&late]).expect_err("nothing to run it");
    assert_eq!(error.what, "its interpreter: tool: not found on PATH");
}

#[test]
fn a_binary_may_become_a_script_that_env_runs() {
    let folder = Folder::new();
    let path = folder.file("tool", "binary", 0o755);
    let path_variable = Arc::from(OsStr::new("/usr/bin:/bin"));
    let (program, _) = inspect(&path, None, &path_variable, None).expect("trusted");
    folder.file("tool", "#!/usr/bin/env sh\n", 0o755);
    let another = "has changed since the start: another file is there now";
    assert_eq!(refused(&program), another);
}

#[test]
fn scripts_that_run_each_other_in_a_circle_are_refused() {
    let folder = Folder::new();
    let (a, b) = (folder.path("a"), folder.path("b"));
    folder.file("a", &format!("#!{}\n", b.display()), 0o755);
    folder.file("b", &format!("#!{}\n", a.display()), 0o755);
    let error = look(&a).expect_err("no end");
    assert!(error.what.contains("run each other"), "{}", error.what);
}

/// A file that nobody has; `number` tells its state from others.
fn made_up(path: &str, number: u8, only_root: bool) -> ProgramFile {
    ProgramFile {
        path: Path::new(path).into(),
        real: Path::new(path).into(),
        identity: Identity::from_bytes(&[number; Identity::BYTES]),
        only_root,
        env_name: None,
    }
}

fn program(main: ProgramFile, interpreters: Vec<ProgramFile>) -> Program {
    Program { main, interpreters: interpreters.into(), pin: None, path_variable: no_path(), user: None }
}

#[test]
fn what_only_root_can_change_may_change() {
    let binary = |number, only_root| program(made_up("/bin/x", number, only_root), vec![]);
    let notices = judge_changes(&binary(1, true), &binary(2, true)).expect("an upgrade");
    assert_eq!(notices.len(), 1);
    assert!(notices[0].what.contains("only root can change it"));
    assert!(judge_changes(&binary(1, false), &binary(2, true)).is_err());
    assert!(judge_changes(&binary(1, true), &binary(2, false)).is_err());
    assert_eq!(judge_changes(&binary(1, false), &binary(1, false)), Ok(vec![]));
}

#[test]
fn a_script_and_its_interpreter_are_judged_each() {
    let script = |script, sh| program(made_up("/home/me/script", script, false), vec![made_up("/bin/sh", sh, true)]);
    let notices = judge_changes(&script(1, 1), &script(1, 2)).expect("an upgrade of sh");
    assert_eq!(notices[0].object, "/bin/sh");
    assert!(judge_changes(&script(1, 1), &script(2, 1)).is_err());

    let binary = program(made_up("/bin/x", 1, true), vec![]);
    let by = |only_root| {
        let interpreter = made_up("/opt/python", 3, only_root);
        program(made_up("/bin/x", 2, true), vec![interpreter])
    };
    assert!(judge_changes(&binary, &by(true)).is_ok());
    assert!(judge_changes(&binary, &by(false)).is_err());
}
