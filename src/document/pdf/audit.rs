//! What drawing a page takes, found before it is drawn: operators of its content, and the pixels of its pictures.
//!
//! A page of a few hundred bytes can draw for years, when ten forms draw each other ten times. Each stream is parsed
//! once. How often it is drawn follows from the graph of streams, so the sum is exact and cheap. What hayro repeats of
//! its own accord counts too: the cells of a pattern, the dashes of a line, and the glyphs of a font that is drawn by
//! operators.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::mem;

use hayro::hayro_syntax::Filter;
use hayro::hayro_syntax::content::TypedIter;
use hayro::hayro_syntax::content::ops::TypedInstruction;
use hayro::hayro_syntax::object::{Array, Dict, Name, Number, Object, Rect, Stream};
use hayro::hayro_syntax::page::{Page, Resources};

use super::limits::Limits;
use super::streams::{self, TooLong};
use crate::document::error::{DocumentError, Resource};

/// How deep hayro draws streams within streams.
const DEEPEST: usize = 50;

/// The most bytes of operators of a page, once each stream is decoded.
const MOST_CONTENT: u64 = 64 << 20;

/// What hayro does not draw: hidden annotations, and those that are not for the screen.
const HIDDEN: u32 = 1 << 1 | 1 << 5;

/// What drawing a page takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Audit {
    /// The operators that are carried out.
    pub(super) operators: u64,
    /// Whether a picture in JPEG is among what is drawn.
    pub(super) has_jpeg: bool,
}

/// Audits a page.
///
/// # Errors
///
/// [`DocumentError::PageTooLarge`] for a picture with too many pixels, [`DocumentError::TooComplex`] for too many
/// operators or bytes of them.
pub(super) fn audit(page: &Page<'_>, limits: Limits) -> Result<Audit, DocumentError> {
    let mut auditor = Auditor::new(limits);
    auditor.page(page)?;
    while let Some(unread) = auditor.unread.pop() {
        let content = auditor.decoded(&unread.stream)?;
        auditor.read(unread.node, &content, &unread.resources)?;
    }
    let operators = auditor.operators();
    if operators > limits.operators {
        return Err(too_many_operators(Some(operators), limits));
    }
    Ok(Audit { operators, has_jpeg: auditor.has_jpeg })
}

fn too_many_operators(actual: Option<u64>, limits: Limits) -> DocumentError {
    DocumentError::TooComplex { resource: Resource::Objects, actual, allowed: limits.operators }
}

fn too_long() -> DocumentError {
    DocumentError::TooComplex { resource: Resource::Memory, actual: None, allowed: MOST_CONTENT }
}

/// Where a stream or a dictionary lies. It is unique within a file, and known without decrypting anything.
type Place = *const u8;

/// Resources that a stream does not have itself are those of the stream that draws it, so it is a node for each.
type Key = (Place, Place);

/// A stream of operators, or a font whose glyphs are such streams.
#[derive(Default)]
struct Node {
    /// Operators of the stream itself.
    own: u64,
    /// What it draws, and how often.
    draws: HashMap<usize, u64>,
    /// Whether one of what it draws is drawn, not all: the glyphs of a font.
    is_choice: bool,
}

/// A stream whose operators are not counted yet.
struct Unread<'a> {
    node: usize,
    stream: Stream<'a>,
    resources: Scope<'a>,
}

/// Resources, and where they lie.
#[derive(Clone)]
struct Scope<'a> {
    place: Place,
    resources: Resources<'a>,
}

struct Auditor<'a> {
    limits: Limits,
    nodes: Vec<Node>,
    known: HashMap<Key, usize>,
    pictures: HashSet<Place>,
    unread: Vec<Unread<'a>>,
    /// Bytes of operators that were decoded.
    content: u64,
    /// Operators that were parsed.
    parsed: u64,
    has_jpeg: bool,
}

