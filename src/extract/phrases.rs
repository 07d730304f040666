//! Finds many phrases in one pass over a text: the algorithm of Aho and Corasick ("Efficient string matching", 1975),
//! with tokens in place of characters.
//!
//! Each phrase is found once, at its first place. A phrase that was found is skipped from then on. So the work is
//! proportional to the tokens of the text and of all phrases together, also if the phrases are parts of each other and
//! the text repeats them.

use std::collections::HashMap;

/// The state in which nothing of a phrase was read.
const ROOT: u32 = 0;

/// Phrases that were not found yet.
#[derive(Debug)]
pub(super) struct Phrases {
    /// The numbers of the tokens of all phrases.
    tokens: HashMap<String, u32>,
    states: Vec<State>,
    /// The state behind a state and a token.
    next: HashMap<(u32, u32), u32>,
    /// The steps that were made, for a test of their bound.
    steps: u64,
}

/// The first tokens of a phrase.
#[derive(Debug, Default)]
struct State {
    /// Their number.
    length: u32,
    parent: u32,
    token: u32,
    /// The state of the longest end of these tokens that is the beginning of a phrase.
    fallback: u32,
    /// A state on the way of fallbacks. All before it have no phrase that is still to be found.
    skip: u32,
    /// The phrases that end here and were not found yet.
    phrases: Vec<usize>,
}

/// A phrase that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundPhrase {
    /// What it was added as.
    pub(super) phrase: usize,
    /// The number of its tokens, of which the last is the one that was read.
    pub(super) length: usize,
}

/// A place in a text that is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reader {
    state: u32,
}

impl Phrases {
    /// The phrases of these tokens. A phrase without tokens is never found.
    pub(super) fn of<T: AsRef<str>>(
        phrases: impl IntoIterator<Item = (usize, impl IntoIterator<Item = T>)>,
    ) -> Self {
        let mut all = Self {
            tokens: HashMap::new(),
            states: vec![State::default()],
            next: HashMap::new(),
            steps: 0,
        };
        for (phrase, tokens) in phrases {
            let end = tokens.into_iter().fold(ROOT, |state, token| all.state_behind(state, &token));
            if end != ROOT {
                all.states[end as usize].phrases.push(phrase);
            }
        }
        all.link();
        all
    }

    fn state_behind(&mut self, state: u32, token: &impl AsRef<str>) -> u32 {
        let token = token.as_ref();
        let count = as_number(self.tokens.len());
        let token = match self.tokens.get(token) {
            Some(number) => *number,
            None => *self.tokens.entry(token.to_owned()).or_insert(count),
        };
        let new = as_number(self.states.len());
        let next = *self.next.entry((state, token)).or_insert(new);
        if next == new {
            let length = self.states[state as usize].length + 1;
            self.states.push(State { length, parent: state, token, ..State::default() });
        }
        next
    }

    /// Sets the fallbacks, of short states first.
    fn link(&mut self) {
        let mut order: Vec<u32> = (1..as_number(self.states.len())).collect();
        order.sort_by_key(|state| self.states[*state as usize].length);
        for state in order {
            let State { parent, token, .. } = self.states[state as usize];
            let fallback =
                if parent == ROOT { ROOT } else { self.step(self.state(parent).fallback, token) };
            let state = &mut self.states[state as usize];
            (state.fallback, state.skip) = (fallback, fallback);
        }
    }

    const fn state(&self, state: u32) -> &State {
        &self.states.as_slice()[state as usize]
    }

    /// The state of the longest end of what was read that is the beginning of a phrase.
    fn step(&mut self, mut state: u32, token: u32) -> u32 {
        loop {
            self.steps += 1;
            match self.next.get(&(state, token)) {
                Some(next) => return *next,
                None if state == ROOT => return ROOT,
                None => state = self.state(state).fallback,
            }
        }
    }

    /// Reads the next token of the text. Returns the phrases that end with it and were not found before.
    pub(super) fn read(&mut self, reader: &mut Reader, token: &str) -> Vec<FoundPhrase> {
        let Some(token) = self.tokens.get(token).copied() else {
            reader.state = ROOT;
            return Vec::new();
        };
        reader.state = self.step(reader.state, token);
        let mut found = Vec::new();
        let mut end = self.unfound(reader.state);
        while end != ROOT {
            let state = &mut self.states[end as usize];
            let length = state.length as usize;
            let phrases = std::mem::take(&mut state.phrases);
            found.extend(phrases.into_iter().map(|phrase| FoundPhrase { phrase, length }));
            end = self.unfound(end);
        }
        found
    }

    /// The first state on the way of fallbacks, from this one on, at which a phrase ends that was not found yet.
    fn unfound(&mut self, from: u32) -> u32 {
        let mut end = from;
        while end != ROOT && self.state(end).phrases.is_empty() {
            self.steps += 1;
            end = self.state(end).skip;
        }
        // The next search goes there at once.
        let mut passed = from;
        while passed != end {
            let state = &mut self.states[passed as usize];
            passed = std::mem::replace(&mut state.skip, end);
        }
        end
    }

    /// The steps that were made so far.
    #[cfg(test)]
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }
}

/// Texts and phrases are far shorter than four billion tokens.
fn as_number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The phrases and the texts are words with spaces between them.
    fn phrases(texts: &[&str]) -> Phrases {
        Phrases::of(texts.iter().map(|text| text.split(' ')).enumerate())
    }

    /// Each phrase that is found, with the position of its last word.
    fn found(phrases: &mut Phrases, text: &str) -> Vec<(usize, usize, usize)> {
        let mut reader = Reader::default();
        let mut all = Vec::new();
        for (at, word) in text.split(' ').enumerate() {
            let found = phrases.read(&mut reader, word);
            all.extend(found.into_iter().map(|found| (at, found.phrase, found.length)));
        }
        all
    }

    #[test]
    fn phrases_within_phrases_are_found_each_at_its_first_place() {
        let mut phrases = phrases(&["a b c", "b c", "c", "b d", "b c"]);
        assert_eq!(
            found(&mut phrases, "a b x a b c b c b d"),
            [(5, 0, 3), (5, 1, 2), (5, 4, 2), (5, 2, 1), (9, 3, 2)]
        );
    }

    #[test]
    fn the_work_is_proportional_to_the_text_and_the_phrases() {
        const PHRASES: usize = 2_000;
        const WORDS: usize = 50_000;
        // Each phrase ends at each word, and the last one is never found.
        let texts: Vec<String> = (1..PHRASES)
            .map(|length| vec!["a"; length].join(" "))
            .chain([format!("{} b", vec!["a"; PHRASES].join(" "))])
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut phrases = phrases(&texts);
        let text = vec!["a"; WORDS].join(" ");
        assert_eq!(found(&mut phrases, &text).len(), PHRASES - 1);
        assert!(phrases.steps() < 4 * (PHRASES + WORDS) as u64, "{} steps", phrases.steps());
    }

    proptest! {
        #[test]
        fn a_phrase_is_found_where_a_search_finds_it(
            texts in prop::collection::vec("[ab]( [abc]){0,3}", 1..8),
            text in "[abc]( [abc]){0,20}",
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let words: Vec<&str> = text.split(' ').collect();
            let mut expected: Vec<(usize, usize, usize)> = Vec::new();
            for (phrase, wanted) in texts.iter().enumerate() {
                let wanted: Vec<&str> = wanted.split(' ').collect();
                let first = words.windows(wanted.len()).position(|window| window == wanted);
                expected.extend(first.map(|at| (at + wanted.len() - 1, phrase, wanted.len())));
            }
            let mut found = found(&mut phrases(&texts), &text);
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
