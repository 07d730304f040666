//! Finds out whether a table at the end of a page goes on at the start of the next one.
//!
//! Only what is certain counts, because two tables that become one are worse than one table in two parts. All of this
//! must hold:
//!
//! - The page ends with the table, and the next begins with the other, in the same notation: Markdown with pipes, or
//!   HTML with all its end tags.
//! - Each row of both has the same number of columns. No cell reaches over the page break.
//! - The last row before the page break is no total.
//! - The first row of the second table repeats that of the first, and is then left out; or it is certainly no header:
//!   Markdown rows without a header above them or with an empty one, or HTML cells `td` where the first table marks its
//!   header with `th`.
//!
//! A row is left out only if both tables mark it as a header and it has no digit, because a first row of data may be
//! equal by chance. A repeated header does not count if the first page begins with its table, as the second page does:
//! such pages may be bound together, each with a table of its own.

/// The most columns of a table that is joined.
const MOST_COLUMNS: usize = 100;

/// Words in lower case. The row of a total has one of them.
const TOTALS: [&str; 16] = [
    "total",
    "totaal",
    "summe",
    "somme",
    "gesamt",
    "razem",
    "celkem",
    "итого",
    "合计",
    "合計",
    "总计",
    "總計",
    "小计",
    "小計",
    "합계",
    "jumlah",
];

/// A table at the end of a page.
#[derive(Debug)]
pub(super) struct EndingTable {
    notation: TableNotation,
    columns: usize,
    first_row: Row,
    /// Whether nothing stands before it on its page.
    begins_page: bool,
    ends_in_total: bool,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableNotation {
    Pipes,
    Html,
}

/// The first row of a table.
#[derive(Debug, Clone)]
struct Row {
    /// Its cells, with single spaces and without emphasis.
    cells: Vec<String>,
    /// Whether it is marked as a header.
    is_header: bool,
}

/// Further rows of a table, at the start of the next page.
#[derive(Debug)]
pub(super) struct FurtherRows {
    /// The rows, as they are inserted behind those of the table.
    pub(super) rows: String,
    /// Where the table ends in the text of the page.
    pub(super) end: usize,
}

impl EndingTable {
    /// The table at the end of `text`, and where its rows end.
    pub(super) fn of(text: &str) -> Option<(Self, usize)> {
        pipes_at_end(text).or_else(|| html_at_end(text))
    }

    /// Adds the rows of this table with which the next page begins.
    pub(super) fn continued_by(&mut self, text: &str) -> Option<FurtherRows> {
        let next = match self.notation {
            TableNotation::Pipes => pipes_at_start(text),
            TableNotation::Html => html_at_start(text),
        }?;
        if next.columns != self.columns || self.ends_in_total {
            return None;
        }
        let skipped = match &next.first_row {
            None => 0,
            Some(first) if first.is_blank() => match self.notation {
                TableNotation::Pipes => 1,
                TableNotation::Html => return None,
            },
            Some(first) if first.cells == self.first_row.cells => {
                let is_certain = self.first_row.is_certain_header() && first.is_certain_header();
                (is_certain && !self.begins_page).then_some(1)?
            }
            Some(first) if self.notation == TableNotation::Html => {
                let is_data = self.first_row.is_header && !first.is_header;
                is_data.then_some(0)?
            }
            Some(_) => return None,
        };
        // A header in several rows is not repeated by its first row alone.
        if next.header_rows > skipped {
            return None;
        }
        if next.rows.len() > skipped {
            self.ends_in_total = next.ends_in_total;
        }
        let rows = next.rows.into_iter().skip(skipped);
        Some(FurtherRows { rows: rows.flat_map(|row| ["\n", row]).collect(), end: next.end })
    }
}

impl Row {
    fn of<'a>(cells: impl IntoIterator<Item = &'a str>, is_header: bool) -> Self {
        Self { cells: cells.into_iter().map(plain).collect(), is_header }
    }

    /// Whether it is marked as a header and has no digit, as data have.
    fn is_certain_header(&self) -> bool {
        self.is_header && !self.cells.iter().any(|cell| cell.contains(char::is_numeric))
    }

    fn is_blank(&self) -> bool {
        self.cells.iter().all(String::is_empty)
    }
}

/// The text of a cell with single spaces and without emphasis around it.
fn plain(cell: &str) -> String {
    let words: Vec<_> = cell.trim().trim_matches('*').split_whitespace().collect();
    words.join(" ")
}

