//! The five fields of a crontab: text to a set of numbers, by the rules of Debian's cron, crontab(5).

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Set(u64);

impl Set {
    pub fn contains(self, number: u32) -> bool {
        self.first_from(number) == Some(number)
    }

    /// The smallest member that is `number` or more.
    pub fn first_from(self, number: u32) -> Option<u32> {
        let rest = self.0 & u64::MAX.checked_shl(number)?;
        (rest != 0).then(|| rest.trailing_zeros())
    }

    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.contains(*number))
    }

    pub fn each_one_more(self) -> Set {
        Set(self.0 << 1)
    }

    pub fn with_sunday_as_zero(self) -> Set {
        Set((self.0 | (self.0 >> 7)) & 0x7f)
    }
}

/// One of the five fields: its name in messages and what may stand in it.
pub struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the numbers from `min` on.
    names: &'static [&'static str],
    /// `?` stands for `*`.
    question_mark: bool,
}

pub const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[], question_mark: false };
pub const HOUR_OF_DAY: Field = Field { name: "hour", min: 0, max: 23, names: &[], question_mark: false };
pub const DAY_OF_MONTH: Field = Field { name: "day of month", min: 1, max: 31, names: &[], question_mark: true };
pub const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    question_mark: false,
};
pub const DAY_OF_WEEK: Field = Field {
    name: "day of week",
    min: 0,
    max: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    question_mark: true,
};
/// The crate counts from Sunday as 1.
pub const WEEKDAY_OF_CRATE: Field = Field { name: "day of week", min: 1, max: 7, names: &[], question_mark: false };

impl Field {
    /// # Errors
    /// Names the field and what is wrong with it; of what was written only a number out of range is repeated.
    pub fn parse(&self, text: &str) -> Result<Set, String> {
        let mut set = 0;
        for item in text.split(',') {
            let (first, last, step) = self.parse_item(item)?;
            for number in (first..=last).step_by(step) {
                set |= 1 << number;
            }
        }
        Ok(Set(set))
    }

    /// One item of a list: its first and last number and its step.
    fn parse_item(&self, item: &str) -> Result<(u32, u32, usize), String> {
        if is_number(item) {
            return self.parse_value(item).map(|value| (value, value, 1));
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.parse_step(step)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || (range == "?" && self.question_mark) => (self.min, self.max),
            Some((first, last)) => {
                let first = self.parse_value(first)?;
                (first, self.parse_end(last, first)?)
            }
            None => {
                let value = self.parse_value(range)?;
                (value, if step.is_some() { self.max } else { value })
            }
        };
        if first > last {
            return Err(format!("{}: a range begins after its end", self.name));
        }
        Ok((first, last, step.unwrap_or(1)))
    }

    /// A step may be larger than its range, then only the first number counts.
    fn parse_step(&self, text: &str) -> Result<usize, String> {
        if !is_number(text) {
            return Err(format!("{}: a step must be a whole number, such as /5", self.name));
        }
        match text.parse().unwrap_or(usize::MAX) {
            0 => Err(format!("{}: a step must be 1 or more", self.name)),
            step => Ok(step),
        }
    }

    /// The end of a range: there Sunday by name comes after Saturday, unless the range begins with it.
    fn parse_end(&self, text: &str, first: u32) -> Result<u32, String> {
        match self.parse_value(text)? {
            0 if first > 0 && text.eq_ignore_ascii_case("sun") => Ok(self.max),
            value => Ok(value),
        }
    }

    fn parse_value(&self, text: &str) -> Result<u32, String> {
        if is_number(text) {
            return match text.parse() {
                Ok(value) if (self.min..=self.max).contains(&value) => Ok(value),
                Ok(value) => Err(format!("{} {value} is outside {}-{}", self.name, self.min, self.max)),
                Err(_) => Err(format!("{}: a number is outside {}-{}", self.name, self.min, self.max)),
            };
        }
        (self.min..)
            .zip(self.names)
            .find(|(_, name)| text.eq_ignore_ascii_case(name))
            .map(|(value, _)| value)
            .ok_or_else(|| self.refusal(text))
    }

    fn refusal(&self, text: &str) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or {first}-{last}"),
            _ => String::new(),
        };
        let what = match text {
            "" => "a number is missing",
            _ if self.question_mark && text.contains(['L', 'W', '#']) => "L, W and # are no part of a crontab",
            _ => "not understood",
        };
        format!("{}: {what}, expected *, {}-{}{names}, ranges, lists and steps", self.name, self.min, self.max)
    }

    pub fn is_all(&self, set: Set) -> bool {
        set.0 == (u64::MAX >> (u64::BITS - 1 - self.max)) & (u64::MAX << self.min)
    }

    /// Writes a set the way the crate reads it.
    pub fn write(&self, set: Set) -> String {
        if self.is_all(set) {
            return "*".to_string();
        }
        set.numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// ASCII digits alone: no sign, no blank, no digits of other scripts.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
