//! Goes through the statements of a program and learns what its names hold.

use super::flow::Flow;
use super::language::Language;
use super::lexer::Token;
use super::value::Taint;

/// How often: what is used before it is set, in a loop or a function, is known by then.
const ROUNDS: usize = 3;

/// Functions that give something back by their parameters.
const FILLING: [&str; 8] = [
    "parse_str",
    "mb_parse_str",
    "read",
    "sysread",
    "extract",
    "import_request_variables",
    "preg_match",
    "preg_match_all",
];

impl<'t> Flow<'t> {
    /// Learns all names.
    pub(super) fn learn(&mut self) {
        self.learn_commanders();
        for _ in 0..ROUNDS {
            let mut function = None;
            let ends = |token: &Token<'_>| matches!(token, Token::Mark(b';' | b'{' | b'}') | Token::End);
            for statement in self.tokens.split(ends) {
                function = self.learn_function(statement).or(function);
                self.learn_assignment(statement);
                self.learn_loop(statement);
                if let (Some(function), [Token::Word("return"), result @ ..]) = (function, statement) {
                    self.set_taint(function, self.value(result).taint);
                }
            }
            self.learn_calls();
        }
    }

    /// `function name(a, b)`, `name = function (a, b)`, `name = (a, b) =>`; its name.
    fn learn_function(&mut self, statement: &'t [Token<'t>]) -> Option<&'t str> {
        let keyword = |token: &Token<'_>| matches!(token, Token::Word("function" | "def" | "fn" | "func"));
        let at = statement.iter().position(keyword)?;
        let (name, open) = match statement.get(at + 1..)? {
            [Token::Word(name), Token::Mark(b'('), ..] => (*name, at + 2),
            [Token::Mark(b'('), ..] => (assigned(statement.get(..at)?)?, at + 1),
            _ => return None,
        };
        self.set_parameters(name, words(self.group(statement, open).0));
        Some(name)
    }

    fn learn_assignment(&mut self, statement: &'t [Token<'t>]) {
        let Some((left, right)) = split_assignment(statement) else {
            return;
        };
        let value = self.value(right);
        for name in assigned_all(left) {
            self.set_taint(name, value.taint);
        }
        if let (Some(name), true) = (assigned(left), value.constant.is_some() || value.payload) {
            self.set_constant(name, value);
        }
    }

    /// `foreach (X as $k => $v)`, `for x in X`, `for (x of X)`.
    fn learn_loop(&mut self, statement: &'t [Token<'t>]) {
        let Some(at) = statement
            .iter()
            .position(|token| matches!(token, Token::Word("foreach" | "for")))
        else {
            return;
        };
        let head = statement.get(at + 1..).unwrap_or_default();
        let between = |word: &str| {
            head.iter()
                .position(|token| *token == Token::Word(word))
                .and_then(|at| head.split_at_checked(at))
        };
        let (names, values) = match (between("as"), between("in").or_else(|| between("of"))) {
            (Some((values, names)), _) if self.language == Language::Php => (names, values),
            (_, Some((names, values))) => (names, values),
            _ => return,
        };
        // The head's own parenthesis is open on one side.
        let values = values
            .iter()
            .position(|token| !matches!(token, Token::Mark(b'(') | Token::Word("in" | "of")))
            .and_then(|at| values.get(at..));
        let taint = self.value(values.unwrap_or_default()).taint;
        for name in words(names) {
            self.set_taint(name, taint);
        }
    }

    /// `const { exec: run } = require('child_process')`, `import cp from 'child_process'`
    fn learn_commanders(&mut self) {
        for (at, token) in self.tokens.iter().enumerate() {
            if matches!(token, Token::Text("child_process" | "node:child_process")) {
                let before = self.tokens.get(at.saturating_sub(24)..at).unwrap_or_default();
                let begins = |token: &Token<'_>| {
                    matches!(
                        token,
                        Token::Mark(b';') | Token::Word("const" | "let" | "var" | "import")
                    )
                };
                let start = before.iter().rposition(begins).map_or(0, |at| at + 1);
                for name in words(before.get(start..).unwrap_or_default()) {
                    self.add_commander(name);
                }
            }
        }
    }

    /// What calls hand to functions of the program, and to those written into the call.
    fn learn_calls(&mut self) {
        for (at, pair) in self.tokens.windows(2).enumerate() {
            let [Token::Word(name), Token::Mark(b'(')] = pair else {
                continue;
            };
            let (inside, after) = self.group(self.tokens, at + 1);
            if !self.burn(inside.len()) {
                return;
            }
            if self.is_method(at, after) {
                self.set_parameters(name, parameters(self, inside));
            }
            if inside.is_empty() || inside.len() > 2_000 {
                continue;
            }
            self.learn_call(name, at, inside);
        }
    }

    /// `public Class g(byte[] b) {`
    fn is_method(&self, at: usize, after: usize) -> bool {
        let type_before = at.checked_sub(1).and_then(|at| self.tokens.get(at));
        matches!(self.language, Language::Jsp | Language::Net)
            && matches!(type_before, Some(Token::Word(word)) if !matches!(*word, "new" | "return" | "else"))
            && self.tokens.get(after) == Some(&Token::Mark(b'{'))
    }

    fn learn_call(&mut self, name: &'t str, at: usize, inside: &'t [Token<'t>]) {
        let arguments = self.parts(inside);
        let taints: Vec<_> = arguments
            .iter()
            .map(|argument| self.value(argument).taint)
            .collect();
        let worst = taints.iter().copied().max().unwrap_or_default();
        if FILLING.contains(&name) && worst > Taint::None {
            if name == "extract" && self.language == Language::Php {
                self.extract();
            }
            for name in words(inside) {
                self.set_taint(name, Taint::Whole);
            }
        }
        if let Some(parameters) = self.parameters(name).map(<[_]>::to_vec) {
            for (parameter, taint) in parameters.into_iter().zip(taints) {
                self.set_taint(parameter, taint);
            }
        }
        let object = self.object_taint(at);
        if worst.max(object) > Taint::None {
            for parameter in inner_parameters(self, inside) {
                self.set_taint(parameter, worst.max(object));
            }
            for argument in &arguments {
                let [Token::Word(name) | Token::Text(name)] = argument else {
                    continue;
                };
                for parameter in self.parameters(name).map(<[_]>::to_vec).unwrap_or_default() {
                    self.set_taint(parameter, worst);
                }
            }
        }
    }

    /// What a request decides of the object before a call: `req.on(...)`.
    fn object_taint(&self, at: usize) -> Taint {
        let start = at.checked_sub(2).filter(|_| !self.language.joins_by_point());
        let object = start.and_then(|start| self.tokens.get(start..=at));
        object.map_or(Taint::None, |object| self.value(object).taint)
    }
}

