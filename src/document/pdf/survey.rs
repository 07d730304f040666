//! What a page shows, found without drawing it: each paint that hayro would draw is looked at instead.

use hayro::hayro_interpret::font::GlyphRun;
use hayro::hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps,
    InterpreterCache, InterpreterSettings, SoftMask, interpret_page,
};
use hayro::hayro_syntax::page::Page;
use hayro::kurbo::{Affine, BezPath, PathEl, Point, Rect, Shape};

use super::marks::{self, Ground, Marks};
use super::page_box::PageBox;
use super::stored;
use crate::document::page::StoredPicture;

/// How far a picture may miss the edges of the page that it fills, in units of the page.
const MARGIN: f64 = 1.5;

/// The largest difference of a picture's resolutions across and down at which the page is the picture, as a share.
const STRETCH: f64 = 0.02;

/// Paints of a page.
pub(super) struct Survey {
    area: Rect,
    clips: Vec<Clip>,
    groups: Vec<bool>,
    /// The picture that fills the page, while nothing is painted over it.
    filling: Option<(StoredPicture, Vec<u8>)>,
    marks: Marks,
}

/// The visible part of the page within a clip.
#[derive(Clone, Copy)]
struct Clip {
    visible: Rect,
    /// Whether the clip is exactly this rectangle.
    exact: bool,
}

impl Survey {
    /// Surveys an audited page.
    pub(super) fn of(page: &Page<'_>, sheet: &PageBox, settings: &InterpreterSettings) -> Self {
        let area = sheet.area();
        let mut survey = Self {
            area,
            clips: Vec::new(),
            groups: Vec::new(),
            filling: None,
            marks: Marks::default(),
        };
        let cache = InterpreterCache::new();
        let mut context = Context::new(sheet.upright, area, &cache, page.xref(), settings.clone());
        interpret_page(page, &mut context, &mut survey);
        survey
    }

    /// The only picture of a page that shows nothing else, if the provider takes it as it is stored, and its file.
    pub(super) fn stored_picture(self) -> Option<(StoredPicture, Vec<u8>)> {
        self.filling
    }

    /// What decides whether the page carries its text.
    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What is visible within all clips.
    fn clip(&self) -> Clip {
        self.clips.last().copied().unwrap_or(Clip { visible: self.area, exact: true })
    }

    /// Notes something that is painted within `bounds`.
    fn paint(&mut self, bounds: Rect) {
        if bounds.overlaps(self.clip().visible) {
            self.filling = None;
        }
    }

    /// Whether what is painted now covers what is below it.
    fn is_plain(&self, soft_mask: Option<&SoftMask<'_>>, blend_mode: BlendMode) -> bool {
        soft_mask.is_none()
            && blend_mode == BlendMode::Normal
            && self.groups.iter().all(|plain| *plain)
    }

    /// Notes a filled shape: what it covers, and whether it may be the outline of a letter.
    fn fill(&mut self, bounds: Rect, is_rectangle: bool, elements: usize, props: &DrawProps<'_>) {
        let seen = bounds.intersect(self.clip().visible);
        if seen.is_zero_area() {
            return;
        }
        // Only a rectangle covers all of its bounds.
        if is_rectangle
            && self.is_plain(props.soft_mask.as_ref(), props.blend_mode)
            && let Some(ground) = marks::opaque(&props.paint)
        {
            self.marks.cover(seen, ground);
        } else if !is_rectangle && marks::lightness(&props.paint).is_some() {
            self.marks.shape(bounds, elements);
        }
    }

    /// Whether a picture so placed is the page: upright, filling it, and not stretched.
    fn fills(&self, picture: Affine, width: f64, height: f64) -> bool {
        let [across, up, left, down, x, y] = picture.as_coeffs();
        let placed = Rect::new(x, y, x + across * width, y + down * height);
        let near = |a: f64, b: f64| (a - b).abs() <= MARGIN;
        let clip = self.clip();
        let whole = |it: Rect| {
            near(it.x0, self.area.x0)
                && near(it.y0, self.area.y0)
                && near(it.x1, self.area.x1)
                && near(it.y1, self.area.y1)
        };
        across > 0.0
            && down > 0.0
            && (up * width).abs() <= MARGIN
            && (left * height).abs() <= MARGIN
            && (across / down - 1.0).abs() <= STRETCH
            && clip.exact
            && whole(placed)
            && whole(clip.visible)
    }

    fn push_clip(&mut self, bounds: Rect, exact: bool) {
        let outer = self.clip();
        let visible = outer.visible.intersect(bounds);
        self.clips.push(Clip { visible, exact: outer.exact && exact });
    }
}