impl<'a> Auditor<'a> {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: Vec::new(),
            known: HashMap::new(),
            pictures: HashSet::new(),
            unread: Vec::new(),
            content: 0,
            parsed: 0,
            has_jpeg: false,
        }
    }

    fn page(&mut self, page: &Page<'a>) -> Result<(), DocumentError> {
        self.nodes.push(Node::default());
        let scope =
            Scope { place: page.raw().data().as_ptr(), resources: page.resources().clone() };
        for stream in content_streams(page) {
            streams::check(&stream, MOST_CONTENT).map_err(|TooLong| too_long())?;
        }
        // hayro decodes all streams of the page at once, and keeps them.
        let content = page.page_stream().unwrap_or_default();
        self.content = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if self.content > MOST_CONTENT {
            return Err(too_long());
        }
        self.read(0, content, &scope)?;
        let annotations = page.raw().get::<Array<'_>>(b"Annots");
        for annotation in annotations.iter().flat_map(Array::iter::<Dict<'_>>) {
            self.count(0, 1)?;
            if let Some(appearance) = appearance(&annotation) {
                self.draws(0, &appearance, &scope, 1);
            }
        }
        Ok(())
    }

    /// Decodes a stream, and counts its bytes.
    fn decoded(&mut self, stream: &Stream<'a>) -> Result<Cow<'a, [u8]>, DocumentError> {
        let left = MOST_CONTENT.saturating_sub(self.content);
        let decoded = streams::decoded(stream, left).map_err(|TooLong| too_long())?;
        self.content = self.content.saturating_add(u64::try_from(decoded.len()).unwrap_or(left));
        Ok(decoded)
    }

    /// Adds operators to a node.
    fn count(&mut self, node: usize, operators: u64) -> Result<(), DocumentError> {
        self.parsed = self.parsed.saturating_add(operators);
        self.nodes[node].own = self.nodes[node].own.saturating_add(operators);
        if self.parsed > self.limits.operators {
            return Err(too_many_operators(None, self.limits));
        }
        Ok(())
    }

    /// Notes that a node draws a stream so many times.
    fn draws(&mut self, node: usize, stream: &Stream<'a>, scope: &Scope<'a>, times: u64) {
        let child = self.stream(stream, scope);
        self.draws_node(node, child, times);
    }

    fn draws_node(&mut self, node: usize, child: usize, times: u64) {
        let drawn = self.nodes[node].draws.entry(child).or_default();
        *drawn = drawn.saturating_add(times);
    }

    /// The node of a stream that is drawn with the resources of `scope`, unless it has its own.
    fn stream(&mut self, stream: &Stream<'a>, scope: &Scope<'a>) -> usize {
        let place = stream.dict().data().as_ptr();
        let own = stream.dict().get::<Dict<'a>>(b"Resources");
        let key = (place, if own.is_some() { place } else { scope.place });
        if let Some(node) = self.known.get(&key) {
            return *node;
        }
        let node = self.node(key);
        let resources = match own {
            Some(own) => Scope { place, resources: Resources::new(own) },
            None => scope.clone(),
        };
        self.unread.push(Unread { node, stream: stream.clone(), resources });
        node
    }

    fn node(&mut self, key: Key) -> usize {
        self.nodes.push(Node::default());
        let node = self.nodes.len().saturating_sub(1);
        self.known.insert(key, node);
        node
    }

    /// The node of a font whose glyphs are streams of operators.
    fn font(&mut self, font: &Dict<'a>, scope: &Scope<'a>) -> Option<usize> {
        if font.get::<Name<'_>>(b"Subtype")?.as_ref() != b"Type3" {
            return None;
        }
        let place = font.data().as_ptr();
        let own = font.get::<Dict<'a>>(b"Resources");
        let key = (place, if own.is_some() { place } else { scope.place });
        if let Some(node) = self.known.get(&key) {
            return Some(*node);
        }
        let node = self.node(key);
        self.nodes[node].is_choice = true;
        let resources = match own {
            Some(own) => Scope { place, resources: Resources::new(own) },
            None => scope.clone(),
        };
        let glyphs = font.get::<Dict<'a>>(b"CharProcs").unwrap_or_default();
        for name in glyphs.keys() {
            if let Some(glyph) = glyphs.get::<Stream<'a>>(&name) {
                self.draws(node, &glyph, &resources, 1);
            }
        }
        Some(node)
    }

    /// Checks the pixels of a picture and of its masks.
    fn picture(&mut self, stream: &Stream<'_>) -> Result<(), DocumentError> {
        let dict = stream.dict();
        if !self.pictures.insert(dict.data().as_ptr()) {
            return Ok(());
        }
        let actual = declared_pixels(stream);
        let allowed = self.limits.pixels.get();
        if actual > allowed {
            return Err(DocumentError::PageTooLarge { actual, allowed });
        }
        self.has_jpeg |= stream.filters().contains(&Filter::DctDecode);
        for mask in [b"SMask".as_slice(), b"Mask"] {
            if let Some(mask) = dict.get::<Stream<'_>>(mask) {
                self.picture(&mask)?;
            }
        }
        Ok(())
    }

    /// Counts the operators of a stream, and notes what they draw.
    fn read(
        &mut self,
        node: usize,
        content: &[u8],
        scope: &Scope<'a>,
    ) -> Result<(), DocumentError> {
        let mut names = Names::default();
        let mut state = State::default();
        let mut saved = Vec::new();
        let mut path = Outline::default();
        let mut operators = TypedIter::new(content);
        while let Some(operator) = operators.next() {
            self.count(node, 1)?;
            match operator {
                TypedInstruction::SaveState(_) => saved.push(state),
                TypedInstruction::RestoreState(_) => state = saved.pop().unwrap_or_default(),
                TypedInstruction::XObject(name) => {
                    self.x_object(node, name.0, scope, &mut names)?;
                }
                TypedInstruction::InlineImage(image) => self.picture(image.0)?,
                TypedInstruction::DashPattern(dash) => {
                    state.dash = Dash::of(dash.0, dash.1.as_f64());
                }
                TypedInstruction::SetGraphicsState(name) => {
                    state.dash = names.dash(name.0, scope).or(state.dash);
                    if let Some(mask) = names.mask(self, name.0, scope) {
                        self.nodes[node].draws.entry(mask).or_insert(1);
                    }
                }
                TypedInstruction::TextFont(font) => state.font = names.font(self, font.0, scope),
                TypedInstruction::NonStrokeColorNamed(color) => {
                    state.fill = color.1.and_then(|name| names.pattern(self, name, scope));
                }
                TypedInstruction::StrokeColorNamed(color) => {
                    state.stroke = color.1.and_then(|name| names.pattern(self, name, scope));
                }
                other => {
                    if path.is_stroked_by(&other) {
                        self.count(node, state.dash.map_or(0, |dash| dash.pieces(path.length)))?;
                    }
                    path.follow(&other);
                    for (child, times) in state.drawn_by(&other).into_iter().flatten() {
                        self.draws_node(node, child, times);
                    }
                }
            }
        }
        Ok(())
    }

    fn x_object(
        &mut self,
        node: usize,
        name: &Name<'_>,
        scope: &Scope<'a>,
        names: &mut Names<'a>,
    ) -> Result<(), DocumentError> {
        let known = names.x_objects.entry(name.as_ref().to_vec());
        let drawn = known.or_insert_with(|| scope.resources.get_x_object(name)).clone();
        let Some(stream) = drawn else { return Ok(()) };
        match stream.dict().get::<Name<'_>>(b"Subtype").as_deref() {
            Some(b"Image") => self.picture(&stream),
            Some(b"Form") => {
                self.draws(node, &stream, scope, 1);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The operators that drawing the page carries out.
    fn operators(&self) -> u64 {
        // From the inside out: what a node takes that may draw `depth` levels of others.
        let mut taken = vec![0; self.nodes.len()];
        for _ in 0..DEEPEST {
            let outer = self.nodes.iter().map(|node| node.taken(&taken)).collect();
            if mem::replace(&mut taken, outer) == taken {
                break;
            }
        }
        taken.first().copied().unwrap_or_default()
    }
}

impl Node {
    /// The operators it takes, where its children take `inner`.
    fn taken(&self, inner: &[u64]) -> u64 {
        let drawn = self.draws.iter().map(|(child, times)| inner[*child].saturating_mul(*times));
        let drawn = if self.is_choice {
            drawn.max().unwrap_or_default()
        } else {
            drawn.fold(0, u64::saturating_add)
        };
        self.own.saturating_add(drawn)
    }
}

/// What names of a stream stand for. A stream may use one name a hundred thousand times.
#[derive(Default)]
struct Names<'a> {
    x_objects: HashMap<Vec<u8>, Option<Stream<'a>>>,
    fonts: HashMap<Vec<u8>, Option<usize>>,
    masks: HashMap<Vec<u8>, Option<usize>>,
    dashes: HashMap<Vec<u8>, Option<Dash>>,
    patterns: HashMap<Vec<u8>, Option<Pattern>>,
}

