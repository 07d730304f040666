//! Removes differences of script and width that do not change the meaning of text.

/// Replaces digits, punctuation and spaces of other scripts with their ASCII equivalents.
pub(super) fn fold(text: &str) -> String {
    text.chars().map(fold_character).collect()
}

/// The ASCII equivalent of a digit, a punctuation mark or a space; any other character itself.
///
/// Full-width forms (Unicode U+FF01 to U+FF5E) have the order of ASCII; Arabic-Indic digits have the order of their
/// values.
pub(super) fn fold_character(character: char) -> char {
    let shifted = |character: char, from: u32, to: char| {
        char::from_u32(u32::from(character) - from + u32::from(to)).unwrap_or(character)
    };
    match character {
        '\u{ff01}'..='\u{ff5e}' => shifted(character, 0xff01, '!'),
        '\u{0660}'..='\u{0669}' => shifted(character, 0x0660, '0'),
        '\u{06f0}'..='\u{06f9}' => shifted(character, 0x06f0, '0'),
        '\u{066c}' | '、' => ',',
        '\u{066b}' | '。' => '.',
        '\u{ffe1}' => '£',
        '\u{ffe5}' => '¥',
        '\u{ffe6}' => '₩',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => '-',
        '`' | '´' | '\u{2018}' | '\u{2019}' | '\u{02bc}' | '\u{2032}' => '\'',
        character if character.is_whitespace() => ' ',
        character => character,
    }
}

/// The text without differences of case and width.
pub(super) fn letters(text: &str) -> String {
    fold(text).trim().to_lowercase()
}
