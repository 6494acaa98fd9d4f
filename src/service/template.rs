//! Fills a template's `{names}`. A line whose name stands for nothing is left out, so that a
//! service file shows only what holds for it.

/// `template` with each `{name}` replaced by the value that `values` has for it. A value of several
/// lines makes several of its line; an empty one makes none.
pub fn fill(template: &str, values: &[(&str, Vec<String>)]) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let Some((head, name, tail)) = placeholder(line) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let lines = values.iter().find(|(known, _)| *known == name).map_or(&[][..], |(_, lines)| lines);
        for value in lines {
            text.push_str(&format!("{head}{value}{tail}\n"));
        }
    }
    text
}

/// The parts of a line that has a name in it.
fn placeholder(line: &str) -> Option<(&str, &str, &str)> {
    let (head, rest) = line.split_once('{')?;
    let (name, tail) = rest.split_once('}')?;
    Some((head, name, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_once_for_each_of_its_values() {
        let values =
            [("one", vec!["{two}".to_owned()]), ("two", vec!["a".to_owned(), "b".to_owned()]), ("none", vec![])];
        assert_eq!(fill("x={one}\n{two};\nnone={none}\n\nend\n", &values), "x={two}\na;\nb;\n\nend\n");
    }
}
