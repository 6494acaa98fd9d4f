//! The first line of a script: which programs the kernel, and then env(1), will run for it
//! (execve(2), "Interpreter scripts"). What cannot be told for sure is refused, since an
//! interpreter that nobody looked at could read the secrets meant for the script.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// As much of a first line as the kernel reads.
pub(super) const LINE_MAX: usize = if cfg!(target_os = "macos") { 512 } else { 256 };

/// Linux hands all that follows the interpreter over as one argument, macOS as words.
const KERNEL_SPLITS: bool = cfg!(target_os = "macos");

/// What runs a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The path after `#!`, absolute.
    pub(super) path: PathBuf,
    /// `X` of `#!/usr/bin/env X`.
    pub(super) through_env: Option<OsString>,
}

/// Why a first line is refused, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) what: &'static str,
    pub(super) hint: &'static str,
}

const RELATIVE: Refusal =
    Refusal { what: "its #! line names no absolute path", hint: "begin the script with a line like `#!/bin/sh`" };
const TOO_LONG: Refusal = Refusal { what: "its #! line is longer than the kernel reads", hint: "shorten it" };
const WINDOWS: Refusal = Refusal {
    what: "its #! line ends with a carriage return",
    hint: "give the script Unix line endings, with `dos2unix` say",
};
const ENV_UNCLEAR: Refusal = Refusal {
    what: "its #! line does not tell plainly which program env runs",
    hint: "write `#!/usr/bin/env NAME`, `#!/usr/bin/env -S NAME ARG`, or the program's own path",
};

/// Reads the head of a file, its first `LINE_MAX` bytes or fewer; `None` if it is no script.
pub(super) fn interpreter(head: &[u8]) -> Result<Option<Interpreter>, Refusal> {
    let Some(rest) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let end = rest.iter().position(|b| matches!(b, b'\n' | 0));
    let cut = end.is_none() && head.len() >= LINE_MAX;
    let line = trim_start(&rest[..end.unwrap_or(rest.len())]);
    // The kernel drops blanks before a line feed alone; others are part of what it hands on.
    let line = if end.is_some_and(|end| rest[end] == b'\n') { trim_end(line) } else { line };
    if line.ends_with(b"\r") {
        return Err(WINDOWS);
    }
    let (path, argument) = match line.iter().position(is_blank) {
        Some(at) => (&line[..at], trim_start(&line[at..])),
        None if cut => return Err(TOO_LONG),
        None => (line, &[][..]),
    };
    if !path.starts_with(b"/") {
        return Err(RELATIVE);
    }
    let path = PathBuf::from(OsStr::from_bytes(path));
    let through_env = if path.file_name() == Some(OsStr::new("env")) {
        if cut {
            return Err(TOO_LONG);
        }
        Some(run_by_env(argument, KERNEL_SPLITS)?)
    } else {
        None
    };
    Ok(Some(Interpreter { path, through_env }))
}

