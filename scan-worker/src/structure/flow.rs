//! How what a request sends moves through a program.
//!
//! By names, not by paths: a name that once took something of a request has it everywhere.
//! That is coarse, and enough for programs that hide what they do and not how they do it.

use std::cell::Cell;
use std::collections::HashMap;

use super::fold;
use super::language::Language;
use super::lexer::Token;
use super::names::{self, CLEANING, DECODERS, PASSING};
use super::value::{Sum, Taint, Value};

/// Expressions inside each other that are followed: hostile text nests without end.
const DEEPEST: usize = 24;

/// Tokens that are looked at for one text, each time counted: some 50 ms.
const FUEL: usize = 4_000_000;

/// What is known of the names of a program.
pub(super) struct Flow<'t> {
    pub(super) language: Language,
    pub(super) tokens: &'t [Token<'t>],
    taints: HashMap<&'t str, Taint>,
    /// What a name always is.
    constants: HashMap<&'t str, Value>,
    /// Parameters of functions.
    functions: HashMap<&'t str, Vec<&'t str>>,
    /// Names that stand for what runs commands.
    commanders: Vec<&'t str>,
    /// Every name may have come from a request: PHP's `extract`.
    extracted: bool,
    /// Tokens that may still be looked at: hostile text is made to be looked at often.
    fuel: Cell<usize>,
}

