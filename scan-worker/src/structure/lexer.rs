//! Source text as words, literals and marks.
//!
//! One lexer for six languages: what differs is how comments begin and which quotes there
//! are. It never fails, and a text that is no program gives words all the same.

use super::language::Language;

/// A part of a source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name with its sigil, or a number.
    Word(&'a str),
    /// A literal without its quotes.
    Text(&'a str),
    /// Between backticks, where that runs a command or is a template.
    Command(&'a str),
    /// Anything else but white space.
    Mark(u8),
    /// Where a line ends a statement.
    End,
}

/// Tokens of one text; the rest is not looked at.
const MAX_TOKENS: usize = 200_000;

/// Splits a text.
#[must_use]
pub fn tokens(text: &str, language: Language) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        rest: text,
        language,
        nested: 0,
        word_before: false,
    };
    let mut tokens = Vec::new();
    while tokens.len() < MAX_TOKENS
        && let Some(token) = lexer.next()
    {
        tokens.push(token);
    }
    tokens
}

struct Lexer<'a> {
    rest: &'a str,
    language: Language,
    /// Open parentheses, within which a line ends nothing.
    nested: usize,
    /// Whether a value came last, after which a slash divides.
    word_before: bool,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.as_bytes().first()?;
            if first == b'\n' && self.language.lines_end() && self.nested == 0 {
                self.take(1);
                return Some(Token::End);
            }
            if first.is_ascii_whitespace() {
                self.take(1);
            } else if let Some(length) = self.comment() {
                self.take(length);
            } else {
                break;
            }
        }
        let token = self.token();
        self.word_before = matches!(token, Token::Word(_) | Token::Text(_) | Token::Mark(b')' | b']'));
        Some(token)
    }

    fn token(&mut self) -> Token<'a> {
        if let Some(text) = self.heredoc() {
            return Token::Text(text);
        }
        for quote in ["\"\"\"", "'''"] {
            if self.language == Language::Python && self.rest.starts_with(quote) {
                return Token::Text(self.quoted(quote, false));
            }
        }
        match self.rest.as_bytes().first() {
            Some(b'"') => Token::Text(self.quoted("\"", true)),
            Some(b'\'') if self.language != Language::Visual => Token::Text(self.quoted("'", true)),
            Some(b'`') if self.language.has_backticks() => Token::Command(self.quoted("`", true)),
            Some(b'/') if self.language == Language::Node && !self.word_before => {
                // A regular expression, or a slash where none is expected.
                self.quoted("/", true);
                Token::Text("")
            }
            Some(first) if is_word(*first) || is_sigil(*first, self.language) => self.word(),
            Some(first) => self.mark(*first),
            None => Token::End,
        }
    }

    fn mark(&mut self, mark: u8) -> Token<'a> {
        match mark {
            b'(' | b'[' => self.nested += 1,
            b')' | b']' => self.nested = self.nested.saturating_sub(1),
            _ => {}
        }
        self.take(1);
        Token::Mark(mark)
    }

    fn word(&mut self) -> Token<'a> {
        let end = |text: &str| text.bytes().position(|byte| !is_word(byte)).unwrap_or(text.len());
        let sigils = self
            .rest
            .bytes()
            .take_while(|byte| !is_word(*byte))
            .count()
            .min(1);
        let length = sigils + end(self.rest.get(sigils..).unwrap_or_default());
        let word = self.take(length.max(1));
        // A Perl quote: `qx{ls}`, `q(ls)`, `qq|ls|`.
        if self.language == Language::Perl && matches!(word, "qx" | "q" | "qq") {
            let close = match self.rest.as_bytes().first() {
                Some(b'{') => "}",
                Some(b'(') => ")",
                Some(b'|') => "|",
                Some(b'/') => "/",
                _ => return Token::Word(word),
            };
            let text = self.quoted(close, false);
            return if word == "qx" {
                Token::Command(text)
            } else {
                Token::Text(text)
            };
        }
        Token::Word(word)
    }

    /// A literal up to its closing quote, or to the end of the text.
    fn quoted(&mut self, quote: &str, escapes: bool) -> &'a str {
        self.take(quote.len());
        let bytes = self.rest.as_bytes();
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            if *byte == b'\\' && escapes {
                end += 2;
            } else if bytes
                .get(end..)
                .is_some_and(|rest| rest.starts_with(quote.as_bytes()))
            {
                break;
            } else {
                end += 1;
            }
        }
        let text = self.take(end);
        self.take(quote.len());
        text
    }

    /// `<<<E ... E` in PHP.
    fn heredoc(&mut self) -> Option<&'a str> {
        if self.language != Language::Php {
            return None;
        }
        let after = self.rest.strip_prefix("<<<")?;
        let (line, body) = after.split_once('\n')?;
        let name = line.trim().trim_matches(['"', '\'']);
        if name.is_empty() || !name.bytes().all(is_word) {
            return None;
        }
        let end = body
            .match_indices(name)
            .find(|(at, _)| {
                body.get(..*at).is_some_and(|before| {
                    before.trim_end_matches([' ', '\t']).ends_with('\n') || before.trim().is_empty()
                })
            })
            .map_or(body.len(), |(at, _)| at);
        self.take(self.rest.len() - body.len());
        let text = self.take(end);
        self.take(name.len());
        Some(text)
    }

    /// The length of the comment that begins here.
    fn comment(&self) -> Option<usize> {
        let rest = self.rest;
        if rest.starts_with("/*") && self.language.is_like_c() {
            return Some(rest.find("*/").map_or(rest.len(), |end| end + 2));
        }
        let line = self
            .language
            .line_comments()
            .iter()
            .any(|start| rest.starts_with(start));
        line.then(|| {
            let end = rest.find('\n').unwrap_or(rest.len());
            // In PHP a line comment ends where the program does.
            let line = rest.get(..end).unwrap_or_default();
            line.find("?>")
                .filter(|_| self.language == Language::Php)
                .unwrap_or(end)
        })
    }

    /// Takes bytes off, more where they would cut a character.
    fn take(&mut self, length: usize) -> &'a str {
        let length = self.rest.ceil_char_boundary(length.min(self.rest.len()));
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn is_sigil(byte: u8, language: Language) -> bool {
    match language {
        Language::Php => byte == b'$',
        Language::Perl => matches!(byte, b'$' | b'@' | b'%'),
        Language::Node => byte == b'$',
        _ => false,
    }
}