/// Whether these cells look like a total.
fn is_total<'a>(cells: impl IntoIterator<Item = &'a str>) -> bool {
    cells.into_iter().any(|cell| {
        let cell = cell.to_lowercase();
        TOTALS.iter().any(|word| cell.contains(word))
    })
}

/// A table at the start of a page.
#[derive(Debug)]
struct BeginningTable<'a> {
    columns: usize,
    /// None if the rows have no header above them, as Markdown tables must have.
    first_row: Option<Row>,
    /// How many rows are marked as its header.
    header_rows: usize,
    /// All rows, as they are written. The line below a Markdown header is none.
    rows: Vec<&'a str>,
    ends_in_total: bool,
    end: usize,
}

/// The cells of a Markdown row (GitHub Flavored Markdown, "Tables") that has a pipe at both ends.
fn pipe_cells(line: &str) -> Option<Vec<&str>> {
    let indent = line.len() - line.trim_start_matches(' ').len();
    // More spaces make it code.
    let row = line.trim().strip_prefix('|').filter(|_| indent <= 3)?.strip_suffix('|')?;
    let (mut cells, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (at, byte) in row.bytes().enumerate() {
        if byte == b'|' && !is_escaped {
            cells.push(row[start..at].trim());
            start = at + 1;
        }
        is_escaped = byte == b'\\';
    }
    // The last pipe was an escaped one.
    if is_escaped || cells.len() >= MOST_COLUMNS {
        return None;
    }
    cells.push(row[start..].trim());
    Some(cells)
}

/// Whether these are the cells of the line below a header.
fn is_delimiter(cells: &[&str]) -> bool {
    cells.iter().all(|cell| {
        let dashes = cell.strip_prefix(':').unwrap_or(cell);
        let dashes = dashes.strip_suffix(':').unwrap_or(dashes);
        !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
    })
}

/// The fence of code that a line begins, or ends if it is bare: its character, and how many there are.
fn fence(line: &str) -> Option<(char, usize, bool)> {
    let line = line.trim();
    let mark = line.chars().next().filter(|mark| "`~".contains(*mark))?;
    let behind = line.trim_start_matches(mark);
    let length = line.len() - behind.len();
    // Backticks behind those of a fence make them a code span.
    let is_fence = length >= 3 && !(mark == '`' && behind.contains('`'));
    is_fence.then_some((mark, length, behind.is_empty()))
}

/// What ends the code or the comment that is open at the end of the text: a line with the indentation of its first
/// line.
pub(super) fn end_of_open_block(text: &str) -> Option<String> {
    let mut comment: Option<&str> = None;
    let code = each_line(text, |line| {
        let Some(line) = line else { return };
        let begins = comment.is_none() && line.trim_start().starts_with("<!--");
        if begins {
            comment = Some(indentation(line));
        }
        if line.contains("-->") {
            comment = None;
        }
    });
    let code = code.map(|(indentation, mark, length)| {
        let fence: String = std::iter::repeat_n(mark, length).collect();
        format!("{indentation}{fence}")
    });
    // A fence in a comment is none.
    comment.map(|indentation| format!("{indentation}-->")).or(code)
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

/// Calls `see` for each line that is not code, and `None` for each that is. Returns the indentation, the character and
/// the length of the fence that is open at the end.
fn each_line<'a>(
    text: &'a str,
    mut see: impl FnMut(Option<&'a str>),
) -> Option<(&'a str, char, usize)> {
    let mut open: Option<(&str, char, usize)> = None;
    for line in text.lines() {
        match (open, fence(line)) {
            (None, None) => see(Some(line)),
            (None, Some((mark, length, _))) => {
                open = Some((indentation(line), mark, length));
                see(None);
            }
            (Some((_, mark, least)), Some((other, length, true)))
                if mark == other && length >= least =>
            {
                open = None;
                see(None);
            }
            (Some(_), _) => see(None),
        }
    }
    open
}

/// A Markdown table while its lines are read.
struct PipeTable<'a> {
    header: Vec<&'a str>,
    is_even: bool,
    begins_page: bool,
    ends_in_total: bool,
}

fn pipes_at_end(text: &str) -> Option<(EndingTable, usize)> {
    let mut table: Option<PipeTable<'_>> = None;
    let mut before: Option<Vec<&str>> = None;
    let mut lines = 0_usize;
    each_line(text, |line| {
        lines += 1;
        let cells = line.and_then(pipe_cells);
        match (&mut table, cells) {
            (Some(table), Some(cells)) => {
                table.is_even &= cells.len() == table.header.len();
                table.ends_in_total = is_total(cells);
            }
            (None, Some(cells)) => {
                let header = before.take().filter(|header| header.len() == cells.len());
                match header.filter(|_| is_delimiter(&cells)) {
                    Some(header) => {
                        let begins_page = lines == 2;
                        let (is_even, ends_in_total) = (true, false);
                        table = Some(PipeTable { header, is_even, begins_page, ends_in_total });
                    }
                    None => before = Some(cells),
                }
            }
            (_, None) => (table, before) = (None, None),
        }
    });
    let table = table.filter(|table| table.is_even)?;
    let PipeTable { header, begins_page, ends_in_total, .. } = table;
    let columns = header.len();
    let first_row = Row::of(header, true);
    let notation = TableNotation::Pipes;
    let table = EndingTable { notation, columns, first_row, begins_page, ends_in_total };
    Some((table, text.len()))
}

fn pipes_at_start(text: &str) -> Option<BeginningTable<'_>> {
    let (mut rows, mut delimiters, mut end) = (Vec::new(), Vec::new(), 0);
    let mut ends_in_total = false;
    let mut first: Option<Vec<&str>> = None;
    for line in text.split_inclusive('\n') {
        let Some(cells) = pipe_cells(line) else {
            if !line.trim().is_empty() {
                // Without an empty line before it, this may be a row of the table.
                return None;
            }
            break;
        };
        let columns = first.as_ref().map_or(cells.len(), Vec::len);
        if cells.len() != columns {
            return None;
        }
        if is_delimiter(&cells) {
            delimiters.push(rows.len());
        } else {
            rows.push(line.trim_end_matches(['\r', '\n']));
            ends_in_total = is_total(cells.iter().copied());
        }
        first.get_or_insert(cells);
        end += line.len();
    }
    let first = first?;
    let first_row = match delimiters[..] {
        [] => None,
        [1] => Some(Row::of(first.iter().copied(), true)),
        _ => return None,
    };
    let header_rows = delimiters.len();
    let columns = first.len();
    Some(BeginningTable { columns, first_row, header_rows, rows, ends_in_total, end })
}

