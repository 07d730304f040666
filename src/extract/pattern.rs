//! The regular expressions of a schema: what they may weigh, and how they are matched.
//!
//! Patterns come from outside, and a short one can ask for much: `\p{L}` is seven hundred ranges, a count
//! repeats them, and `(?i)` looks at every character of a class. So nothing is compiled when a schema is read.
//! Each pattern is parsed and [weighed](weight), piece by piece and before the piece is made, and the sum of
//! all patterns of a schema is bounded ([`Patterns`]). They are compiled when an answer is there, one at a
//! time ([`Matcher`]), so that a request that waits for the upstream holds only their text.
//!
//! Matching takes time linear in the text, times the size of the pattern for a hostile pair of the two. The
//! matcher counts the steps that depend on the size ([`Effort`]) and gives up where they are used up.

pub(super) mod weight;

use std::borrow::Cow;
use std::collections::HashSet;

use jsonschema_regex::{RepeatedClass, Search};
use regex_automata::Input;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_syntax::ast::parse::Parser;
use regex_syntax::hir::Hir;
use regex_syntax::hir::translate::Translator;

use weight::{MAX_PATTERNS_BYTES, PatternError};

/// Steps that the patterns of a schema may take to match one answer, in states of their programs. Texts that
/// repeat themselves take few, since the matcher remembers what it worked out.
const MAX_STEPS: u64 = 16_000_000;

/// What a matcher may remember, in bytes, beyond what its program needs at least.
const CACHE_BYTES: usize = 128 * 1024;

/// A bound of the program while it is built; [`MAX_PATTERN_BYTES`](weight::MAX_PATTERN_BYTES) binds long before.
const PROGRAM_BYTES: usize = 4 * 1024 * 1024;

/// The patterns of a schema while it is read.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: HashSet<String>,
    bytes: u64,
}

impl Patterns {
    /// Adds a pattern; one that is known weighs nothing more.
    pub(super) fn admit(&mut self, pattern: &str) -> Result<(), PatternError> {
        if self.known.contains(pattern) {
            return Ok(());
        }
        let bytes = self.bytes + ParsedPattern::of(pattern)?.bytes();
        if bytes > MAX_PATTERNS_BYTES {
            return Err(PatternError::TooHeavyTogether(bytes));
        }
        self.bytes = bytes;
        self.known.insert(pattern.to_owned());
        Ok(())
    }
}

/// A pattern that was parsed and weighed.
struct ParsedPattern {
    form: PatternForm,
    /// Bytes of its syntax tree.
    tree: u64,
    /// Bytes of its program.
    program: u64,
    /// Whether letters stand for both cases.
    folds: bool,
}

/// What it takes to match a pattern.
enum PatternForm {
    /// To count characters of one class.
    Count(RepeatedClass),
    /// A regular expression.
    Expression(Hir),
}

impl ParsedPattern {
    fn of(pattern: &str) -> Result<Self, PatternError> {
        let text = weight::of_text(pattern);
        weight::refuse_heavier(text)?;
        let pattern = &*control_letters(pattern);
        let translated =
            jsonschema_regex::to_rust_regex(pattern).map_err(|()| PatternError::NotRegular)?;
        let reading = Self::of_translated(&translated, text)?;
        let reading = reading.or_cheaper(pattern, &translated, text)?;
        weight::refuse_heavier(reading.bytes())?;
        Ok(reading)
    }

    /// Reads a pattern in Rust's syntax whose text weighs so much. Its tree is light enough to have; its program
    /// need not be.
    fn of_translated(pattern: &str, text: u64) -> Result<Self, PatternError> {
        let tree = Parser::new().parse(pattern).map_err(|_| PatternError::NotRegular)?;
        let folds = weight::folds(&tree);
        let bytes = weight::of_tree(&tree, pattern, text, folds)?;
        let hir =
            Translator::new().translate(pattern, &tree).map_err(|_| PatternError::NotRegular)?;
        let program = weight::of_program(&hir);
        Ok(Self { form: PatternForm::Expression(hir), tree: bytes, program, folds })
    }

    /// A form of the pattern that matches the same texts with a smaller program, where one is needed and
    /// there is one. To fold cases once more would cost more than it saves.
    fn or_cheaper(self, pattern: &str, translated: &str, text: u64) -> Result<Self, PatternError> {
        if self.folds || self.program <= weight::MODEST_BYTES {
            return Ok(self);
        }
        match jsonschema_regex::search_form(pattern, translated) {
            None => Ok(self),
            Some(Search::RepeatedClass(class)) => {
                Ok(Self { form: PatternForm::Count(class), program: weight::MODEST_BYTES, ..self })
            }
            Some(Search::Collapsed(shorter)) => Self::of_translated(&shorter, text),
        }
    }

