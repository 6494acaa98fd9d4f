//! Rows and columns: folded to the width of a terminal, so that nothing is lost, tabs into a pipe.

use std::fmt::Write as _;
use std::iter;

use chrono::{DateTime, Utc};

use super::width::{columns, fold};
use crate::clock::{self, Zone};

/// The narrowest that a column is made to fit a terminal. Where not even that fits, rows are shown one under the other.
const COLUMN_MIN: usize = 8;

const GAP: usize = 2;

/// How far a note stands to the right.
const NOTE_INDENT: usize = 2;

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
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<Cell>,
    /// For people: what stands under the row, across all columns.
    note: Option<String>,
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

    /// The lines that a person sees.
    fn shown(&self) -> &[String] {
        self.short.as_ref().map_or(&self.lines, std::slice::from_ref)
    }

    /// As `shown`, in lines of at most `width` columns.
    fn folded(&self, width: usize) -> Vec<String> {
        self.shown().iter().flat_map(|line| fold(&plain(line), width)).collect()
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

    /// `text` as it looks on a terminal with or without colour.
    pub fn paint(self, text: &str, colour: bool) -> String {
        match self.begin() {
            begin if colour && !begin.is_empty() && !text.is_empty() => format!("{begin}{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

impl Table {
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    pub fn push(&mut self, cells: Vec<Cell>) {
        self.push_noted(cells, None);
    }

    /// A row, and what a person is told under it.
    pub fn push_noted(&mut self, cells: Vec<Cell>, note: Option<String>) {
        self.rows.push(Row { cells, note });
    }

    /// As text, for a terminal or for a program.
    pub fn render(&self, output: Output) -> String {
        let Output::Terminal { width, colour } = output else { return self.tabbed() };
        let width = width.unwrap_or(usize::MAX);
        match self.widths(width) {
            Some(widths) => self.aligned(&widths, width, colour),
            None => self.stacked(width, colour),
        }
    }

    fn aligned(&self, widths: &[usize], width: usize, colour: bool) -> String {
        let mut text = String::new();
        let head: Vec<Vec<String>> = self.head.iter().zip(widths).map(|(name, width)| fold(name, *width)).collect();
        push_lines(&mut text, widths, &head, &vec![Look::Plain; head.len()], colour);
        for row in &self.rows {
            let cells: Vec<Vec<String>> =
                row.cells.iter().zip(widths).map(|(cell, width)| cell.folded(*width)).collect();
            let looks: Vec<Look> = row.cells.iter().map(|cell| cell.look).collect();
            push_lines(&mut text, widths, &cells, &looks, colour);
            push_note(&mut text, row, width);
        }
        text
    }

    /// Each row as a list of its cells, for a terminal that is too narrow for columns.
    fn stacked(&self, width: usize, colour: bool) -> String {
        let name_width = self.head.iter().map(|name| columns(name)).max().unwrap_or(0);
        let widths = [name_width, width.saturating_sub(name_width + GAP).max(COLUMN_MIN)];
        let mut blocks = Vec::new();
        for row in &self.rows {
            let mut block = String::new();
            for (name, cell) in self.head.iter().zip(&row.cells) {
                let cells = [vec![(*name).to_owned()], cell.folded(widths[1])];
                push_lines(&mut block, &widths, &cells, &[Look::Plain, cell.look], colour);
            }
            push_note(&mut block, row, width);
            blocks.push(block);
        }
        blocks.join("\n")
    }

    /// As wide as the cells, less what the widest columns have too much: first down to their longest words, then
    /// to the least. `None`: that is still too wide.
    fn widths(&self, limit: usize) -> Option<Vec<usize>> {
        let lines = |column: usize| self.rows.iter().flat_map(move |row| row.cells[column].shown());
        let natural = |column: usize| lines(column).map(|line| columns(line)).max().unwrap_or(0);
        let longest_word = |column: usize| {
            let words = lines(column).flat_map(|line| line.split([' ', '\t'])).map(columns);
            words.max().unwrap_or(0).max(COLUMN_MIN)
        };
        let head = |column: usize| columns(self.head[column]);
        let mut widths: Vec<usize> = (0..self.head.len()).map(|column| natural(column).max(head(column))).collect();
        let limit = limit.saturating_sub(GAP * widths.len().saturating_sub(1));
        let words: Vec<usize> = (0..self.head.len()).map(longest_word).collect();
        for least in [words, vec![COLUMN_MIN; widths.len()]] {
            while widths.iter().sum::<usize>() > limit {
                let too_wide = widths.iter_mut().zip(&least).filter(|(width, least)| **width > **least);
                match too_wide.max_by_key(|(width, _)| **width) {
                    Some((widest, _)) => *widest -= 1,
                    None => break,
                }
            }
        }
        (widths.iter().sum::<usize>() <= limit).then_some(widths)
    }

    fn tabbed(&self) -> String {
        let text = |cell: &Cell| plain(&cell.lines.join(", "));
        let line = |row: &Row| row.cells.iter().map(text).collect::<Vec<_>>().join("\t") + "\n";
        self.rows.iter().map(line).collect()
    }
}

/// Without tabs, which mean something in a table.
fn plain(text: &str) -> String {
    text.replace('\t', " ")
}

/// Cells side by side, line by line.
fn push_lines(text: &mut String, widths: &[usize], cells: &[Vec<String>], looks: &[Look], colour: bool) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let shown: Vec<&str> = cells.iter().map(|cell| cell.get(line).map_or("", String::as_str)).collect();
        let used = shown.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
        for (index, cell) in shown[..used].iter().enumerate() {
            text.push_str(&looks[index].paint(cell, colour));
            if index + 1 < used {
                let padding = (widths[index] + GAP).saturating_sub(columns(cell));
                let _ = write!(text, "{:padding$}", "");
            }
        }
        text.push('\n');
    }
}

fn push_note(text: &mut String, row: &Row, width: usize) {
    for line in row.note.iter().flat_map(|note| fold(&plain(note), width.saturating_sub(NOTE_INDENT).max(COLUMN_MIN))) {
        text.extend(iter::repeat_n(' ', NOTE_INDENT));
        text.push_str(&line);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["TASK", "LAST"]);
        let failed = Cell::from("failure".to_owned()).look(Look::Bad);
        table.push_noted(vec!["documents".to_owned().into(), failed], Some("the last\tline".to_owned()));
        table.push(vec!["a".to_owned().into(), vec!["x".repeat(60), "y\tz".to_owned()].into()]);
        table
    }

    fn on_terminal(table: &Table, width: usize) -> String {
        table.render(Output::Terminal { width: Some(width), colour: false })
    }

    #[test]
    fn a_terminals_width_is_kept_and_nothing_is_lost() {
        for width in [12, 20, 40, 80] {
            let text = on_terminal(&table(), width);
            assert!(text.lines().all(|line| line.chars().count() <= width.max(14)), "{width}:\n{text}");
            assert_eq!(text.matches('x').count(), 60, "{width}:\n{text}");
            assert!(!text.contains('…'), "{text}");
        }
        let text = on_terminal(&table(), 40);
        assert!(text.contains("documents  failure\n  the last line\n"), "{text}");
        assert!(text.contains("\n           y z\n"), "{text}");
    }

    #[test]
    fn where_columns_do_not_fit_rows_are_lists() {
        assert_eq!(
            on_terminal(&table(), 16).lines().take(5).collect::<Vec<_>>(),
            ["TASK  documents", "LAST  failure", "  the last line", "", "TASK  a"]
        );
    }

    #[test]
    fn what_can_be_folded_at_a_blank_is_folded_before_words_are_broken() {
        let mut table = Table::new(&["PROGRAMS", "SECRETS"]);
        table.push(vec!["/usr/bin/rclone".to_owned().into(), "rclone-config as command".to_owned().into()]);
        let text = on_terminal(&table, 34);
        assert!(text.ends_with("/usr/bin/rclone  rclone-config as\n                 command\n"), "{text}");
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
