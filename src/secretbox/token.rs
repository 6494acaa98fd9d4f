//! A token: 32 random bytes as text, and what is kept of it to recognise it again.
//!
//! The text exists in protected memory only, and only until it has been handed to its step;
//! the daemon keeps its SHA-256 digest, from which nobody can make the token.

use crate::program::Sha256Digest;
use crate::sys::{Arena, Block, MemoryError};

/// Length of a token's text: 32 bytes in hexadecimal.
pub const TOKEN_LEN: usize = 64;

/// A fresh token's text.
pub struct Token(Block);

impl Token {
    /// Draws a token from the system's random generator.
    pub fn draw(arena: &'static Arena) -> Result<Token, TokenError> {
        let mut random = arena.block(TOKEN_LEN / 2).map_err(TokenError::Memory)?;
        getrandom::fill(&mut random).map_err(TokenError::Random)?;
        let mut text = arena.block(TOKEN_LEN).map_err(TokenError::Memory)?;
        for (pair, byte) in text.chunks_exact_mut(2).zip(random.iter()) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 15);
        }
        Ok(Token(text))
    }

    pub fn text(&self) -> &[u8] {
        &self.0
    }

    pub fn mark(&self) -> Mark {
        Mark::of(&self.0)
    }
}

/// Why no token could be made.
#[derive(Debug)]
pub enum TokenError {
    Memory(MemoryError),
    Random(getrandom::Error),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenError::Memory(error) => error.fmt(f),
            TokenError::Random(error) => write!(f, "no random bytes: {error}"),
        }
    }
}

/// By what a token is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(Sha256Digest);

impl Mark {
    pub fn of(text: &[u8]) -> Mark {
        Mark(Sha256Digest::of(text))
    }
}

fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value)]
}
