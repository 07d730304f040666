//! Whether the answer of a task is complete in its notation.
//!
//! A table with open tags, or JSON that does not parse, is half an answer, even if the model reports `stop`: one of
//! the vendor's own samples ends inside a tag with `stop`. Nothing is repaired, because a repair would guess about a
//! document. Only the notation of the task is checked; on a page of text, `<b>` may be text.

use crate::json::{self, Spelling};

/// The elements of a table and of its text that a model closes. Others are ignored, because `<Name>` on a form is text,
/// and so are those that are never closed.
const ELEMENTS: [&str; 21] = [
    "table", "div", "span", "ul", "ol", "dl", "b", "i", "u", "s", "em", "strong", "sub", "sup",
    "h1", "h2", "h3", "h4", "h5", "h6", "a",
];

/// Elements whose end tag is optional (HTML standard, "Optional tags").
const ENDING_BY_THEMSELVES: [&str; 18] = [
    "html", "head", "body", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot",
    "caption", "colgroup", "option", "optgroup", "rt",
];

/// Longest name of an environment, in bytes. Without a limit, each `\begin{` would be read to the end of the text.
const LONGEST_NAME: usize = 64;

/// Whether every tag is closed in the right order, except those whose end tag is optional.
pub(super) fn is_whole_html(html: &str) -> bool {
    let mut open = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            let Some(end) = comment.find("-->") else { return false };
            rest = &comment[end..];
            continue;
        }
        let Some(tag) = Tag::before(rest) else { continue };
        let Some(length) = tag.length else { return false };
        if !tag.closes {
            let closes_itself = rest[..length].ends_with('/');
            open.extend((!closes_itself).then_some(tag.element));
        } else if !close(&mut open, tag.element) {
            return false;
        }
        rest = &rest[length..];
    }
    open.iter().all(|element| ENDING_BY_THEMSELVES.contains(element))
}

/// Closes `element` and the elements in it whose end tag is optional; false if it cannot be closed here.
fn close(open: &mut Vec<&str>, element: &str) -> bool {
    while let Some(innermost) = open.pop() {
        if innermost == element {
            return true;
        }
        if !ENDING_BY_THEMSELVES.contains(&innermost) {
            return false;
        }
    }
    false
}

/// A tag of a known element, starting after its `<`.
struct Tag {
    element: &'static str,
    closes: bool,
    /// Bytes before its `>`; none if the text ends inside the tag.
    length: Option<usize>,
}

impl Tag {
    fn before(rest: &str) -> Option<Self> {
        let name = rest.strip_prefix('/').unwrap_or(rest);
        let length = name.find(|letter: char| !letter.is_ascii_alphanumeric());
        let (name, behind) = name.split_at(length.unwrap_or(name.len()));
        let known = ELEMENTS.into_iter().chain(ENDING_BY_THEMSELVES);
        let element = known.into_iter().find(|element| name.eq_ignore_ascii_case(element))?;
        let is_tag = behind.is_empty()
            || behind.starts_with(|next: char| next.is_ascii_whitespace() || "/>".contains(next));
        let end = end_of_tag(rest);
        (is_tag && !is_comparison(element, behind, end)).then(|| Self {
            element,
            closes: rest.starts_with('/'),
            length: match end {
                TagEnd::At(length) => Some(length),
                TagEnd::Missing | TagEnd::Another => None,
            },
        })
    }
}

/// Whether a `<` followed by `behind` is a comparison on the page: `x <b` and `i <u and v> w`.
fn is_comparison(element: &str, behind: &str, end: TagEnd) -> bool {
    match end {
        TagEnd::Another => true,
        TagEnd::Missing => element.len() == 1,
        // One letter may be a name on the page. In HTML its attributes have values.
        TagEnd::At(_) => {
            let attributes = behind.split('>').next().unwrap_or_default();
            element.len() == 1
                && !attributes.contains('=')
                && attributes.contains(char::is_alphanumeric)
        }
    }
}

/// How a tag ends.
#[derive(Clone, Copy)]
enum TagEnd {
    /// With a `>` at this byte.
    At(usize),
    /// The text ends before the tag.
    Missing,
    /// Another tag begins before it ends.
    Another,
}

