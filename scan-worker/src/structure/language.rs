//! What differs between the languages of web shells: how a text is recognised, where a
//! request comes in, and what runs what it is given.

use super::names::{self, Sinks};

/// A language that servers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// PHP.
    Php,
    /// Java in a page.
    Jsp,
    /// C# in a page.
    Net,
    /// VBScript or Visual Basic in a page.
    Visual,
    /// Python.
    Python,
    /// Perl.
    Perl,
    /// JavaScript on a server.
    Node,
}

/// What a function does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    /// Runs it as code of the language.
    Code,
    /// Runs it as a command.
    Command,
    /// Loads it as a program, a class or a file of code.
    Load,
    /// Calls the function of that name with the other arguments.
    Callback,
}

/// Where it is looked for: beyond it nobody has a web shell's handler.
const HEAD: usize = 64 << 10;

/// How PHP begins, also in the middle of something else.
const PHP_BEGINS: [&str; 4] = ["<?php", "<?PHP", "<?=", "<? "];

impl Language {
    /// The language of a text, by what nobody leaves out who wants a server to run it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let head = text.get(..text.floor_char_boundary(HEAD)).unwrap_or_default();
        let has = |word: &str| memchr::memmem::find(head.as_bytes(), word.as_bytes()).is_some();
        let any = |words: &[&str]| words.iter().any(|word| has(word));
        if any(&PHP_BEGINS) && !has("<jsp:") {
            return Some(Self::Php);
        }
        if any(&["<%", "<jsp:", "runat=\"server\""]) {
            let dot_net = any(&[
                "Language=\"C#\"",
                "language=\"c#\"",
                "Language=\"c#\"",
                "Language='C#'",
                "System.Diagnostics",
            ]);
            let java = any(&["java.", "<jsp:", "getParameter", "Runtime", "<%@page", "<%@ page"]);
            let visual = any(&[
                "CreateObject",
                "Request.",
                "request(",
                "Request(",
                "VBScript",
                "Language=\"VB\"",
            ]);
            return match (dot_net, java, visual) {
                (true, _, _) => Some(Self::Net),
                (_, true, _) => Some(Self::Jsp),
                (_, _, true) => Some(Self::Visual),
                _ => None,
            };
        }
        if has("${") && any(&["getRuntime", "ProcessBuilder"]) {
            return Some(Self::Jsp);
        }
        let first = head.lines().next().unwrap_or_default();
        if first.starts_with("#!") && first.contains("perl")
            || any(&["use CGI", "use Plack", "use Mojo", "use Dancer", "use strict;"])
        {
            return Some(Self::Perl);
        }
        if any(&["require(", "module.exports", "import "]) && any(&["function", "=>", "const ", "var "]) {
            return Some(Self::Node);
        }
        any(&["import ", "__import__"]).then_some(Self::Python)
    }

    /// Whether a content can be in no language at all: programs have no zeros, but the images that
    /// some of PHP are hidden in do. Most contents with zeros are told from this alone.
    pub(super) fn is_out_of_question(content: &[u8]) -> bool {
        let head = content.get(..HEAD).unwrap_or(content);
        let has = |word: &str| memchr::memmem::find(head, word.as_bytes()).is_some();
        memchr::memchr(0, content).is_some() && !PHP_BEGINS.iter().any(|word| has(word))
    }

    /// The parts of a text that are program.
    #[must_use]
    pub fn code(self, text: &str) -> Vec<&str> {
        match self {
            Self::Php => between(text, "<?", "?>"),
            Self::Jsp if text.contains("<jsp:") => vec![text],
            Self::Jsp => [between(text, "<%", "%>"), between(text, "${", "}")].concat(),
            // A handler has its class behind the directive, a page its scripts.
            Self::Net if text.contains("WebHandler") || text.contains("<script") => vec![text],
            Self::Net | Self::Visual => between(text, "<%", "%>"),
            Self::Perl => without_manual(text),
            Self::Python | Self::Node => vec![text],
        }
    }

    pub(super) fn lines_end(self) -> bool {
        matches!(self, Self::Python | Self::Visual)
    }

    pub(super) fn is_like_c(self) -> bool {
        matches!(self, Self::Php | Self::Jsp | Self::Net | Self::Node)
    }

    pub(super) fn line_comments(self) -> &'static [&'static str] {
        match self {
            Self::Php => &["//", "#"],
            Self::Jsp | Self::Net | Self::Node => &["//"],
            Self::Visual => &["'"],
            Self::Python | Self::Perl => &["#"],
        }
    }

    pub(super) fn has_backticks(self) -> bool {
        matches!(self, Self::Php | Self::Perl | Self::Node)
    }

    /// Whether a point joins texts; elsewhere it leads to a member.
    pub(super) fn joins_by_point(self) -> bool {
        matches!(self, Self::Php | Self::Perl)
    }

    /// Names that are what a request sends, whatever stands before them.
    pub(super) fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Php => &[
                "$_GET",
                "$_POST",
                "$_REQUEST",
                "$_COOKIE",
                "$HTTP_RAW_POST_DATA",
                "getallheaders",
                "apache_request_headers",
                "filter_input",
                "filter_input_array",
            ],
            Self::Jsp => &[
                "getParameter",
                "getParameterValues",
                "getParameterMap",
                "getHeader",
                "getHeaders",
                "getQueryString",
                "getCookies",
                "getReader",
                "getInputStream",
                "getPathInfo",
            ],
            Self::Net => &["QueryString", "BinaryRead", "Request"],
            Self::Visual => &["Request", "request"],
            Self::Python => &[
                "get_argument",
                "get_arguments",
                "get_body_argument",
                "get_query_argument",
                "FieldStorage",
                "get_json",
                "rfile",
            ],
            Self::Perl => &[
                "param",
                "STDIN",
                "query_string",
                "body_parameters",
                "query_parameters",
            ],
            Self::Node => &[],
        }
    }

    /// Objects whose members are what a request sends.
    pub(super) fn objects(self) -> &'static [&'static str] {
        match self {
            Self::Jsp => &["param", "paramValues", "header", "cookie"],
            Self::Python => &["request", "req", "environ", "handler"],
            Self::Node => &["req", "request", "ctx", "context", "event"],
            _ => &[],
        }
    }

    /// Those members; none means all.
    pub(super) fn members(self) -> &'static [&'static str] {
        match self {
            Self::Python => &[
                "args",
                "form",
                "values",
                "data",
                "json",
                "headers",
                "cookies",
                "files",
                "get_data",
                "GET",
                "POST",
                "META",
                "COOKIES",
                "body",
                "query_params",
                "query",
                "text",
                "read",
                "forms",
                "params",
                "stream",
            ],
            Self::Node => &[
                "body",
                "query",
                "params",
                "headers",
                "url",
                "cookies",
                "rawBody",
                "queryStringParameters",
                "request",
                "on",
                "get",
                "header",
                "param",
            ],
            _ => &[],
        }
    }

    /// Literals that name what a request sends.
    pub(super) fn is_source_text(self, text: &str) -> bool {
        match self {
            Self::Php => text == "php://input" || Self::is_superglobal(text),
            Self::Python | Self::Perl => {
                text == "wsgi.input"
                    || matches!(text, "QUERY_STRING" | "PATH_INFO")
                    || text.starts_with("HTTP_")
            }
            _ => false,
        }
    }

    /// The names behind `${...}` and `$GLOBALS[...]`.
    pub(super) fn is_superglobal(text: &str) -> bool {
        matches!(text, "_GET" | "_POST" | "_REQUEST" | "_COOKIE")
    }

    /// What a function of that name does; `member` when an object stands before it.
    pub(super) fn sink(self, name: &str, member: bool) -> Option<Sink> {
        // Names are what they are, but in PHP and Visual Basic in any case.
        let has = match self {
            Self::Php | Self::Visual => names::has_in_any_case,
            _ => names::has,
        };
        let mut sinks = self.sinks(member).iter();
        sinks.find_map(|(sink, names)| has(names, name).then_some(*sink))
    }

    fn sinks(self, member: bool) -> Sinks {
        match (self, member) {
            (Self::Php, false) => names::PHP,
            (Self::Php, true) => names::PHP_MEMBERS,
            (Self::Jsp, _) => names::JSP,
            (Self::Net, _) => names::NET,
            (Self::Visual, false) => names::VISUAL,
            (Self::Visual, true) => names::VISUAL_MEMBERS,
            (Self::Python, false) => names::PYTHON,
            (Self::Python, true) => names::PYTHON_MEMBERS,
            (Self::Perl, false) => names::PERL,
            (Self::Perl, true) => &[],
            (Self::Node, false) => names::NODE,
            (Self::Node, true) => names::NODE_MEMBERS,
        }
    }
}

/// The parts of a Perl program that are not its manual, up to its end.
fn without_manual(text: &str) -> Vec<&str> {
    let program = text.split("\n__END__").next().unwrap_or(text);
    let parts = program.split("\n=cut");
    parts
        .map(|part| {
            part.find("\n=")
                .and_then(|start| part.get(..start))
                .unwrap_or(part)
        })
        .collect()
}

/// The parts of a text between two marks; the last may lack its end.
fn between<'a>(text: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = text.split(start).skip(1);
    parts.map(|part| part.split(end).next().unwrap_or(part)).collect()
}
