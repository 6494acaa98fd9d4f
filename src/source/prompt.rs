//! `prompt` sources: asked on the controlling terminal, without echo.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::error::printable;
use crate::secret::{ReadError, Secret};
use crate::sys::{self, Arena, Block, HiddenInput, Interruption};

use super::{Patience, Reason};

/// Asks with `text` and reads a line. A terminal hands over at most `sys::LINE_MAX` bytes of one.
pub(super) fn ask(text: &str, patience: &Patience<'_>, arena: &'static Arena) -> Result<Secret, Reason> {
    let terminal = sys::open_controlling_terminal().map_err(|_| {
        Reason::wrong("there is no terminal to ask on")
            .hint("start backupnizza in a terminal, or use another source, such as credential or file")
    })?;
    loop {
        // A pause gives the terminal back to a shell; whoever continues sees the question again.
        if let Some(line) = ask_once(&terminal, text, patience, arena)? {
            return value(line);
        }
    }
}

/// One question, `None` if it was interrupted by a pause that is over now.
fn ask_once(
    mut terminal: &File,
    text: &str,
    patience: &Patience<'_>,
    arena: &'static Arena,
) -> Result<Option<Block>, Reason> {
    check_foreground(terminal)?;
    let hidden = HiddenInput::begin(terminal).map_err(|error| broken(&error))?;
    terminal.write_all(printable(text).as_bytes()).map_err(|error| broken(&error))?;
    let line = read_line(terminal, &hidden, patience, arena);
    // The line ending that was typed was not echoed.
    let _ = terminal.write_all(b"\n");
    line
}

/// Everything up to a line ending or an end of file, straight into protected memory.
fn read_line(
    mut terminal: &File,
    hidden: &HiddenInput<'_>,
    patience: &Patience<'_>,
    arena: &'static Arena,
) -> Result<Option<Block>, Reason> {
    let mut line =
        arena.block(sys::LINE_MAX + 1).map_err(|error| ReadError::Memory(error).into_reason("the answer"))?;
    let mut len = 0;
    while len < line.len() {
        match hidden.interruption() {
            Some(Interruption::Pause) => return Ok(None),
            Some(Interruption::End) => return Err(Reason::stopped()),
            None => {}
        }
        if let Some(over) = patience.over() {
            return Err(patience.reason(over, "the terminal"));
        }
        check_foreground(terminal)?;
        if !sys::wait_for_line(terminal, patience.pause()).map_err(|error| broken(&error))? {
            continue;
        }
        match terminal.read(&mut line[len..]) {
            Ok(0) => break,
            Ok(_) if line[len..].contains(&b'\n') => {
                len = line.iter().position(|&byte| byte == b'\n').unwrap_or(len);
                break;
            }
            // Ctrl-D behind some characters hands over a line without its end; the rest follows.
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
    line.truncate(len);
    Ok(Some(line))
}

fn value(line: Block) -> Result<Secret, Reason> {
    if line.is_empty() {
        Err(ReadError::Empty.into_reason("the answer"))
    } else if line.len() >= sys::LINE_MAX {
        Err(Reason::wrong(format!("the answer is {} bytes or longer, which a terminal cuts off", sys::LINE_MAX))
            .hint("use another source, such as file"))
    } else {
        Ok(Secret::new(line))
    }
}

fn check_foreground(terminal: &File) -> Result<(), Reason> {
    if sys::in_foreground(terminal) {
        return Ok(());
    }
    Err(Reason::unavailable("backupnizza runs in the background of its terminal, where it cannot ask")
        .hint("bring it to the foreground with `fg`"))
}

fn broken(error: &io::Error) -> Reason {
    Reason::unavailable(format!("the terminal failed: {error}"))
}