fn html_at_end(text: &str) -> Option<(EndingTable, usize)> {
    const START: &str = "<table";
    let is_start = |at: &usize| {
        text[*at..].get(..START.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(START))
    };
    let start = text.rmatch_indices('<').map(|(at, _)| at).find(is_start)?;
    let mut is_code = false;
    each_line(&text[..start], |line| is_code = line.is_none());
    let table = HtmlTable::read(&text[start..]).filter(|_| !is_code)?;
    if start + table.end != text.len() {
        return None;
    }
    let first_row = table.first_row()?;
    let end_of_rows = table.rows.last()?.end;
    let ending = EndingTable {
        notation: TableNotation::Html,
        columns: table.columns,
        first_row,
        begins_page: start == 0,
        ends_in_total: table.ends_in_total(),
    };
    Some((ending, start + end_of_rows))
}

fn html_at_start(text: &str) -> Option<BeginningTable<'_>> {
    let table = HtmlTable::read(text)?;
    let first_row = Some(table.first_row()?);
    Some(BeginningTable {
        columns: table.columns,
        first_row,
        header_rows: table.rows.iter().filter(|row| row.is_in_head).count(),
        rows: table.rows.iter().map(|row| &text[row.start..row.end]).collect(),
        ends_in_total: table.ends_in_total(),
        end: table.end,
    })
}

/// An HTML table without captions and tables in it, with all end tags.
#[derive(Debug)]
struct HtmlTable<'a> {
    rows: Vec<HtmlRow<'a>>,
    columns: usize,
    end: usize,
}

#[derive(Debug)]
struct HtmlRow<'a> {
    start: usize,
    end: usize,
    cells: Vec<HtmlCell<'a>>,
    is_in_head: bool,
}

#[derive(Debug)]
struct HtmlCell<'a> {
    content: &'a str,
    is_header: bool,
    columns: usize,
    rows: usize,
}

/// The elements that tables consist of.
const PARTS: [&str; 10] =
    ["table", "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "td", "th"];

/// A tag of a table.
#[derive(Debug)]
struct TableTag<'a> {
    element: &'static str,
    closes: bool,
    attributes: &'a str,
    start: usize,
    end: usize,
}