/// Finds the end of a tag. A `>` inside quotes does not end it.
fn end_of_tag(rest: &str) -> TagEnd {
    let mut quote = None;
    for (at, character) in rest.char_indices() {
        match (quote, character) {
            (None, '>') => return TagEnd::At(at),
            (None, '<') => return TagEnd::Another,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    TagEnd::Missing
}

/// Whether every `\begin` has its `\end` in the right order, and `$$` come in pairs.
pub(super) fn is_whole_latex(latex: &str) -> bool {
    let mut environments = Vec::new();
    let mut math = Math::None;
    let mut rest = latex;
    while let Some(at) = rest.find(['\\', '$']) {
        rest = &rest[at..];
        if let Some(name) = environment(rest, "\\begin{") {
            environments.push(name);
        } else if let Some(name) = environment(rest, "\\end{") {
            if environments.pop() != Some(name) {
                return false;
            }
        } else if rest.starts_with('\\') {
            // A backslash makes the next character literal, be it a dollar or another backslash.
            rest = &rest[1..];
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
            continue;
        } else {
            let doubled = rest.starts_with("$$");
            rest = &rest[usize::from(doubled && math != Math::Inline)..];
            math = math.toggled(doubled);
        }
        rest = &rest[1..];
    }
    environments.is_empty() && math != Math::Displayed
}

/// The kind of dollars that are open. A single dollar is never an error, because prices have them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Math {
    None,
    Inline,
    Displayed,
}

impl Math {
    const fn toggled(self, doubled: bool) -> Self {
        match (self, doubled) {
            (Self::None, false) => Self::Inline,
            (Self::None, true) | (Self::Displayed, false) => Self::Displayed,
            (Self::Inline, _) | (Self::Displayed, true) => Self::None,
        }
    }
}

/// The name of the environment, if `latex` begins with `start`.
fn environment<'a>(latex: &'a str, start: &str) -> Option<&'a str> {
    let name = latex.strip_prefix(start)?;
    let length = name.bytes().take(LONGEST_NAME).position(|byte| byte == b'}')?;
    Some(&name[..length])
}

/// Whether `json` is one JSON value.
pub(super) fn is_whole_json(json: &str) -> bool {
    let read = json::prefix(json, Spelling::Json);
    read.is_ok_and(|(_, length)| json[length..].trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_every_tag_closed_is_whole() {
        for html in [
            "",
            "<table><tr><td>1 < 2 <3 <Name> <me@example.org></td><TD>a<br>b<br/></td></tr></table>",
            "<table border=\"1\"><tr><td title='a > b' colspan=2></td></tr></table>",
            "<table><tr><td/><td rowspan='2'/></tr></table>",
            "<!DOCTYPE html><html><body><p>x</p><img src=a></body></html>",
        ] {
            assert!(is_whole_html(html), "{html}");
        }
    }

    #[test]
    fn end_tags_that_may_be_left_out_and_signs_of_less_are_no_fault() {
        for html in [
            "<table><tr><td>x <b</td><td>a <b and c</td><td>i <u and v> w</td></tr></table>",
            "<table><thead><tr><th>a<th>b<tbody><tr><td>1<td>2<tr><td>3</table>",
            "<p>one<p>two <i>three</i>",
            "<div><p>a<ul><li>b<li>c</ul></div><dl><dt>d<dd>e</dl>",
            "<html><body><p>a <table><caption>c<tr><td>1</table>",
            "<p><table><tr><td>1</td></tr></table></p>",
            "<!-- <b> <td> --><table></table>",
            "a <p and q<b",
            "x <b",
        ] {
            assert!(is_whole_html(html), "{html}");
        }
        for html in [
            "<table><tr><td>1",
            "<table><tr><td>1<table",
            "<table><tr><td><b>1</td></tr></table>",
            "<p><b>x",
            "<ul><li>a</ol>",
            "<table></table><table bor",
            "<!-- <table></table>",
        ] {
            assert!(!is_whole_html(html), "{html}");
        }
    }

    #[test]
    fn a_table_that_ends_before_its_tags_do_is_not_whole() {
        let whole = "<table><tr><td>1</td><td title=\"x\">2</td></tr></table>";
        for end in 1..whole.len() {
            let is_text = &whole[..end] == "<" || "<table".starts_with(&whole[..end]) && end < 6;
            assert_eq!(is_whole_html(&whole[..end]), is_text, "{}", &whole[..end]);
        }
        assert!(!is_whole_html("<tr><td>a</tr></td>") && !is_whole_html("a</td>"));
    }

    #[test]
    fn latex_is_whole_when_its_environments_and_its_displayed_formulas_are() {
        for latex in [
            r"\begin{document}\begin{tabular}{ll}a & \$5 \\ b\end{tabular}$$x$$\end{document}",
            r"$$ a \$\$ b $$ and $c$$d$",
            "A price of $5",
            r"\\begin{x}",
            "",
        ] {
            assert!(is_whole_latex(latex), "{latex}");
        }
        for latex in [
            r"\begin{document} text",
            r"\begin{a}\begin{b}\end{a}\end{b}",
            r"\end{document}",
            "$$x",
            "x$$ y",
            r"\begin{a}\end{",
        ] {
            assert!(!is_whole_latex(latex), "{latex}");
        }
    }

    #[test]
    fn json_is_whole_when_it_parses() {
        assert!(is_whole_json(" {\"a\": [1, null]}\n"));
        assert!(
            is_whole_json("{\"a\": \"half \\ud83d\"}"),
            "a character is damaged, the markup is whole"
        );
        for json in ["{\"a\": [1", "{} {}", "prose", ""] {
            assert!(!is_whole_json(json), "{json}");
        }
    }
}