impl<'a> Names<'a> {
    fn font(
        &mut self,
        auditor: &mut Auditor<'a>,
        name: &Name<'_>,
        scope: &Scope<'a>,
    ) -> Option<usize> {
        *self.fonts.entry(name.as_ref().to_vec()).or_insert_with(|| {
            let font = scope.resources.get_font(name)?;
            auditor.font(&font, scope)
        })
    }

    fn dash(&mut self, name: &Name<'_>, scope: &Scope<'a>) -> Option<Dash> {
        *self.dashes.entry(name.as_ref().to_vec()).or_insert_with(|| {
            let state = scope.resources.get_ext_g_state(name)?;
            let dash = state.get::<Array<'_>>(b"D")?;
            let mut parts = dash.iter::<Object<'_>>();
            let lengths = parts.next()?.into_array()?;
            Dash::of(&lengths, parts.next().and_then(Object::into_number)?.as_f64())
        })
    }

    fn mask(
        &mut self,
        auditor: &mut Auditor<'a>,
        name: &Name<'_>,
        scope: &Scope<'a>,
    ) -> Option<usize> {
        *self.masks.entry(name.as_ref().to_vec()).or_insert_with(|| {
            let state = scope.resources.get_ext_g_state(name)?;
            let group = state.get::<Dict<'a>>(b"SMask")?.get::<Stream<'a>>(b"G")?;
            Some(auditor.stream(&group, scope))
        })
    }

