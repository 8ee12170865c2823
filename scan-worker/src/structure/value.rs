//! What an expression comes to, as far as it matters.

/// How much of a value a request decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taint {
    /// Nothing.
    #[default]
    None,
    /// Some of it, behind what the program says: an argument.
    Part,
    /// All of it, or its beginning: the command itself.
    Whole,
}

/// The value of an expression.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Value {
    pub(super) taint: Taint,
    /// The text it always is; none when it depends on something.
    pub(super) constant: Option<String>,
    /// That text, or a part of it, was put together to be hidden.
    pub(super) folded: bool,
    /// How many decoders it went through.
    pub(super) decoders: u32,
    /// A long encoded literal is in it.
    pub(super) payload: bool,
    /// The request is named right here, and not by a name that once took something of it.
    pub(super) direct: bool,
}

impl Value {
    /// What nothing is known of.
    pub(super) fn unknown() -> Self {
        Self::default()
    }

    /// A literal.
    pub(super) fn text(text: String) -> Self {
        Self {
            payload: super::literal::is_encoded(&text),
            constant: Some(text),
            ..Self::default()
        }
    }

    /// What a request sends.
    pub(super) fn sent() -> Self {
        Self {
            direct: true,
            ..Self::of(Taint::Whole)
        }
    }

    pub(super) fn of(taint: Taint) -> Self {
        Self {
            taint,
            ..Self::default()
        }
    }

    /// Whether the program says nothing here but that a shell is to run what follows.
    fn leaves_the_rest_open(&self) -> bool {
        const SHELLS: [&str; 19] = [
            "",
            "|",
            "-|",
            "|-",
            "-c",
            "/c",
            "/C",
            "cmd",
            "cmd.exe",
            "sh",
            "bash",
            "/bin/sh",
            "/bin/bash",
            "powershell",
            "powershell.exe",
            "sh -c",
            "cmd /c",
            "cmd.exe /c",
            "/bin/sh -c",
        ];
        self.constant.as_deref().is_some_and(|text| {
            let text = text.trim().trim_matches(['"', '\'', '(', ';', '$', '{', '}']);
            SHELLS.contains(&text.trim()) || text.starts_with("<?php") || text.starts_with("return")
        })
    }
}

/// An expression while it is read, operand by operand.
#[derive(Debug, Default)]
pub(super) struct Sum {
    value: Value,
    operands: u32,
    /// Something came before that leaves nothing open.
    begun: bool,
    compared: bool,
}

impl Sum {
    pub(super) fn add(&mut self, operand: Value) {
        let taint = match operand.taint {
            Taint::Whole if self.begun => Taint::Part,
            taint => taint,
        };
        self.begun |= !operand.leaves_the_rest_open() && operand.taint < Taint::Whole;
        let value = &mut self.value;
        value.taint = value.taint.max(taint);
        value.folded |= operand.folded;
        value.direct |= operand.direct;
        value.payload |= operand.payload;
        value.decoders = value.decoders.max(operand.decoders);
        value.constant = match (value.constant.take(), operand.constant) {
            (None, constant) if self.operands == 0 => constant,
            (Some(before), Some(after)) => {
                value.folded = true;
                Some(before + &after)
            }
            _ => None,
        };
        self.operands += 1;
    }

    /// What follows stands in the place of what came before.
    pub(super) fn or(&mut self) {
        self.begun = false;
        self.value.constant = None;
        self.operands = self.operands.max(1);
    }

    /// It only says yes or no.
    pub(super) fn compare(&mut self) {
        self.compared = true;
    }

    pub(super) fn value(self) -> Value {
        if self.compared {
            Value::unknown()
        } else {
            self.value
        }
    }
}