/// The next tag of a table from `at`.
fn next_tag(text: &str, mut at: usize) -> Option<TableTag<'_>> {
    loop {
        let start = at + text[at..].find('<')?;
        let behind = &text[start + 1..];
        let closes = behind.starts_with('/');
        let name = &behind[usize::from(closes)..];
        let length = name.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(name.len());
        let element = PARTS.into_iter().find(|part| name[..length].eq_ignore_ascii_case(part));
        let Some(element) = element else {
            at = start + 1;
            continue;
        };
        let attributes = &name[length..];
        let length = attributes.find('>')?;
        let end = text.len() - attributes.len() + length + 1;
        return Some(TableTag { element, closes, attributes: &attributes[..length], start, end });
    }
}

impl TableTag<'_> {
    /// The number in an attribute; 1 without it. `None` if it is no number that a table that is joined may have.
    fn span(&self, name: &str) -> Option<usize> {
        let attributes = self.attributes.to_ascii_lowercase();
        let Some((_, value)) = attributes.split_once(name) else { return Some(1) };
        let value = value.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let digits = value.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(value.len());
        value[..digits].parse().ok().filter(|span| (1..=MOST_COLUMNS).contains(span))
    }
}

impl<'a> HtmlTable<'a> {
    /// Reads the table with which `text` begins.
    fn read(text: &'a str) -> Option<Self> {
        let first = next_tag(text, 0)?;
        if first.start != 0 || first.element != "table" || first.closes {
            return None;
        }
        let (mut at, mut is_in_head, mut rows) = (first.end, false, Vec::new());
        loop {
            let tag = next_tag(text, at)?;
            if !text[at..tag.start].trim().is_empty() {
                return None;
            }
            at = tag.end;
            match (tag.element, tag.closes) {
                ("table", true) => break,
                ("thead", closes) => is_in_head = !closes,
                ("tbody", _) => {}
                ("tr", false) => {
                    let (cells, end) = read_cells(text, at)?;
                    rows.push(HtmlRow { start: tag.start, end, cells, is_in_head });
                    at = end;
                }
                _ => return None,
            }
        }
        let columns = columns(&rows)?;
        Some(Self { rows, columns, end: at })
    }

    fn first_row(&self) -> Option<Row> {
        let first = self.rows.first()?;
        // A row of data may begin with a `th`.
        let mut filled = first.cells.iter().filter(|cell| !cell.content.trim().is_empty());
        let is_header = first.is_in_head || filled.all(|cell| cell.is_header);
        Some(Row::of(first.cells.iter().map(|cell| cell.content), is_header))
    }

    fn ends_in_total(&self) -> bool {
        self.rows.last().is_some_and(|row| is_total(row.cells.iter().map(|cell| cell.content)))
    }
}

/// The cells of a row from `at`, and where its end tag ends.
fn read_cells(text: &str, mut at: usize) -> Option<(Vec<HtmlCell<'_>>, usize)> {
    let mut cells = Vec::new();
    loop {
        let tag = next_tag(text, at)?;
        if !text[at..tag.start].trim().is_empty() {
            return None;
        }
        match (tag.element, tag.closes) {
            ("tr", true) => return Some((cells, tag.end)),
            ("td" | "th", false) => {}
            _ => return None,
        }
        let end = next_tag(text, tag.end).filter(|end| end.closes && end.element == tag.element)?;
        cells.push(HtmlCell {
            content: &text[tag.end..end.start],
            is_header: tag.element == "th",
            columns: tag.span("colspan")?,
            rows: tag.span("rowspan")?,
        });
        at = end.end;
    }
}

/// The number of columns, if it is the same in all rows and no cell reaches past the last one.
fn columns(rows: &[HtmlRow<'_>]) -> Option<usize> {
    // For each column, how many rows the cell above still reaches into.
    let mut above: Vec<usize> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut next = Vec::new();
        let free = |next: &mut Vec<usize>| {
            while let Some(&rows) = above.get(next.len()).filter(|&&rows| rows > 0) {
                next.push(rows - 1);
            }
        };
        for cell in &row.cells {
            free(&mut next);
            next.extend(std::iter::repeat_n(cell.rows - 1, cell.columns));
            if next.len() > MOST_COLUMNS {
                return None;
            }
        }
        free(&mut next);
        if number > 0 && next.len() != above.len() {
            return None;
        }
        above = next;
    }
    (!above.is_empty() && above.iter().all(|&rows| rows == 0)).then_some(above.len())
}