    fn pattern(
        &mut self,
        auditor: &mut Auditor<'a>,
        name: &Name<'_>,
        scope: &Scope<'a>,
    ) -> Option<Pattern> {
        *self.patterns.entry(name.as_ref().to_vec()).or_insert_with(|| {
            let Object::Stream(stream) = scope.resources.get_pattern(name)? else { return None };
            let cells = cells(stream.dict())?;
            Some(Pattern { node: auditor.stream(&stream, scope), cells })
        })
    }
}

/// A pattern that is drawn for each painted path.
#[derive(Clone, Copy)]
struct Pattern {
    node: usize,
    /// How often its cell is drawn.
    cells: u64,
}

/// What paths and text are painted with.
#[derive(Clone, Copy, Default)]
struct State {
    fill: Option<Pattern>,
    stroke: Option<Pattern>,
    dash: Option<Dash>,
    font: Option<usize>,
}

/// The dashes of a line. hayro draws each, also far outside the page.
#[derive(Clone, Copy)]
struct Dash {
    /// The length after which they repeat, in units of the page as the path.
    period: f64,
    pieces: u64,
    /// Where in the dashes a line begins. hayro goes there dash by dash.
    offset: f64,
}

impl Dash {
    fn of(lengths: &Array<'_>, offset: f64) -> Option<Self> {
        let lengths: Vec<f64> = lengths.iter::<f32>().map(f64::from).collect();
        let pieces = u64::try_from(lengths.len()).unwrap_or(u64::MAX);
        // Dashes of less than nothing have no end.
        let endless = lengths.iter().any(|length| *length < 0.0);
        // hayro takes 0.01 for 0.
        let period = if endless { 0.0 } else { lengths.iter().map(|it| it.max(0.01)).sum() };
        (pieces > 0).then_some(Self { period, pieces, offset })
    }

    /// How many pieces make up so long a line.
    fn pieces(self, length: f64) -> u64 {
        ratio(length + self.offset.abs(), self.period).saturating_mul(self.pieces)
    }
}

/// The path that is being constructed.
#[derive(Default)]
struct Outline {
    /// At least its length.
    length: f64,
    start: (f64, f64),
    at: (f64, f64),
}

impl Outline {
    fn follow(&mut self, operator: &TypedInstruction<'_, '_>) {
        let point = |x: &Number, y: &Number| (x.as_f64(), y.as_f64());
        match operator {
            TypedInstruction::MoveTo(to) => {
                self.start = point(&to.0, &to.1);
                self.at = self.start;
            }
            TypedInstruction::LineTo(to) => self.line(point(&to.0, &to.1)),
            TypedInstruction::CubicTo(to) => {
                self.line(point(&to.0, &to.1));
                self.line(point(&to.2, &to.3));
                self.line(point(&to.4, &to.5));
            }
            TypedInstruction::CubicStartTo(to) => {
                self.line(point(&to.0, &to.1));
                self.line(point(&to.2, &to.3));
            }
            TypedInstruction::CubicEndTo(to) => {
                self.line(point(&to.0, &to.1));
                self.line(point(&to.2, &to.3));
            }
            TypedInstruction::RectPath(sides) => {
                self.length += 2.0 * (sides.2.as_f64().abs() + sides.3.as_f64().abs());
            }
            TypedInstruction::ClosePath(_) => self.line(self.start),
            painting if is_end_of_path(painting) => *self = Self::default(),
            _ => {}
        }
    }

    fn line(&mut self, to: (f64, f64)) {
        self.length += (to.0 - self.at.0).abs() + (to.1 - self.at.1).abs();
        self.at = to;
    }

