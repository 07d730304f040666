//! Computes the weight of a pattern before it is compiled.
//!
//! The weight is an upper bound on the bytes of the syntax tree and of the program. It is computed in three steps: from
//! the length of the text, from the classes in the tree, and from the size of the compiled program. Each step bounds
//! the cost of the next. CPU time is proportional to the bytes, so one number bounds both.

use regex_syntax::ast::{self, Ast, ClassSetItem, ClassUnicode, Flag, Flags, GroupKind, Visitor};
use regex_syntax::hir::translate::Translator;
use regex_syntax::hir::{self, Class, Hir, HirKind};
use regex_syntax::utf8::{Utf8Range, Utf8Sequences};

/// The largest weight of one pattern, in bytes of its syntax tree and its compiled program.
pub(in crate::extract) const MAX_PATTERN_BYTES: u64 = 512 * 1024;
/// The largest total weight of the different patterns of a schema, in bytes.
pub(in crate::extract) const MAX_PATTERNS_BYTES: u64 = 2560 * 1024;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extract) enum PatternError {
    /// Not a regular expression, or not matchable in linear time.
    NotRegular,
    /// The pattern weighs at least this many bytes, more than [`MAX_PATTERN_BYTES`].
    TooHeavy(u64),
    /// With this pattern, the patterns of the schema weigh this many bytes, more than [`MAX_PATTERNS_BYTES`].
    TooHeavyTogether(u64),
}

/// A program up to this weight is not replaced by a cheaper form. This is also the weight of the cheaper form that is a
/// table of characters.
pub(super) const MODEST_BYTES: u64 = 16 * 1024;

/// Bytes of syntax tree for each byte of a pattern. The escapes below are expanded to classes before parsing and take
/// more: `\s` becomes eleven ranges.
const TREE_BYTES: u64 = 64;
const DIGIT_BYTES: u64 = 384;
const WORD_BYTES: u64 = 768;
const DOT_BYTES: u64 = 1024;
const SPACE_BYTES: u64 = 3 * 1024;
/// The factor for patterns that ignore case, in which each letter becomes a class.
const FOLDED: u64 = 3;
/// Bytes of a Unicode class such as `\p{L}`.
const CLASS_BYTES: u64 = 8 * 1024;

/// Bytes of a program state, and of a transition of a state that has several.
const STATE_BYTES: u64 = 32;
const TRANSITION_BYTES: u64 = 8;

/// Rejects a pattern that is too heavy.
pub(super) const fn refuse_heavier(bytes: u64) -> Result<(), PatternError> {
    if bytes > MAX_PATTERN_BYTES { Err(PatternError::TooHeavy(bytes)) } else { Ok(()) }
}

/// The weight of a pattern's tree, estimated from the text alone.
pub(super) fn of_text(pattern: &str) -> u64 {
    let bytes = pattern.as_bytes();
    let next = bytes.iter().skip(1).chain([&0]);
    let weights = bytes.iter().zip(next).map(|pair| match pair {
        (b'.', _) => DOT_BYTES,
        (b'\\', b'd' | b'D') => DIGIT_BYTES,
        (b'\\', b'w' | b'W') => WORD_BYTES,
        (b'\\', b's' | b'S') => SPACE_BYTES,
        _ => TREE_BYTES,
    });
    weights.sum()
}

/// The weight of a pattern's tree, from its text and its classes. `folds` is whether the pattern ignores case.
pub(super) fn of_tree(
    tree: &Ast,
    pattern: &str,
    text: u64,
    folds: bool,
) -> Result<u64, PatternError> {
    let bytes = if folds { FOLDED * text } else { text };
    ast::visit(tree, Classes { pattern, folds, bytes })
}

/// Whether any part of a pattern ignores case.
pub(super) fn folds(tree: &Ast) -> bool {
    ast::visit(tree, Folding::default()).unwrap_or(true)
}

#[derive(Default)]
struct Folding(bool);

impl Folding {
    fn look(&mut self, flags: &Flags) {
        self.0 |= flags.flag_state(Flag::CaseInsensitive) == Some(true);
    }
}

