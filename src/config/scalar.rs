//! Which plain scalars are not written as their value would be printed, so that their text has to be fetched by itself.

/// Whether a plain scalar reads as something else than text and is not written as that is printed.
pub fn is_unusual(scalar: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(scalar) else {
        return false;
    };
    match scalar.first() {
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => is_unusual_number(text),
        Some(b'~' | b'n' | b'N' | b'T' | b'F') => {
            ["~", "null", "Null", "NULL", "True", "TRUE", "False", "FALSE"].contains(&text)
        }
        _ => false,
    }
}

fn is_unusual_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0') {
        return digits.is_empty();
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let special = unsigned.eq_ignore_ascii_case(".inf") || unsigned.eq_ignore_ascii_case(".nan");
    text != "0" && (special || unsigned.starts_with(['0']) || unsigned.parse::<f64>().is_ok())
}
