//! Where something is run, and what it is given there.

use super::flow::Flow;
use super::language::{Language, Sink};
use super::lexer::Token;
use super::names::{self, DECODERS};
use super::value::{Sum, Taint, Value};

/// Tokens from which a program is too large for names to be taken for one thing each.
const LARGE: usize = 400;

/// Something that is run, with what speaks for its being a web shell.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) rule: &'static str,
    pub(super) points: u32,
    pub(super) reasons: Vec<String>,
    /// The request is named where something is run.
    direct: bool,
}

impl Hit {
    fn new(rule: &'static str, points: u32, reason: String) -> Self {
        Self {
            rule,
            points,
            reasons: vec![reason],
            direct: false,
        }
    }

    /// By the values that are run.
    fn given<'v>(mut self, values: impl IntoIterator<Item = &'v Value>) -> Self {
        self.direct = values.into_iter().any(|value| value.direct);
        self
    }

    fn doubted(mut self) -> Self {
        self.points = self.points.saturating_sub(4);
        self.reasons.push("by names in a large text".to_owned());
        self
    }

    fn add(&mut self, points: u32, reason: &str) {
        self.points += points;
        self.reasons.push(reason.to_owned());
    }
}

/// A call, as far as it can be told.
struct Call<'t> {
    name: &'t str,
    /// The name was put together by the program.
    hidden: Option<String>,
    member: bool,
    arguments: Vec<&'t [Token<'t>]>,
}

impl<'t> Flow<'t> {
    /// Whether anything is run at all: most programs run nothing, and need no more work.
    pub(super) fn has_sink(&self) -> bool {
        self.tokens.iter().any(|token| match token {
            Token::Command(_) => true,
            Token::Word(word) => {
                word.starts_with('$')
                    || self.language.sink(word, false).is_some()
                    || self.language.sink(word, true).is_some()
                    || *word == "getattr"
            }
            _ => false,
        })
    }