/// The two sides of the first `=` that assigns.
fn split_assignment<'t>(statement: &'t [Token<'t>]) -> Option<(&'t [Token<'t>], &'t [Token<'t>])> {
    let mark = |at: usize| match statement.get(at) {
        Some(Token::Mark(mark)) => *mark,
        _ => 0,
    };
    let at = (1..statement.len()).find(|at| {
        let compares =
            matches!(mark(at + 1), b'=' | b'>') || matches!(mark(at - 1), b'=' | b'!' | b'<' | b'>');
        mark(*at) == b'=' && !compares
    })?;
    Some((statement.get(..at)?, statement.get(at + 1..)?))
}

/// The name that takes a value: `String cmd`, `$a[1]`, `this.cmd`.
fn assigned<'t>(left: &'t [Token<'t>]) -> Option<&'t str> {
    assigned_all(left).last().copied()
}

/// All of them: `list($a, $b)`, `{a, b}`; of `psi.Arguments` the object, too.
fn assigned_all<'t>(left: &'t [Token<'t>]) -> Vec<&'t str> {
    let is_index =
        |pair: &[Token<'_>]| matches!(pair, [Token::Mark(b'['), after] if *after != Token::Mark(b']'));
    let index = left.windows(2).position(is_index);
    let left = match index {
        Some(at) if at > 0 => left.get(..at).unwrap_or(left),
        _ => left,
    };
    let several = left
        .iter()
        .any(|token| matches!(token, Token::Mark(b',' | b'.' | b'>')));
    let names = words(left);
    let skipped = if several { 0 } else { names.len().saturating_sub(1) };
    names.into_iter().skip(skipped).collect()
}

fn words<'t>(tokens: &'t [Token<'t>]) -> Vec<&'t str> {
    let words = tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(*word),
        _ => None,
    });
    words.collect()
}

/// The names in a list of parameters, of which types come first.
fn parameters<'t>(flow: &Flow<'t>, inside: &'t [Token<'t>]) -> Vec<&'t str> {
    let parts = flow.parts(inside).into_iter();
    parts.filter_map(|part| words(part).last().copied()).collect()
}

/// The parameters of functions that are written into arguments.
fn inner_parameters<'t>(flow: &Flow<'t>, inside: &'t [Token<'t>]) -> Vec<&'t str> {
    let mut found = Vec::new();
    for (at, token) in inside.iter().enumerate() {
        match (token, inside.get(at + 1)) {
            (Token::Word("function" | "fn"), Some(Token::Mark(b'('))) => {
                found.extend(words(flow.group(inside, at + 1).0));
            }
            (Token::Word("lambda"), Some(Token::Word(name))) => found.push(*name),
            (Token::Mark(b'='), Some(Token::Mark(b'>'))) => {
                let before = inside.get(..at).unwrap_or_default();
                let open = before
                    .iter()
                    .rposition(|token| *token == Token::Mark(b'('))
                    .unwrap_or(0);
                match before.last() {
                    Some(Token::Word(name)) => found.push(*name),
                    Some(Token::Mark(b')')) => found.extend(words(before.get(open..).unwrap_or_default())),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}
