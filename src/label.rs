//! Names that operators give: labels of keys, names of endpoints, regions and models.
//!
//! They appear in terminals, tables, spreadsheets and log lines. There, some characters are invisible, some end a line,
//! some change the direction of the text, and some make a spreadsheet cell a formula. A new name with such a character
//! is refused ([`check`]). A stored name is still accepted, and [`shown`] with such characters escaped.
//!
//! Letters that look alike are allowed, because labels are not used for look-ups or permissions.

use std::borrow::Cow;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The most characters of a name.
pub const LENGTH: usize = 100;

/// The rule that a name breaks. The message continues a sentence that begins with "the label" or a settings key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// It is empty or too long.
    #[error("has {actual} characters; write 1 to {LENGTH}")]
    Length {
        /// How many there are.
        actual: usize,
    },
    /// A character that is invisible or misleading.
    #[error(
        "holds U+{code:04X}, which cannot be seen, ends a line or changes how other text is shown; \
         leave it out"
    )]
    Hidden {
        /// The character's number in Unicode.
        code: u32,
    },
    /// A first character that a spreadsheet takes for a formula.
    #[error("begins with {first:?}, which a spreadsheet takes for a formula; begin with a letter")]
    Formula {
        /// The character.
        first: char,
    },
    /// A first or last character that would combine with the text beside it.
    #[error("begins or ends with a space, or begins with an accent of no letter; leave it out")]
    Edge,
}

/// Refuses a text that could be misread as a name.
///
/// # Errors
///
/// [`LabelFault`] is the first rule that it breaks.
pub fn check(text: &str) -> Result<(), LabelFault> {
    let actual = text.chars().count();
    if !(1..=LENGTH).contains(&actual) {
        return Err(LabelFault::Length { actual });
    }
    if let Some(hidden) = text.chars().find(|letter| is_hidden(*letter)) {
        return Err(LabelFault::Hidden { code: hidden.into() });
    }
    if let Some(first) = text.chars().next().filter(|first| starts_formula(*first)) {
        return Err(LabelFault::Formula { first });
    }
    let group = |letter: char| letter.general_category_group();
    let joins = text.chars().next().is_some_and(|first| group(first) == GeneralCategoryGroup::Mark);
    if joins || text.starts_with(' ') || text.ends_with(' ') {
        return Err(LabelFault::Edge);
    }
    Ok(())
}

/// Any text for one line of output: invisible and misleading characters are escaped, for example as `\u{202e}`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_hidden(letter) {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line.into()
}

/// Whether a spreadsheet takes a cell with this first character for a formula, also in its full-width and small forms
/// (OWASP, "CSV Injection"). Tab and carriage return have the same effect, but [`is_hidden`] covers them.
pub const fn starts_formula(first: char) -> bool {
    matches!(first, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '﹦' | '﹢' | '﹣' | '﹫')
}

/// Whether the character is invisible or misleading: a control or format character, a line separator, a blank other
/// than the space, or a character without an assigned meaning.
pub fn is_hidden(letter: char) -> bool {
    match letter.general_category_group() {
        GeneralCategoryGroup::Separator => letter != ' ',
        GeneralCategoryGroup::Other => true,
        _ => is_blank(letter),
    }
}

/// Letters, marks and symbols that are invisible: those of `Default_Ignorable_Code_Point` in the Unicode Character
/// Database that no other category covers, and the empty Braille pattern.
const fn is_blank(letter: char) -> bool {
    matches!(
        letter,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_every_script_pass() {
        for name in [
            "nightly batch",
            "批量（夜间）",
            "Zahlstelle Süd, 2. Stock",
            "حسابات المورّدين",
            "บัญชี",
            "खाता",
            "#3 (old) 50% ~ a/b_c",
            "receipts 🧾",
            "x",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
            assert_eq!(shown(name), name);
        }
        assert_eq!(check(&"x".repeat(LENGTH)), Ok(()));
    }

    #[test]
    fn a_character_that_is_not_seen_as_what_it_is_is_refused_and_escaped() {
        let controls = ['\0', '\t', '\n', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}'];
        let turning =
            ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'];
        let separators = ['\u{2028}', '\u{2029}', '\u{a0}', '\u{2003}', '\u{3000}'];
        let invisible = [
            '\u{ad}',
            '\u{34f}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{2800}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
        ];
        let without_meaning =
            ['\u{378}', '\u{e000}', '\u{f8ff}', '\u{fffe}', '\u{f0000}', '\u{10ffff}'];
        let all = [&controls[..], &turning, &separators, &invisible, &without_meaning].concat();
        for letter in all {
            for name in [format!("a{letter}b"), format!("{letter}b"), format!("a{letter}")] {
                let code = letter.into();
                assert_eq!(check(&name), Err(LabelFault::Hidden { code }), "{code:x}");
                let line = shown(&name).into_owned();
                assert!(line.contains(&format!("\\u{{{code:x}}}")), "{line}");
                assert_eq!(shown(&line), line);
            }
        }
    }

    #[test]
    fn a_name_that_a_spreadsheet_takes_for_a_formula_is_refused() {
        for first in ['=', '+', '-', '@', '＝', '＋', '－', '＠', '﹦', '﹢', '﹣', '﹫'] {
            assert_eq!(check(&format!("{first}1+1")), Err(LabelFault::Formula { first }));
            assert_eq!(check(&format!("a{first}b")), Ok(()));
        }
        assert!(matches!(check("\t=1"), Err(LabelFault::Hidden { .. })));
        assert!(matches!(check("\r=1"), Err(LabelFault::Hidden { .. })));
        assert_eq!(check(" =1"), Err(LabelFault::Edge));
    }

    #[test]
    fn a_name_that_is_empty_too_long_or_joins_its_neighbours_is_refused() {
        assert_eq!(check(""), Err(LabelFault::Length { actual: 0 }));
        assert_eq!(check(&"x".repeat(101)), Err(LabelFault::Length { actual: 101 }));
        for name in [" a", "a ", " ", "\u{301}a"] {
            assert_eq!(check(name), Err(LabelFault::Edge), "{name:?}");
        }
    }
}