    /// Whether there is anything whose running is worth points: something that a request sends, or
    /// an encoded literal and a decoder. To be asked before names are learnt: most programs that
    /// run something have neither, and need no more work.
    pub(super) fn has_source(&self) -> bool {
        let language = self.language;
        let any = |list: &[&str]| {
            let mut tokens = self.tokens.iter();
            tokens.any(|token| matches!(token, Token::Word(word) if names::has(list, word)))
        };
        let members = language.members();
        if any(language.sources()) || any(language.objects()) && (members.is_empty() || any(members)) {
            return true;
        }
        // `${'_' . 'GET'}`
        let named = |pair: &[Token<'_>]| matches!(pair, [Token::Word("$"), Token::Mark(b'{')]);
        if any(&["$_SERVER"]) || self.tokens.windows(2).any(named) {
            return true;
        }
        let mut encoded = false;
        let mut values = self.tokens.iter().filter_map(|token| self.written(token));
        values.any(|value| {
            encoded |= value.payload;
            value.taint > Taint::None
        }) || encoded && any(DECODERS)
    }

    /// Everything that is run and speaks for a web shell.
    pub(super) fn hits(&self) -> Vec<Hit> {
        let hits = (0..self.tokens.len()).filter_map(|at| self.hit(at));
        // In a large program one name means many things.
        let is_large = self.tokens.len() > LARGE;
        hits.map(|hit| {
            if is_large && !hit.direct {
                hit.doubted()
            } else {
                hit
            }
        })
        .collect()
    }

    fn hit(&self, at: usize) -> Option<Hit> {
        if let Token::Command(_) = self.tokens.get(at)? {
            // A template of JavaScript runs nothing by itself.
            let value = self.value(self.tokens.get(at..=at)?);
            let runs = self.language != Language::Node;
            return if runs {
                run(Sink::Command, "backticks", &value)
            } else {
                None
            };
        }
        let call = self.call_at(at)?;
        let all: Vec<_> = call
            .arguments
            .iter()
            .map(|argument| self.value(argument))
            .collect();
        if let Some(name) = &call.hidden {
            return hidden(name, &all).or_else(|| self.known(&call, &all));
        }
        self.known(&call, &all)
            .or_else(|| self.named_by_request(&call, &all))
    }

    /// A call of what is known to run something.
    fn known(&self, call: &Call<'t>, all: &[Value]) -> Option<Hit> {
        let name = call.hidden.as_deref().unwrap_or(call.name);
        let sink = self.language.sink(name, call.member)?;
        match sink {
            Sink::Callback => callback(self.language, name, all),
            Sink::Command => {
                let worst = all.iter().max_by_key(|value| (value.taint, value.decoders))?;
                let mut value = worst.clone();
                // `ProcessBuilder("git", x)`, but not `ProcessBuilder("sh", "-c", x)`
                value.taint = self.value_of_all(&call.arguments);
                run(sink, name, &value)
            }
            Sink::Load if self.language == Language::Jsp => {
                // Pages load nothing that a browser sends.
                let value = all.iter().max_by_key(|value| value.taint)?;
                run(Sink::Code, name, value)
            }
            Sink::Code | Sink::Load => {
                let value = all
                    .iter()
                    .max_by_key(|value| (value.taint, value.payload, value.decoders))?;
                run(sink, name, value)
            }
        }
    }

    fn value_of_all(&self, arguments: &[&'t [Token<'t>]]) -> Taint {
        let mut sum = Sum::default();
        // The first of Perl's `open` is what it opens.
        let handle = usize::from(self.language == Language::Perl && arguments.len() > 1);
        for argument in arguments.iter().skip(handle) {
            sum.add(self.value(argument));
        }
        sum.value().taint
    }

    /// A call whose function a request names, with what a request sends.
    fn named_by_request(&self, call: &Call<'t>, all: &[Value]) -> Option<Hit> {
        let given = all.iter().map(|value| value.taint).max()?;
        if !call.name.starts_with('$') || self.language != Language::Php || given == Taint::None {
            return None;
        }
        if self.is_sent(call.name) {
            let reason = format!("a request names the function {} and its arguments", call.name);
            return Some(Hit::new("request_names_function", 11, reason).given(all));
        }
        let known = self.parameters(call.name).is_some() || self.constant(call.name).is_some();
        (given == Taint::Whole && !known).then(|| {
            let reason = format!("what a request sends is given to {}, whatever that is", call.name);
            Hit::new("request_reaches_variable", 6, reason)
        })
    }

    /// The call whose name is at `at`, if it may be of interest.
    fn call_at(&self, at: usize) -> Option<Call<'t>> {
        let Some(Token::Word(name)) = self.tokens.get(at) else {
            return None;
        };
        let before = |offset: usize| at.checked_sub(offset).and_then(|at| self.tokens.get(at));
        if let Some(Token::Word("function" | "def" | "sub" | "fn")) = before(1) {
            return None;
        }
        let arrow = before(1) == Some(&Token::Mark(b'>')) && before(2) == Some(&Token::Mark(b'-'));
        let point = before(1) == Some(&Token::Mark(b'.')) && !self.language.joins_by_point();
        let scope = before(1) == Some(&Token::Mark(b':')) && before(2) == Some(&Token::Mark(b':'));
        let member = arrow || point || scope;
        let mut open = at + 1;
        let mut hidden = self
            .constant(name)
            .filter(|value| value.folded)
            .and_then(|value| value.constant.clone());
        // `getattr(os, 'po' + 'pen')(...)`
        if *name == "getattr" && self.language == Language::Python {
            let (inside, after) = self.group(self.tokens, open);
            hidden = self
                .parts(inside)
                .get(1)
                .and_then(|name| self.value(name).constant);
            open = after;
        }
        // `$_GET['f'](...)`
        while name.starts_with('$') && self.tokens.get(open) == Some(&Token::Mark(b'[')) {
            open = self.group(self.tokens, open).1;
        }
        // What is not hidden and runs nothing matters only where a request may name it.
        if hidden.is_none() && !name.starts_with('$') && self.language.sink(name, member).is_none() {
            return None;
        }
        if self.language == Language::Node && !self.runs_commands(name, at, member) {
            return None;
        }
        let arguments = match self.tokens.get(open) {
            Some(Token::Mark(b'(')) => self.group(self.tokens, open).0,
            _ if self.takes_bare(name) => self.to_end(open),
            _ => return None,
        };
        Some(Call {
            name,
            hidden,
            member,
            arguments: self.parts(arguments),
        })
    }

    /// `exec` is a method of every regular expression: what it belongs to must be known.
    fn runs_commands(&self, name: &str, at: usize, member: bool) -> bool {
        if self.language.sink(name, member) != Some(Sink::Command) {
            return true;
        }
        if !member {
            return self.is_commander(name);
        }
        let before = self.tokens.get(at.saturating_sub(6)..at).unwrap_or_default();
        before.iter().any(|token| match token {
            Token::Text(text) => text.ends_with("child_process"),
            _ => false,
        }) || matches!(before.last_chunk(), Some([Token::Word(object), Token::Mark(b'.')]) if self.is_commander(object))
    }