impl<'t> Flow<'t> {
    pub(super) fn new(language: Language, tokens: &'t [Token<'t>]) -> Self {
        Self {
            language,
            tokens,
            taints: HashMap::new(),
            constants: HashMap::new(),
            functions: HashMap::new(),
            commanders: Vec::new(),
            extracted: false,
            fuel: Cell::new(FUEL),
        }
    }

    /// The tokens between a bracket at `open` and the one that closes it; to the end if
    /// nothing does, or the fuel ends. And where it goes on.
    pub(super) fn group(&self, tokens: &'t [Token<'t>], open: usize) -> (&'t [Token<'t>], usize) {
        let mut depth = 0_usize;
        for (at, token) in tokens.iter().enumerate().skip(open) {
            match token {
                Token::Mark(b'(' | b'[' | b'{') => depth += 1,
                Token::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 || !self.burn(0) {
                return (tokens.get(open + 1..at).unwrap_or_default(), at + 1);
            }
        }
        (tokens.get(open + 1..).unwrap_or_default(), tokens.len())
    }

    /// Arguments, or other things with commas in between.
    pub(super) fn parts(&self, tokens: &'t [Token<'t>]) -> Vec<&'t [Token<'t>]> {
        if !self.burn(tokens.len()) {
            return Vec::new();
        }
        let mut depth = 0_usize;
        let parts = tokens.split(|token| {
            match token {
                Token::Mark(b'(' | b'[' | b'{') => depth += 1,
                Token::Mark(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && *token == Token::Mark(b',')
        });
        parts.collect()
    }

    pub(super) fn taint(&self, name: &str) -> Taint {
        let known = self.taints.get(name).copied();
        known.unwrap_or(if self.extracted && name.starts_with('$') {
            Taint::Whole
        } else {
            Taint::None
        })
    }

    pub(super) fn constant(&self, name: &str) -> Option<&Value> {
        self.constants.get(name)
    }

    /// Whether a request decides all of what a name stands for.
    pub(super) fn is_sent(&self, name: &str) -> bool {
        self.taint(name) == Taint::Whole || names::has(self.language.sources(), name)
    }

    pub(super) fn is_commander(&self, name: &str) -> bool {
        self.commanders.contains(&name)
    }

    pub(super) fn parameters(&self, function: &str) -> Option<&[&'t str]> {
        self.functions.get(function).map(Vec::as_slice)
    }

    pub(super) fn set_taint(&mut self, name: &'t str, taint: Taint) {
        if taint > Taint::None && !is_grammar(name) {
            let known = self.taints.entry(name).or_default();
            *known = taint.max(*known);
        }
    }

    pub(super) fn set_constant(&mut self, name: &'t str, value: Value) {
        self.constants.insert(name, value);
    }

    pub(super) fn set_parameters(&mut self, function: &'t str, parameters: Vec<&'t str>) {
        self.functions.insert(function, parameters);
    }

    pub(super) fn add_commander(&mut self, name: &'t str) {
        self.commanders.push(name);
    }

    pub(super) fn extract(&mut self) {
        self.extracted = true;
    }

    pub(super) fn value(&self, tokens: &'t [Token<'t>]) -> Value {
        self.sum(tokens, 0)
    }

    /// Whether so many tokens may be looked at.
    pub(super) fn burn(&self, tokens: usize) -> bool {
        let left = self.fuel.get().checked_sub(tokens + 1);
        self.fuel.set(left.unwrap_or(0));
        left.is_some()
    }

    fn sum(&self, tokens: &'t [Token<'t>], depth: usize) -> Value {
        let mut sum = Sum::default();
        if depth > DEEPEST || !self.burn(tokens.len()) {
            return sum.value();
        }
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let next = tokens.get(at + 1);
            match (token, next) {
                (Token::Mark(b'=' | b'!'), Some(Token::Mark(b'='))) => {
                    sum.compare();
                    at += 2;
                }
                (Token::Mark(b'?' | b'|' | b'=' | b':'), _) => {
                    sum.or();
                    at += 1;
                }
                (
                    Token::Mark(b'(' | b'[' | b'{') | Token::Word(_) | Token::Text(_) | Token::Command(_),
                    _,
                ) => {
                    let (operand, after) = self.operand(tokens, at, depth + 1);
                    if let Some(operand) = operand {
                        sum.add(operand);
                    }
                    at = after;
                }
                _ => at += 1,
            }
        }
        sum.value()
    }

    /// One operand with all that is done to it, and what comes after; none for grammar.
    fn operand(&self, tokens: &'t [Token<'t>], start: usize, depth: usize) -> (Option<Value>, usize) {
        let (mut value, mut at) = match tokens.get(start) {
            Some(Token::Text(text)) => (self.literal(text), start + 1),
            Some(Token::Command(text)) => (self.command(text), start + 1),
            Some(Token::Word(word)) if is_grammar(word) => return (None, start + 1),
            // `new ProcessStartInfo { Arguments = x }` is what is inside.
            Some(Token::Word(_)) if self.is_initializer(tokens, start) => return (None, start + 1),
            Some(Token::Word(word)) => self.name(tokens, word, start, depth),
            _ => {
                let (inside, after) = self.group(tokens, start);
                (self.sum(inside, depth), after)
            }
        };
        while let Some((member, after)) = self.member(tokens, at) {
            at = after;
            match member {
                Some(name) => {
                    if self.is_source(tokens, start, name) {
                        value = Value::sent();
                    } else if value.taint == Taint::None {
                        value.taint = self.taint(name);
                    }
                    if tokens.get(at) == Some(&Token::Mark(b'(')) {
                        let (arguments, after) = self.group(tokens, at);
                        value = self.call(name, Some(value), arguments, depth);
                        at = after;
                    }
                }
                // An index says nothing, but where it names what comes from a request.
                None => {
                    let (index, after) = self.group(tokens, at);
                    if let [Token::Text(text)] = index
                        && self.language.is_source_text(text)
                    {
                        value = Value::sent();
                    }
                    value.constant = None;
                    at = after;
                }
            }
        }
        (Some(value), at)
    }

    /// A name, or a call of it.
    fn name(&self, tokens: &'t [Token<'t>], word: &'t str, start: usize, depth: usize) -> (Value, usize) {
        let at = start + 1;
        match tokens.get(at) {
            // `${'_' . 'GET'}`
            Some(Token::Mark(b'{')) if word == "$" => {
                let (inside, after) = self.group(tokens, at);
                let named = self.sum(inside, depth).constant;
                let is_source = named.is_some_and(|name| Language::is_superglobal(&name));
                (
                    if is_source {
                        Value::sent()
                    } else {
                        Value::unknown()
                    },
                    after,
                )
            }
            Some(Token::Mark(b'(')) if !names::has(self.language.sources(), word) => {
                let (arguments, after) = self.group(tokens, at);
                (self.call(word, None, arguments, depth), after)
            }
            _ if self.is_source(tokens, start, word) => {
                let call = tokens.get(at) == Some(&Token::Mark(b'('));
                (Value::sent(), if call { self.group(tokens, at).1 } else { at })
            }
            _ => match self.constants.get(word) {
                Some(value) => (value.clone(), at),
                None => (Value::of(self.taint(word)), at),
            },
        }
    }

    /// What a function gives back.
    fn call(&self, name: &str, object: Option<Value>, arguments: &'t [Token<'t>], depth: usize) -> Value {
        if names::has(CLEANING, name) {
            return Value::unknown();
        }
        let values: Vec<_> = self
            .parts(arguments)
            .into_iter()
            .map(|part| self.sum(part, depth))
            .collect();
        let worst = values.iter().map(|value| value.taint).max().unwrap_or_default();
        let constant = values.iter().rev().find_map(|value| value.constant.as_deref());
        let constant = constant.and_then(|text| fold::decode(name, text));
        let mut sum = Sum::default();
        values.into_iter().for_each(|value| sum.add(value));
        let mut given = sum.value();
        let is_decoder = names::has(DECODERS, name);
        given.taint = if is_decoder || names::has(PASSING, name) {
            // A format or a pattern comes first; what matters is the worst of all.
            worst
        } else {
            worst.min(Taint::Part).max(self.taint(name))
        };
        given.decoders += u32::from(is_decoder);
        given.folded |= constant.is_some();
        given.constant = constant;
        if let Some(object) = object {
            given.taint = given.taint.max(object.taint);
            given.direct |= object.direct;
            given.decoders += object.decoders;
            given.payload |= object.payload;
        }
        given
    }

    /// What comes after a value that is of it: a member's name, or none for an index.
    fn member(&self, tokens: &'t [Token<'t>], at: usize) -> Option<(Option<&'t str>, usize)> {
        let marks = |offset: usize| match tokens.get(at + offset) {
            Some(Token::Mark(mark)) => *mark,
            _ => 0,
        };
        let name = |offset: usize| match tokens.get(at + offset) {
            Some(Token::Word(word)) => Some((Some(*word), at + offset + 1)),
            _ => None,
        };
        match (marks(0), marks(1)) {
            (b'[', _) => Some((None, at)),
            (b'{', _) if self.language == Language::Perl => Some((None, at)),
            (b'-', b'>') if marks(2) == b'{' || marks(2) == b'[' => Some((None, at + 2)),
            (b'-', b'>') | (b':', b':') | (b'?', b'.') => name(2),
            (b'.', _) if !self.language.joins_by_point() => name(1),
            _ => None,
        }
    }

    /// Whether a name is what a request sends; `start` is where its object begins.
    fn is_source(&self, tokens: &'t [Token<'t>], start: usize, name: &str) -> bool {
        let language = self.language;
        if names::has(language.sources(), name) {
            return true;
        }
        if language == Language::Php && name == "$_SERVER" {
            let sent = |key: &str| {
                key.starts_with("HTTP_") || matches!(key, "QUERY_STRING" | "REQUEST_URI" | "PATH_INFO")
            };
            return matches!(tokens.get(start + 2), Some(Token::Text(key)) if sent(key));
        }
        let Some(Token::Word(object)) = tokens.get(start) else {
            return false;
        };
        let objects = language.objects();
        let of_request = objects.contains(object)
            || matches!(tokens.get(start + 2), Some(Token::Word(member)) if *object == "self" && objects.contains(member));
        let members = language.members();
        of_request && *object != name && (members.is_empty() || names::has(members, name))
    }

    fn literal(&self, text: &'t str) -> Value {
        if self.language.is_source_text(text) {
            return Value::sent();
        }
        let taint = self.interpolated(text);
        if taint > Taint::None {
            return Value::of(taint);
        }
        let plain = fold::unescape(text);
        let folded = plain != text
            && text.contains("\\x")
            && plain
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        Value {
            folded,
            ..Value::text(plain)
        }
    }

    /// What a literal is worth by itself.
    pub(super) fn written(&self, token: &Token<'t>) -> Option<Value> {
        match token {
            Token::Text(text) => Some(self.literal(text)),
            Token::Command(text) => Some(self.command(text)),
            Token::Word(_) | Token::Mark(_) | Token::End => None,
        }
    }

    /// A command in backticks. Perl evaluates what is in `@{[ ]}`, too.
    fn command(&self, text: &'t str) -> Value {
        let calls = self.language == Language::Perl
            && text.contains("@{[")
            && self.language.sources().iter().any(|source| text.contains(source));
        if calls { Value::sent() } else { self.literal(text) }
    }

    fn is_initializer(&self, tokens: &[Token<'_>], at: usize) -> bool {
        self.language == Language::Net && tokens.get(at + 1) == Some(&Token::Mark(b'{'))
    }

    /// What a request decides of a text with names in it.
    fn interpolated(&self, text: &'t str) -> Taint {
        let mark = match self.language {
            Language::Php | Language::Perl | Language::Node => '$',
            Language::Python | Language::Net => '{',
            _ => return Taint::None,
        };
        let mut taint = Taint::None;
        for (at, _) in text.match_indices(mark) {
            let rest = text.get(at..).unwrap_or_default();
            let name = rest.trim_start_matches(['{', '$', '@', '(']);
            let end = name
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            let sigils = if mark == '$' && self.language != Language::Node {
                "$"
            } else {
                ""
            };
            let name = format!("{sigils}{}", name.get(..end).unwrap_or_default());
            let source =
                names::has(self.language.sources(), &name) || names::has(self.language.objects(), &name);
            if source || self.taint(&name) > Taint::None {
                let before = Value::text(text.get(..at).unwrap_or_default().to_owned());
                let mut sum = Sum::default();
                sum.add(before);
                sum.add(Value::of(Taint::Whole));
                taint = taint.max(sum.value().taint);
            }
        }
        taint
    }
}

/// Words that are no values.
fn is_grammar(word: &str) -> bool {
    const GRAMMAR: [&str; 36] = [
        "new", "await", "return", "print", "echo", "my", "our", "local", "var", "let", "const", "async",
        "yield", "not", "and", "or", "function", "def", "lambda", "static", "final", "public", "private",
        "if", "else", "for", "foreach", "while", "in", "of", "as", "this", "self", "$this", "Set", "set",
    ];
    names::has(&GRAMMAR, word)
}