    const fn bytes(&self) -> u64 {
        self.tree.saturating_add(self.program)
    }
}

/// The pattern with `\cA` as `\x01`: the translator would parse the whole pattern again for each of them.
fn control_letters(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains("\\c") {
        return pattern.into();
    }
    let mut written = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        written.push_str(before);
        let mut characters = escape.chars().skip(1);
        let (escaped, letter) = (characters.next(), characters.next());
        let length = match (escaped, letter) {
            (Some('c'), Some(letter)) if letter.is_ascii_alphabetic() => {
                let control = u32::from(letter) % 32;
                written.push_str(if control < 16 { "\\x0" } else { "\\x1" });
                written.extend(char::from_digit(control % 16, 16));
                "\\cA".len()
            }
            (escaped, _) => {
                let length = 1 + escaped.map_or(0, char::len_utf8);
                written.push_str(&escape[..length]);
                length
            }
        };
        rest = &escape[length..];
    }
    written.push_str(rest);
    written.into()
}

/// The steps that are left for an answer.
#[derive(Debug)]
pub(super) struct Effort {
    steps: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { steps: MAX_STEPS }
    }
}

impl Effort {
    /// Takes steps; none where too few are left.
    fn take(&mut self, steps: u64) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}

/// A compiled pattern.
pub(super) enum Matcher {
    /// Counts characters.
    Count(RepeatedClass),
    /// Works out the states that it comes to, and remembers them.
    Automaton { program: NFA, automaton: Box<DFA>, memory: Box<Cache> },
}

impl Matcher {
    /// Compiles a pattern that was [admitted](Patterns::admit); none for any other that is too heavy.
    pub(super) fn of(pattern: &str) -> Option<Self> {
        let hir = match ParsedPattern::of(pattern).ok()?.form {
            PatternForm::Count(class) => return Some(Self::Count(class)),
            PatternForm::Expression(hir) => hir,
        };
        let config =
            Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(PROGRAM_BYTES));
        let program = Compiler::new().configure(config).build_from_hir(&hir).ok()?;
        drop(hir);
        let config = DFA::config()
            // Between letters that are not ASCII, `\b` is left to a slower engine.
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true);
        let automaton = DFA::builder().configure(config).build_from_nfa(program.clone()).ok()?;
        let memory = Box::new(automaton.create_cache());
        Some(Self::Automaton { program, automaton: Box::new(automaton), memory })
    }

    /// Whether the pattern matches somewhere in `text`; none where that takes more than the effort that is left.
    pub(super) fn is_match(&mut self, text: &str, effort: &mut Effort) -> Option<bool> {
        match self {
            Self::Count(class) => Some(class.is_match(text)),
            Self::Automaton { program, automaton, memory } => {
                let states = program.states().len() as u64;
                match run(automaton, memory, text, states, effort)? {
                    Verdict::Matches => Some(true),
                    Verdict::Differs => Some(false),
                    Verdict::Unsuited => {
                        effort.take(states.saturating_mul(text.len() as u64 + 1))?;
                        let machine = PikeVM::new_from_nfa(program.clone()).ok()?;
                        Some(machine.is_match(&mut machine.create_cache(), text))
                    }
                }
            }
        }
    }
}

/// What an automaton says of a text.
enum Verdict {
    Matches,
    Differs,
    /// Another engine must decide.
    Unsuited,
}

impl Verdict {
    /// What a state says that ends a search.
    fn of(state: LazyStateID) -> Self {
        if state.is_quit() {
            return Self::Unsuited;
        }
        if state.is_match() { Self::Matches } else { Self::Differs }
    }
}

/// Runs the automaton over `text`; none where the effort is used up.
///
/// A transition that is not remembered is worked out from the states of the program, and so may be, once, that
/// of the state behind it at the end of a text. Both are counted then.
fn run(
    automaton: &DFA,
    memory: &mut Cache,
    text: &str,
    states: u64,
    effort: &mut Effort,
) -> Option<Verdict> {
    let Ok(mut state) = automaton.start_state_forward(memory, &Input::new(text)) else {
        return Some(Verdict::Unsuited);
    };
    for &byte in text.as_bytes() {
        if state.is_tagged() {
            return Some(Verdict::of(state));
        }
        let remembered = automaton.next_state_untagged(memory, state, byte);
        state = if remembered.is_unknown() {
            effort.take(2 * states)?;
            let Ok(next) = automaton.next_state(memory, state, byte) else {
                return Some(Verdict::Unsuited);
            };
            next
        } else {
            remembered
        };
    }
    if state.is_tagged() {
        return Some(Verdict::of(state));
    }
    let Ok(end) = automaton.next_eoi_state(memory, state) else {
        return Some(Verdict::Unsuited);
    };
    Some(Verdict::of(end))
}

#[cfg(test)]
mod tests;