    fn is_stroked_by(&self, operator: &TypedInstruction<'_, '_>) -> bool {
        let stroked = matches!(
            operator,
            TypedInstruction::StrokePath(_)
                | TypedInstruction::CloseAndStrokePath(_)
                | TypedInstruction::FillAndStrokeEvenOdd(_)
                | TypedInstruction::FillAndStrokeNonZero(_)
                | TypedInstruction::CloseFillAndStrokeEvenOdd(_)
                | TypedInstruction::CloseFillAndStrokeNonZero(_)
        );
        stroked && self.length > 0.0
    }
}

fn is_end_of_path(operator: &TypedInstruction<'_, '_>) -> bool {
    matches!(
        operator,
        TypedInstruction::EndPath(_)
            | TypedInstruction::FillPathNonZero(_)
            | TypedInstruction::FillPathNonZeroCompatibility(_)
            | TypedInstruction::FillPathEvenOdd(_)
            | TypedInstruction::StrokePath(_)
            | TypedInstruction::CloseAndStrokePath(_)
            | TypedInstruction::FillAndStrokeEvenOdd(_)
            | TypedInstruction::FillAndStrokeNonZero(_)
            | TypedInstruction::CloseFillAndStrokeEvenOdd(_)
            | TypedInstruction::CloseFillAndStrokeNonZero(_)
    )
}

impl State {
    /// The nodes that an operator draws, and how often.
    fn drawn_by(&mut self, operator: &TypedInstruction<'_, '_>) -> [Option<(usize, u64)>; 2] {
        let painted = |pattern: Option<Pattern>| pattern.map(|it| (it.node, it.cells));
        match operator {
            TypedInstruction::FillPathNonZero(_)
            | TypedInstruction::FillPathNonZeroCompatibility(_)
            | TypedInstruction::FillPathEvenOdd(_) => [painted(self.fill), None],
            TypedInstruction::StrokePath(_) | TypedInstruction::CloseAndStrokePath(_) => {
                [None, painted(self.stroke)]
            }
            TypedInstruction::FillAndStrokeNonZero(_)
            | TypedInstruction::FillAndStrokeEvenOdd(_)
            | TypedInstruction::CloseFillAndStrokeNonZero(_)
            | TypedInstruction::CloseFillAndStrokeEvenOdd(_) => {
                [painted(self.fill), painted(self.stroke)]
            }
            TypedInstruction::ShowText(text) => self.text(text.0.len()),
            TypedInstruction::NextLineAndShowText(text) => self.text(text.0.len()),
            TypedInstruction::ShowTextWithParameters(text) => self.text(text.2.len()),
            TypedInstruction::ShowTexts(texts) => {
                let strings = texts.0.iter::<Object<'_>>().filter_map(Object::into_string);
                self.text(strings.map(|text| text.len()).sum())
            }
            TypedInstruction::NonStrokeColor(_)
            | TypedInstruction::NonStrokeColorDeviceGray(_)
            | TypedInstruction::NonStrokeColorDeviceRgb(_)
            | TypedInstruction::NonStrokeColorCmyk(_)
            | TypedInstruction::ColorSpaceNonStroke(_) => {
                self.fill = None;
                [None; 2]
            }
            TypedInstruction::StrokeColor(_)
            | TypedInstruction::StrokeColorDeviceGray(_)
            | TypedInstruction::StrokeColorDeviceRgb(_)
            | TypedInstruction::StrokeColorCmyk(_)
            | TypedInstruction::ColorSpaceStroke(_) => {
                self.stroke = None;
                [None; 2]
            }
            _ => [None; 2],
        }
    }

    /// What text of so many bytes draws: each byte may be a glyph, and each glyph is painted.
    fn text(self, bytes: usize) -> [Option<(usize, u64)>; 2] {
        let glyphs = u64::try_from(bytes).unwrap_or(u64::MAX);
        let painted = self.fill.map(|it| (it.node, it.cells.saturating_mul(glyphs)));
        [self.font.map(|font| (font, glyphs)), painted]
    }
}

/// How often hayro draws the cell of a pattern: a cell that is wider than its step overlaps others.
fn cells(pattern: &Dict<'_>) -> Option<u64> {
    let cell = pattern.get::<Rect>(b"BBox")?;
    let steps = |side: f64, step: f32| ratio(side, f64::from(step.abs()));
    let across = steps(cell.width(), pattern.get::<f32>(b"XStep")?);
    let down = steps(cell.height(), pattern.get::<f32>(b"YStep")?);
    Some(across.saturating_mul(down))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the ratio is at least 1, and one that does not fit is the largest count"
)]
fn ratio(side: f64, step: f64) -> u64 {
    (side / step).ceil().max(1.0) as u64
}

