//! The regular expressions of a schema: their size limits and how they are matched.
//!
//! Patterns are untrusted, and a short pattern can be expensive. `\p{L}` has seven hundred ranges, a repetition
//! multiplies them, and `(?i)` visits every character of a class. So nothing is compiled when a schema is read. Each
//! pattern is parsed and its [weight] is computed step by step, before each structure is built. The total
//! weight of a schema's patterns is bounded ([`Patterns`]). Patterns are compiled after the answer has arrived, one at
//! a time ([`Matcher`]). A request that waits for the upstream therefore keeps only their text.
//!
//! Matching time is linear in the text. In the worst case it is also proportional to the size of the pattern. The
//! matcher counts the steps that depend on that size ([`Effort`]) and stops when the limit is reached.

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

/// The limit of steps for matching the patterns of a schema against one answer, counted in program states. Repetitive
/// texts take few steps because the matcher caches transitions.
const MAX_STEPS: u64 = 16_000_000;

/// The size of a matcher's cache in bytes, in addition to the minimum that its program needs.
const CACHE_BYTES: usize = 128 * 1024;

/// A limit on the program while it is built. [`MAX_PATTERN_BYTES`](weight::MAX_PATTERN_BYTES) applies long before it.
const PROGRAM_BYTES: usize = 4 * 1024 * 1024;

/// The patterns of a schema that is being read.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    known: HashSet<String>,
    bytes: u64,
}

impl Patterns {
    /// Adds a pattern. A pattern that was already added has no further weight.
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

/// A parsed pattern with its weight.
struct ParsedPattern {
    form: PatternForm,
    /// Bytes of the syntax tree.
    tree: u64,
    /// Bytes of the program.
    program: u64,
    /// Whether matching ignores case.
    folds: bool,
}

/// How a pattern is matched.
enum PatternForm {
    /// Count the characters of one class.
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

    /// Reads a pattern in Rust's syntax; `text` is the weight of its text. The tree is small enough to build, but the
    /// program may not be.
    fn of_translated(pattern: &str, text: u64) -> Result<Self, PatternError> {
        let tree = Parser::new().parse(pattern).map_err(|_| PatternError::NotRegular)?;
        let folds = weight::folds(&tree);
        let bytes = weight::of_tree(&tree, pattern, text, folds)?;
        let hir =
            Translator::new().translate(pattern, &tree).map_err(|_| PatternError::NotRegular)?;
        let program = weight::of_program(&hir);
        Ok(Self { form: PatternForm::Expression(hir), tree: bytes, program, folds })
    }

    /// Returns an equivalent pattern with a smaller program if one is needed and exists. Patterns that ignore case are
    /// kept, because folding the case again would cost more than it saves.
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

/// Replaces `\cA` with `\x01`. The translator would otherwise parse the whole pattern again for each escape.
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

/// The remaining steps for an answer.
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
    /// Takes steps; `None` if too few are left.
    fn take(&mut self, steps: u64) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}

/// A compiled pattern.
pub(super) enum Matcher {
    /// Counts characters.
    Count(RepeatedClass),
    /// Computes the states that it reaches and caches them.
    Automaton { program: NFA, automaton: Box<DFA>, memory: Box<Cache> },
}

impl Matcher {
    /// Compiles a pattern that was [admitted](Patterns::admit); `None` for a pattern that is too heavy.
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
            // The automaton does not support `\b` next to non-ASCII letters. A slower engine does.
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true);
        let automaton = DFA::builder().configure(config).build_from_nfa(program.clone()).ok()?;
        let memory = Box::new(automaton.create_cache());
        Some(Self::Automaton { program, automaton: Box::new(automaton), memory })
    }

    /// Whether the pattern matches anywhere in `text`; `None` if this takes more than the remaining effort.
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

/// The result of running an automaton over a text.
enum Verdict {
    Matches,
    Differs,
    /// Another engine must decide.
    Unsuited,
}

impl Verdict {
    /// The result for a state that ends the search.
    fn of(state: LazyStateID) -> Self {
        if state.is_quit() {
            return Self::Unsuited;
        }
        if state.is_match() { Self::Matches } else { Self::Differs }
    }
}

/// Runs the automaton over `text`; `None` if the effort is used up.
///
/// A transition that is not cached is computed from the states of the program. The end-of-text transition from the next
/// state may need one more computation. Both are counted at that time.
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
