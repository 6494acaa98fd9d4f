//! What was measured, beside its floor and its limit, as one table and as JSON.

use std::fmt::Write as _;

/// Values of one thing, measured again and again.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(mut values: Vec<f64>) -> Samples {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Samples(values)
    }

    pub fn one(value: f64) -> Samples {
        Samples(vec![value])
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    pub fn p95(&self) -> f64 {
        self.at(0.95)
    }

    pub fn max(&self) -> f64 {
        self.at(1.0)
    }

    /// The value below which this part of all lies (nearest rank).
    fn at(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

/// What the values count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    Megabytes,
    MegabytesPerSecond,
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::PerSecond => "/s",
            Unit::Megabytes => "MB",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::Count => "",
        }
    }
}

/// What the figure may be at most, or at least where more is better.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    AtMost(f64),
    /// So many times the floor's median and 95th percentile.
    TimesFloor {
        median: f64,
        p95: Option<f64>,
    },
    /// So much more than the floor's median and maximum.
    OverFloor {
        median: f64,
        max: Option<f64>,
    },
    /// At least so many times the floor's median.
    PartOfFloor(f64),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    pub ours: Samples,
    pub floor: Option<(&'static str, Samples)>,
    pub limit: Option<Limit>,
}

/// How a figure stands to its limit.
struct Verdict {
    limit: String,
    is: String,
    kept: bool,
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: Unit, ours: Samples) -> Figure {
        Figure { name: name.into(), unit, ours, floor: None, limit: None }
    }

    pub fn beside(mut self, name: &'static str, floor: Samples) -> Figure {
        self.floor = Some((name, floor));
        self
    }

    pub fn limit(mut self, limit: Limit) -> Figure {
        self.limit = Some(limit);
        self
    }

    fn verdict(&self) -> Option<Verdict> {
        let (limit, unit) = (self.limit?, self.unit.name());
        if let Limit::AtMost(most) = limit {
            let kept = self.ours.median() <= most;
            return Some(Verdict { limit: format!("{most} {unit}"), is: number(self.ours.median()), kept });
        }
        let (_, floor) = self.floor.as_ref()?;
        let ratio = self.ours.median() / floor.median();
        Some(match limit {
            Limit::AtMost(_) => return None,
            Limit::PartOfFloor(least) => {
                Verdict { limit: format!("at least {least} ×"), is: format!("{ratio:.2} ×"), kept: ratio >= least }
            }
            Limit::TimesFloor { median, p95 } => {
                let ratio95 = self.ours.p95() / floor.p95();
                let further = p95.map(|p95| (format!(", 95th {p95} ×"), format!(", {ratio95:.2} ×"), ratio95 <= p95));
                Verdict::of((format!("{median} ×"), format!("{ratio:.2} ×"), ratio <= median), further)
            }
            Limit::OverFloor { median, max } => {
                let over = self.ours.median() - floor.median();
                let over_max = self.ours.max() - floor.max();
                let further =
                    max.map(|max| (format!(", max +{max}"), format!(", +{}", number(over_max)), over_max <= max));
                Verdict::of((format!("+{median} {unit}"), format!("+{}", number(over)), over <= median), further)
            }
        })
    }
}

impl Verdict {
    fn of(first: (String, String, bool), further: Option<(String, String, bool)>) -> Verdict {
        let (limit, is, kept) = further.unwrap_or((String::new(), String::new(), true));
        Verdict { limit: first.0 + &limit, is: first.1 + &is, kept: first.2 && kept }
    }
}

const HEAD: [&str; 12] =
    ["figure", "unit", "median", "95th", "max", "floor", "median", "95th", "max", "at most", "is", "kept"];

/// All figures as a table in Markdown.
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<Vec<String>> = figures.iter().map(cells).collect();
    let head: Vec<String> = HEAD.iter().map(|&name| name.to_owned()).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = line(&head, &widths);
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    text.push_str(&line(&rule, &widths));
    rows.iter().for_each(|row| text.push_str(&line(row, &widths)));
    text
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn cells(figure: &Figure) -> Vec<String> {
    let three = |samples: &Samples| [samples.median(), samples.p95(), samples.max()].map(number);
    let mut cells = vec![figure.name.clone(), figure.unit.name().to_owned()];
    cells.extend(three(&figure.ours));
    match &figure.floor {
        Some((name, floor)) => {
            cells.push((*name).to_owned());
            cells.extend(three(floor));
        }
        None => cells.extend(["", "", "", ""].map(str::to_owned)),
    }
    match figure.verdict() {
        Some(Verdict { limit, is, kept }) => cells.extend([limit, is, if kept { "yes" } else { "NO" }.to_owned()]),
        None => cells.extend(["", "", ""].map(str::to_owned)),
    }
    cells
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size == size.trunc() => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All figures as a JSON array (RFC 8259); names and units have nothing in them to be escaped.
pub fn json(figures: &[Figure]) -> String {
    let three = |samples: &Samples| {
        format!("{{\"median\":{},\"p95\":{},\"max\":{}}}", samples.median(), samples.p95(), samples.max())
    };
    let objects = figures.iter().map(|figure| {
        let (name, unit) = (&figure.name, figure.unit.name());
        let mut object = format!("{{\"figure\":\"{name}\",\"unit\":\"{unit}\",\"ours\":{}", three(&figure.ours));
        if let Some((name, floor)) = &figure.floor {
            let _ = write!(object, ",\"floor\":{{\"name\":\"{name}\",\"values\":{}}}", three(floor));
        }
        if let Some(Verdict { limit, is, kept }) = figure.verdict() {
            let _ = write!(object, ",\"limit\":\"{limit}\",\"is\":\"{is}\",\"kept\":{kept}");
        }
        object + "}"
    });
    format!("[\n{}\n]\n", objects.collect::<Vec<_>>().join(",\n"))
}
