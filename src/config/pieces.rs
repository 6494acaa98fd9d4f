//! Reads a long list of tasks in pieces, which may be read by two threads while the walk over the text still looks for more.
//!
//! Most of a start is this reading. Where anything is wrong with a piece, or with where the text was cut, the whole is read
//! once more: that alone tells what is wrong and where.

use std::ops::Range;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::problem::Problem;
use super::scan::{self, Piece, Scan};
use super::tree::{self, Growth, MAX_NODES, Node, Value};

/// In bytes. The parser keeps all that it finds in its text until it is done with it, so it is fast with short ones.
pub const PIECE_MIN: usize = 8 << 10;

/// A longer text, in bytes, is worth a thread, which leaves a heap of its own behind.
pub const ALONE_MAX: usize = 32 << 10;

/// A piece that has been read.
struct Part<'t> {
    range: Range<usize>,
    /// How many there are in it.
    nodes: u32,
    root: Node<'t>,
}

/// Reads the one document of `text`, in pieces of `piece_min` bytes or more, with a second thread if it is longer than
/// `alone_max`.
///
/// # Errors
/// What the walk over it refuses, what the parser reports, and growth by aliases beyond all measure.
pub fn read(text: &str, piece_min: usize, alone_max: usize) -> Result<Node<'_>, Problem> {
    let (found, pieces) = mpsc::channel();
    let pieces = Mutex::new(pieces);
    thread::scope(|scope| {
        // Before the walk, since a processor at rest takes as long to wake as the walk over a few hundred tasks. Should
        // there be no thread, this one reads all.
        let helper = (text.len() > alone_max)
            .then(|| thread::Builder::new().spawn_scoped(scope, || read_each(text, &pieces)).ok())
            .flatten();
        let scan = walk(text, piece_min, found)?;
        let mut parts = read_each(text, &pieces);
        parts.extend(helper.and_then(|helper| helper.join().ok()).unwrap_or_default());
        match join(&scan.cuts, text.len(), parts) {
            Some(root) => Ok(root),
            None => tree::read(text, &mut Growth::new(0..MAX_NODES), scan.unusual_scalars),
        }
    })
}

/// Walks over the text, and hands on each piece as soon as its end is known. Whether the text may really be cut there is
/// known at the end.
fn walk(text: &str, piece_min: usize, found: Sender<Piece>) -> Result<Scan, Problem> {
    let scan = scan::scan(text, piece_min, &mut |piece| drop(found.send(piece)))?;
    if let Some(&last) = scan.cuts.last() {
        let _ = found.send(Piece { range: last..text.len(), unusual_scalars: scan.unusual_scalars });
    }
    Ok(scan)
}

/// Reads pieces until no more will come, all that can be read.
fn read_each<'t>(text: &'t str, pieces: &Mutex<Receiver<Piece>>) -> Vec<Part<'t>> {
    let mut parts = Vec::new();
    loop {
        let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Piece { range, unusual_scalars }) = piece else { return parts };
        // Without aliases, there are fewer nodes than bytes.
        let numbers = range.start as u32..range.end as u32;
        let mut growth = Growth::new(numbers.clone());
        if let Ok(root) = tree::read(&text[range.clone()], &mut growth, unusual_scalars) {
            parts.push(Part { range, nodes: growth.nodes_since(numbers.start), root });
        }
    }
}

/// Puts the items of all other pieces behind those of the list with which the first ends. `None` if the text is one piece,
/// or a part is missing or wrong, or they are too much together.
fn join<'t>(cuts: &[usize], end: usize, mut parts: Vec<Part<'t>>) -> Option<Node<'t>> {
    // Of a list that turned out not to be the last value of the map, parts may be there that count no more.
    parts.retain(|part| {
        let starts = part.range.start == 0 || cuts.binary_search(&part.range.start).is_ok();
        starts && (part.range.end == end || cuts.binary_search(&part.range.end).is_ok())
    });
    parts.sort_unstable_by_key(|part| part.range.start);
    let nodes = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(part.nodes))?;
    if cuts.is_empty() || parts.len() != cuts.len() + 1 || nodes > MAX_NODES {
        return None;
    }
    let mut parts = parts.into_iter();
    let mut root = parts.next()?.root;
    let Value::Map(entries) = &mut root.value else { return None };
    let (_, Node { value: Value::List(items), .. }) = entries.last_mut()? else { return None };
    for part in parts {
        let Value::List(mut more) = part.root.value else { return None };
        items.append(&mut more);
    }
    Some(root)
}
