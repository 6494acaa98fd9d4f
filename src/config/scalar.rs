//! What the words of a file are made of, and which of them are not written as their value would be printed.

/// Bytes that are characters of their own and mean nothing inside a word, quotes or a comment.
const ORDINARY: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b'/' | b'~');
        byte += 1;
    }
    table
};

/// How many of the bytes at the head of `text` are such.
pub fn ordinary_length(text: &[u8]) -> usize {
    text.iter().take_while(|&&byte| ORDINARY[usize::from(byte)]).count()
}

/// Whether a plain scalar reads as something else than text and is not written as that is printed.
pub fn is_unusual(text: &str) -> bool {
    match text.as_bytes().first() {
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