impl Visitor for Folding {
    type Output = bool;
    type Err = ();

    fn finish(self) -> Result<bool, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<(), ()> {
        match tree {
            Ast::Flags(set) => self.look(&set.flags),
            Ast::Group(group) => {
                if let GroupKind::NonCapturing(flags) = &group.kind {
                    self.look(flags);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Computes the weight of the classes of a pattern. Case folding of a class takes time for each of its characters.
struct Classes<'p> {
    pattern: &'p str,
    folds: bool,
    bytes: u64,
}

impl Classes<'_> {
    fn add(&mut self, bytes: u64) -> Result<(), PatternError> {
        self.bytes = self.bytes.saturating_add(bytes);
        refuse_heavier(self.bytes)
    }

    fn unicode(&mut self, class: &ClassUnicode) -> Result<(), PatternError> {
        self.add(CLASS_BYTES)?;
        if !self.folds {
            return Ok(());
        }
        let tree = Ast::class_unicode(class.clone());
        let hir = Translator::new().translate(self.pattern, &tree);
        let hir = hir.map_err(|_| PatternError::NotRegular)?;
        let HirKind::Class(Class::Unicode(class)) = hir.kind() else { return Ok(()) };
        class.iter().try_for_each(|range| self.folded(range.start(), range.end()))
    }

    fn folded(&mut self, start: char, end: char) -> Result<(), PatternError> {
        self.add(u64::from(u32::from(end).saturating_sub(u32::from(start))))
    }
}

impl Visitor for Classes<'_> {
    type Output = u64;
    type Err = PatternError;

    fn finish(self) -> Result<u64, PatternError> {
        refuse_heavier(self.bytes).map(|()| self.bytes)
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<(), PatternError> {
        if let Ast::ClassUnicode(class) = tree { self.unicode(class) } else { Ok(()) }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), PatternError> {
        match item {
            ClassSetItem::Unicode(class) => self.unicode(class),
            ClassSetItem::Range(range) if self.folds => self.folded(range.start.c, range.end.c),
            // A nested class, such as in the expansion of `[\\W_]`, is folded again together with the outer class.
            ClassSetItem::Bracketed(inner) if self.folds && inner.negated => {
                self.folded('\0', char::MAX)
            }
            _ => Ok(()),
        }
    }
}

/// The weight of the program of a regular expression.
pub(super) fn of_program(hir: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(of_program).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE_BYTES,
        HirKind::Literal(literal) => STATE_BYTES * literal.0.len() as u64,
        HirKind::Class(Class::Bytes(class)) => {
            STATE_BYTES + TRANSITION_BYTES * class.ranges().len() as u64
        }
        HirKind::Class(Class::Unicode(class)) => of_class(class),
        HirKind::Capture(capture) => of_program(&capture.sub),
        HirKind::Concat(parts) => sum(parts),
        HirKind::Alternation(parts) => {
            let choice = (STATE_BYTES + TRANSITION_BYTES) * (1 + parts.len() as u64);
            sum(parts).saturating_add(choice)
        }
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            let copy = of_program(&repetition.sub).saturating_add(2 * STATE_BYTES);
            copy.saturating_mul(u64::from(copies)).saturating_add(2 * STATE_BYTES)
        }
    }
}

/// The weight of a class: a tree of the UTF-8 bytes of its characters.
fn of_class(class: &hir::ClassUnicode) -> u64 {
    let mut bytes = STATE_BYTES;
    let mut before: [Option<Utf8Range>; 4] = [None; 4];
    for range in class.iter() {
        for sequence in Utf8Sequences::new(range.start(), range.end()) {
            let sequence = sequence.as_slice();
            let shared =
                sequence.iter().zip(before).take_while(|(one, other)| Some(**one) == *other);
            let added = (sequence.len() - shared.count()) as u64;
            bytes += added * TRANSITION_BYTES + added.saturating_sub(1) * STATE_BYTES;
            before = [None; 4];
            for (place, range) in before.iter_mut().zip(sequence) {
                *place = Some(*range);
            }
        }
    }
    bytes
}