/// The name that env looks up on PATH, or an absolute path. Only the plain forms are read: a word
/// (to its end, where nothing splits the line), and `-S` with variables and words.
fn run_by_env(argument: &[u8], kernel_splits: bool) -> Result<OsString, Refusal> {
    let split = [&b"-S"[..], b"-vS", b"--split-string="].iter().find_map(|option| argument.strip_prefix(*option));
    let mut words: Vec<&[u8]> = match split {
        Some(text) => text.split(is_blank).collect(),
        None if kernel_splits => argument.split(is_blank).collect(),
        None => vec![argument],
    };
    words.retain(|word| !word.is_empty());
    let variables = words.iter().take_while(|word| word.contains(&b'='));
    let variables: Vec<_> = variables.collect();
    let Some(name) = words.get(variables.len()) else {
        return Err(ENV_UNCLEAR);
    };
    let plain = |word: &[u8]| !word.starts_with(b"-") && !word.iter().any(|b| br#"\"'$#"#.contains(b));
    if !variables.iter().all(|v| plain(v) && !v.starts_with(b"PATH=")) || !plain(name) {
        return Err(ENV_UNCLEAR);
    }
    if name.contains(&b'/') && !name.starts_with(b"/") {
        return Err(ENV_UNCLEAR);
    }
    Ok(OsStr::from_bytes(name).to_os_string())
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim_start(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = line {
        line = rest;
    }
    line
}

fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(path: &str, through_env: Option<&str>) -> Result<Option<Interpreter>, Refusal> {
        Ok(Some(Interpreter { path: path.into(), through_env: through_env.map(OsString::from) }))
    }

    #[test]
    fn binaries_and_texts_have_no_interpreter() {
        for head in [&b"\x7fELF"[..], b"", b"#", b"echo\n", b" #!/bin/sh\n"] {
            assert_eq!(interpreter(head), Ok(None));
        }
    }

    #[test]
    fn the_interpreter_is_the_first_word() {
        assert_eq!(interpreter(b"#!/bin/sh\necho"), runs("/bin/sh", None));
        assert_eq!(interpreter(b"#! \t/bin/sh -e \t\n"), runs("/bin/sh", None));
        assert_eq!(interpreter(b"#!/bin/sh"), runs("/bin/sh", None));
        assert_eq!(interpreter(b"#!/bin/sh\0x"), runs("/bin/sh", None));
    }

    #[test]
    fn env_runs_the_name_behind_it() {
        for line in [
            "#!/usr/bin/env python3\n",
            "#! /usr/bin/env  python3 \n",
            "#!/usr/bin/env -S python3 -u\n",
            "#!/usr/bin/env -SLANG=C  A=b python3 -u \"x y\"\n",
            "#!/usr/bin/env --split-string=python3 -u\n",
        ] {
            let expected = runs("/usr/bin/env", Some("python3"));
            assert_eq!(interpreter(line.as_bytes()), expected, "{line}");
        }
        let absolute = interpreter(b"#!/usr/bin/env /opt/x\n");
        assert_eq!(absolute, runs("/usr/bin/env", Some("/opt/x")));
    }

    #[test]
    fn blanks_at_an_end_without_a_line_feed_belong_to_the_name() {
        let expected = if KERNEL_SPLITS { "sh" } else { "sh " };
        for line in ["#!/usr/bin/env sh ", "#!/usr/bin/env sh \0\n"] {
            assert_eq!(interpreter(line.as_bytes()), runs("/usr/bin/env", Some(expected)), "{line:?}");
        }
    }

    #[test]
    fn the_argument_is_one_word_on_linux_and_several_on_macos() {
        assert_eq!(run_by_env(b"python3 -u", false), Ok("python3 -u".into()));
        assert_eq!(run_by_env(b"python3 -u", true), Ok("python3".into()));
    }

    #[test]
    fn what_env_runs_must_be_plain() {
        for argument in [
            "",
            "-i sh",
            "-S",
            "-S -i sh",
            "-S -u X sh",
            "-S PATH=/x sh",
            "-S 'sh'",
            "-S ${X}",
            "-S A=$B sh",
            "-S A=b",
            "bin/sh",
            "./sh",
            "-",
        ] {
            assert_eq!(run_by_env(argument.as_bytes(), false), Err(ENV_UNCLEAR), "{argument}");
        }
    }

    #[test]
    fn lines_that_the_kernel_would_not_run_are_refused() {
        assert_eq!(interpreter(b"#!\n"), Err(RELATIVE));
        assert_eq!(interpreter(b"#!sh\n"), Err(RELATIVE));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Err(WINDOWS));
        let mut long = b"#!/".to_vec();
        long.resize(LINE_MAX, b'x');
        assert_eq!(interpreter(&long), Err(TOO_LONG));
        let mut longest = long[..LINE_MAX - 1].to_vec();
        longest.push(b'\n');
        let path = String::from_utf8_lossy(&longest[2..LINE_MAX - 1]).into_owned();
        assert_eq!(interpreter(&longest), runs(&path, None));
        let mut arguments = b"#!/bin/sh ".to_vec();
        arguments.resize(LINE_MAX, b'x');
        assert_eq!(interpreter(&arguments), runs("/bin/sh", None));
        let mut env = b"#!/usr/bin/env ".to_vec();
        env.resize(LINE_MAX, b'x');
        assert_eq!(interpreter(&env), Err(TOO_LONG));
    }
}
