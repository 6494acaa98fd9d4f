//! Rows and columns: aligned and cut to the width on a terminal, tabs into a pipe.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

use crate::clock::{self, Zone};

/// The narrowest that a column is made to fit a terminal.
const COLUMN_MIN: usize = 8;

const GAP: usize = 2;

/// Where a table goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Of so many columns, if that is known.
    Terminal { width: Option<usize>, colour: bool },
    /// Another program.
    Pipe,
}

/// Rows of cells; a cell may have several lines.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// A cell's lines and how they look.
pub struct Cell {
    pub lines: Vec<String>,
    /// What a person is shown in their place.
    short: Option<String>,
    pub look: Look,
}

/// What a cell's colour tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl From<Vec<String>> for Cell {
    fn from(lines: Vec<String>) -> Cell {
        Cell { lines, short: None, look: Look::Plain }
    }
}

impl From<String> for Cell {
    fn from(line: String) -> Cell {
        vec![line].into()
    }
}

impl Cell {
    /// A time: for a person to the minute, for a program as RFC 3339.
    pub fn time(time: DateTime<Utc>, zone: Zone) -> Cell {
        let short = time.with_timezone(&zone.offset_at(time)).format("%Y-%m-%d %H:%M").to_string();
        Cell { lines: vec![clock::format_time(time, zone)], short: Some(short), look: Look::Plain }
    }

    /// A line of it as a person sees it.
    fn shown(&self, line: usize) -> Option<&str> {
        match &self.short {
            Some(short) => (line == 0).then_some(short),
            None => self.lines.get(line).map(String::as_str),
        }
    }

    pub fn look(self, look: Look) -> Cell {
        Cell { look, ..self }
    }
}

impl Look {
    /// By ECMA-48's select graphic rendition.
    fn begin(self) -> &'static str {
        match self {
            Look::Plain => "",
            Look::Good => "\x1b[32m",
            Look::Doubtful => "\x1b[33m",
            Look::Bad => "\x1b[31m",
        }
    }
}

impl Table {
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// As text, for a terminal or for a program.
    pub fn render(&self, output: Output) -> String {
        match output {
            Output::Terminal { width, colour } => self.aligned(width, colour),
            Output::Pipe => self.tabbed(),
        }
    }

    fn aligned(&self, width: Option<usize>, colour: bool) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        let head: Vec<(&str, Look)> = self.head.iter().map(|name| (*name, Look::Plain)).collect();
        push_line(&mut text, &widths, &head, colour);
        for row in &self.rows {
            let height = row.iter().map(|cell| cell.lines.len()).max().unwrap_or(0);
            for line in 0..height {
                let cells: Vec<(&str, Look)> =
                    row.iter().map(|cell| (cell.shown(line).unwrap_or_default(), cell.look)).collect();
                push_line(&mut text, &widths, &cells, colour);
            }
        }
        text
    }

    /// As wide as the cells, less what the widest columns have too much.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let natural = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]);
            let lines = cells.flat_map(|cell| (0..cell.lines.len()).filter_map(|line| cell.shown(line)));
            lines.map(|line| line.chars().count()).chain([self.head[column].len()]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.head.len()).map(natural).collect();
        let gaps = GAP * widths.len().saturating_sub(1);
        let limit = limit.unwrap_or(usize::MAX).saturating_sub(gaps);
        while widths.iter().sum::<usize>() > limit {
            match widths.iter_mut().max() {
                Some(widest) if *widest > COLUMN_MIN => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    fn tabbed(&self) -> String {
        let text = |cell: &Cell| cell.lines.join(", ").replace('\t', " ");
        let line = |row: &Vec<Cell>| row.iter().map(text).collect::<Vec<_>>().join("\t") + "\n";
        self.rows.iter().map(line).collect()
    }
}

fn push_line(text: &mut String, widths: &[usize], cells: &[(&str, Look)], colour: bool) {
    let used = cells.iter().rposition(|(cell, _)| !cell.is_empty()).map_or(0, |last| last + 1);
    for (index, ((cell, look), width)) in cells[..used].iter().zip(widths).enumerate() {
        let shown = cut(cell, *width).replace('\t', " ");
        let begin = if colour && !shown.is_empty() { look.begin() } else { "" };
        let end = if begin.is_empty() { "" } else { "\x1b[0m" };
        let _ = write!(text, "{begin}{shown}{end}");
        if index + 1 < used {
            let padding = width + GAP - shown.chars().count();
            let _ = write!(text, "{:padding$}", "");
        }
    }
    text.push('\n');
}

/// `text` in at most `width` characters; where something was cut off an ellipsis says so.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["TASK", "LAST"]);
        table.push(vec!["documents".to_owned().into(), Cell::from("failure".to_owned()).look(Look::Bad)]);
        table.push(vec!["a".to_owned().into(), vec!["x".repeat(60), "y\tz".to_owned()].into()]);
        table
    }

    #[test]
    fn a_terminals_width_is_kept() {
        let text = table().render(Output::Terminal { width: Some(40), colour: false });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.contains("documents  failure\n"), "{text}");
        assert!(text.contains("xxx…\n"), "{text}");
        assert!(text.contains("\n           y z\n"), "{text}");
    }

    #[test]
    fn colour_stands_only_where_it_is_wanted() {
        let coloured = table().render(Output::Terminal { width: None, colour: true });
        assert!(coloured.contains("documents  \x1b[31mfailure\x1b[0m\n"), "{coloured}");
        for plain in [Output::Terminal { width: None, colour: false }, Output::Pipe] {
            assert!(!table().render(plain).contains('\x1b'));
        }
    }

    #[test]
    fn into_a_pipe_go_tabs_and_no_head() {
        let text = table().render(Output::Pipe);
        assert!(text.starts_with("documents\tfailure\na\txxx") && text.ends_with(", y z\n"), "{text}");
    }
}