    /// Whether it needs no parentheses.
    fn takes_bare(&self, name: &str) -> bool {
        match self.language {
            Language::Php => matches!(name, "include" | "include_once" | "require" | "require_once"),
            Language::Perl => matches!(name, "system" | "exec" | "eval" | "open"),
            Language::Visual => matches!(
                name.to_ascii_lowercase().as_str(),
                "execute" | "executeglobal" | "eval" | "run" | "exec"
            ),
            _ => false,
        }
    }

    fn to_end(&self, start: usize) -> &'t [Token<'t>] {
        let rest = self.tokens.get(start..).unwrap_or_default();
        let ends = |token: &Token<'_>| matches!(token, Token::Mark(b';' | b'{' | b'}') | Token::End);
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }
}

/// Something is given to what runs it.
fn run(sink: Sink, name: &str, value: &Value) -> Option<Hit> {
    let whole = value.taint == Taint::Whole;
    let rule = if sink == Sink::Command {
        "request_reaches_command"
    } else {
        "request_reaches_code"
    };
    let mut hit = match (sink, value.taint) {
        (Sink::Code, Taint::None) if value.payload && value.decoders > 0 => Hit::new(
            "encoded_code",
            5,
            format!("a long encoded literal is decoded and run by {name}"),
        ),
        (_, Taint::None) | (Sink::Callback, _) => return None,
        (Sink::Code, Taint::Whole) => {
            Hit::new(rule, 10, format!("what a request sends is run as code by {name}"))
        }
        (Sink::Command, Taint::Whole) => Hit::new(
            rule,
            10,
            format!("what a request sends is run as a command by {name}"),
        ),
        (Sink::Code, Taint::Part) => {
            Hit::new(rule, 7, format!("a request is part of what {name} runs as code"))
        }
        (Sink::Command, Taint::Part) => {
            Hit::new(rule, 3, format!("a request is part of a command of {name}"))
        }
        (Sink::Load, Taint::Whole) => Hit::new(
            rule,
            if name.contains("load") { 6 } else { 4 },
            format!("a request says what {name} loads"),
        ),
        (Sink::Load, Taint::Part) => Hit::new(rule, 2, format!("a request is part of what {name} loads")),
    };
    match value.decoders {
        0 => {}
        1 => hit.add(if whole { 3 } else { 1 }, "through a decoder"),
        _ => hit.add(4, "through several decoders"),
    }
    Some(hit.given([value]))
}

/// A function whose name the program puts together is given something of a request.
fn hidden(name: &str, all: &[Value]) -> Option<Hit> {
    let known = [Language::Php, Language::Python, Language::Perl]
        .into_iter()
        .any(|language| {
            [true, false]
                .into_iter()
                .any(|member| language.sink(name, member).is_some())
        });
    let given = all.iter().map(|value| value.taint).max()?;
    (known && given > Taint::None).then(|| {
        let reason = format!("the hidden name {name} is called with what a request sends");
        Hit::new("hidden_function", 12, reason).given(all)
    })
}

/// A function that calls another by its name.
fn callback(language: Language, name: &str, all: &[Value]) -> Option<Hit> {
    let sink = all
        .iter()
        .filter_map(|value| value.constant.as_deref())
        .find(|text| {
            let sink = Language::Php.sink(text, false);
            matches!(sink, Some(Sink::Code | Sink::Command)) && *text != "assert_options"
        });
    let tainted = all.iter().filter(|value| value.taint > Taint::None).count();
    let whole = all.iter().filter(|value| value.taint == Taint::Whole).count();
    let rule = "request_names_function";
    let hit = match (sink, tainted, whole) {
        (_, 1.., _) if language != Language::Php => Some(Hit::new(
            rule,
            10,
            format!("{name} reflects on what a request sends"),
        )),
        (Some(sink), 1.., _) => Some(Hit::new(
            rule,
            11,
            format!("{name} calls {sink} with what a request sends"),
        )),
        (None, _, 2..) => Some(Hit::new(
            rule,
            10,
            format!("a request names what {name} calls, and its arguments"),
        )),
        _ => None,
    };
    hit.map(|hit| hit.given(all))
}