/// The streams that a page's content consists of.
fn content_streams<'a>(page: &Page<'a>) -> Vec<Stream<'a>> {
    let contents = page.raw().get::<Object<'a>>(b"Contents");
    match contents {
        Some(Object::Stream(stream)) => vec![stream],
        Some(Object::Array(streams)) => streams.iter::<Stream<'a>>().collect(),
        _ => Vec::new(),
    }
}

/// The stream that a viewer draws for an annotation.
fn appearance<'a>(annotation: &Dict<'a>) -> Option<Stream<'a>> {
    if annotation.get::<u32>(b"F").unwrap_or_default() & HIDDEN != 0 {
        return None;
    }
    match annotation.get::<Dict<'a>>(b"AP")?.get::<Object<'a>>(b"N")? {
        Object::Stream(stream) => Some(stream),
        Object::Dict(states) => {
            let chosen = annotation.get::<Name<'_>>(b"AS");
            let chosen = chosen.and_then(|state| states.get::<Stream<'a>>(&state));
            chosen.or_else(|| states.get::<Stream<'a>>(b"Off"))
        }
        _ => None,
    }
}

/// The pixels that hayro decodes of a picture, by its dictionary and by what decides in its data.
fn declared_pixels(stream: &Stream<'_>) -> u64 {
    let dict = stream.dict();
    let side = |short: &[u8], long: &[u8]| {
        dict.get::<u32>(short).or_else(|| dict.get::<u32>(long)).unwrap_or_default()
    };
    let (width, height) = (side(b"W", b"Width"), side(b"H", b"Height"));
    let declared = u64::from(width).saturating_mul(height.into());
    let decoded = match stream.filters().last() {
        Some(Filter::CcittFaxDecode) => u64::from(fax_columns(dict)).saturating_mul(height.into()),
        Some(Filter::JpxDecode) => jpeg_2000_pixels(&stream.raw_data()),
        Some(Filter::Jbig2Decode) => jbig2_pixels(&stream.raw_data()),
        _ => 0,
    };
    declared.max(decoded)
}

/// The width in which fax data is decoded: the last 32 bits of the number, or 1,728 where there is none.
#[expect(clippy::cast_possible_truncation, reason = "hayro does the same")]
fn fax_columns(dict: &Dict<'_>) -> u32 {
    let columns = |params: &Dict<'_>| params.get::<usize>(b"Columns").unwrap_or(1_728) as u32;
    let of = |key: &[u8]| {
        let single = dict.get::<Dict<'_>>(key);
        let listed = dict.get::<Array<'_>>(key);
        let listed =
            listed.iter().flat_map(Array::iter::<Object<'_>>).filter_map(Object::into_dict);
        single.into_iter().chain(listed).map(|params| columns(&params)).max()
    };
    of(b"DP").max(of(b"DecodeParms")).unwrap_or(1_728)
}

/// The pixels of JPEG 2000 data: they are in its SIZ segment, and decide over the dictionary.
fn jpeg_2000_pixels(data: &[u8]) -> u64 {
    const START: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];
    let Some(start) = memchr::memmem::find(data, &START) else { return 0 };
    // Behind the markers: length, capabilities, then the far and the near edges of the picture.
    let number = |at: usize| be_u32(data, start.saturating_add(4 + 2 + 2 + at)).unwrap_or_default();
    let width = number(0).saturating_sub(number(8));
    let height = number(4).saturating_sub(number(12));
    u64::from(width).saturating_mul(height.into())
}

/// The pixels of JBIG2 data: they are in its page information, which is its first segment.
fn jbig2_pixels(data: &[u8]) -> u64 {
    /// Number of the segment, flags, no other segments, page, length.
    const HEADER: usize = 4 + 1 + 1 + 1 + 4;
    const PAGE_INFORMATION: u8 = 48;
    if data.get(4).is_none_or(|flags| flags & 0x3f != PAGE_INFORMATION) {
        return 0;
    }
    let side = |at: usize| be_u32(data, HEADER + at).unwrap_or_default();
    // A height that is not known yet is written as the largest number.
    let height = if side(4) == u32::MAX { 0 } else { side(4) };
    u64::from(side(0)).saturating_mul(height.into())
}

fn be_u32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}