impl<'a> Device<'a> for Survey {
    fn draw_path(&mut self, path: &BezPath, props: DrawProps<'a>, mode: &DrawMode) {
        let shape = path.control_box();
        self.paint(painted_bounds(shape, props.transform, mode));
        if is_filled(mode) {
            let elements = path.elements().len();
            self.fill(props.transform.transform_rect_bbox(shape), false, elements, &props);
        }
    }

    fn draw_rect(&mut self, rect: &Rect, props: DrawProps<'a>, mode: &DrawMode) {
        self.paint(painted_bounds(*rect, props.transform, mode));
        if is_filled(mode) {
            self.fill(props.transform.transform_rect_bbox(*rect), true, 5, &props);
        }
    }

    fn push_clip_path(&mut self, clip: &ClipPath) {
        self.push_clip(clip.path.bounding_box(), is_rectangle(&clip.path));
    }

    fn push_clip_rect(&mut self, clip: &Rect) {
        self.push_clip(*clip, true);
    }

    fn pop_clip(&mut self) {
        self.clips.pop();
    }

    fn push_transparency_group(
        &mut self,
        opacity: f32,
        mask: Option<SoftMask<'a>>,
        blend_mode: BlendMode,
    ) {
        let plain = opacity >= 1.0 && mask.is_none() && blend_mode == BlendMode::Normal;
        self.groups.push(plain);
    }

    fn pop_transparency_group(&mut self) {
        self.groups.pop();
    }

    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, mode: &DrawMode) {
        let is_painted = !matches!(mode, DrawMode::Invisible);
        if is_painted {
            self.paint(self.area);
        }
        let lightness = marks::lightness(&props.paint).filter(|_| is_painted);
        let visible = self.clip().visible;
        self.marks.run(run, props.transform, lightness, visible);
    }

    fn draw_image(&mut self, image: Image<'a, '_>, props: ImageDrawProps<'a>) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let bounds = props.transform.transform_rect_bbox(Rect::new(0.0, 0.0, width, height));
        self.paint(bounds);
        let seen = bounds.intersect(self.clip().visible);
        if !seen.is_zero_area() {
            self.marks.picture(seen);
        }
        let Image::Raster(picture) = image else { return };
        if !self.is_plain(props.soft_mask.as_ref(), props.blend_mode) {
            return;
        }
        let masked = [b"SMask".as_slice(), b"Mask", b"SMaskInData"];
        if !masked.iter().any(|key| picture.stream().dict().contains_key(key)) {
            self.marks.cover(seen, Ground::Mixed);
        }
        if self.fills(props.transform, width, height) {
            self.filling = stored::picture(picture.stream());
        }
    }
}

fn is_filled(mode: &DrawMode) -> bool {
    matches!(mode, DrawMode::Fill(_) | DrawMode::FillAndStroke(..))
}

/// What painting within `shape` can reach.
fn painted_bounds(shape: Rect, transform: Affine, mode: &DrawMode) -> Rect {
    let line = match mode {
        DrawMode::Stroke(stroke) | DrawMode::FillAndStroke(_, stroke) => {
            f64::from(stroke.line_width.max(0.0)) * f64::from(stroke.miter_limit.max(1.0)) / 2.0
        }
        DrawMode::Fill(_) | DrawMode::Invisible => 0.0,
    };
    // The thinnest line is one pixel wide, of whatever size.
    transform.transform_rect_bbox(shape.inflate(line, line)).inflate(1.0, 1.0)
}

/// Whether a path is a rectangle with upright sides.
fn is_rectangle(path: &BezPath) -> bool {
    let corner = |element: &PathEl| match element {
        PathEl::MoveTo(at) | PathEl::LineTo(at) => Some(*at),
        _ => None,
    };
    let elements = path.elements();
    let open = elements.strip_suffix(&[PathEl::ClosePath]).unwrap_or(elements);
    let corners: Option<Vec<Point>> = open.iter().map(corner).collect();
    let bounds = path.bounding_box();
    let at_edge = |at: &Point| {
        (same(at.x, bounds.x0) || same(at.x, bounds.x1))
            && (same(at.y, bounds.y0) || same(at.y, bounds.y1))
    };
    corners.is_some_and(|corners| {
        matches!(corners.len(), 4 | 5)
            && corners.iter().all(at_edge)
            && corners
                .windows(2)
                .all(|side| same(side[0].x, side[1].x) != same(side[0].y, side[1].y))
    })
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}
