//! What is found in drawn pages.

use proptest::prelude::*;

use super::drawn::{CHINESE, LATIN, Page};
use super::{Legibility, TextHeight, legibility};
use crate::image::Size;
use crate::image::format::Orientation;
use crate::image::probe::probe;
use crate::image::region::Region;
use crate::pixels::decode::decode;
use crate::pixels::encode::{Encoding, encode};
use crate::pixels::raster::{Raster, Samples};

/// A page of 60 characters of 14 pixels, with room below.
fn page() -> Page {
    Page::white(304, 240).text(&LATIN, 24, 2, 60)
}

fn found(page: Page) -> Legibility {
    legibility(&page.raster())
}

fn text(page: Page) -> TextHeight {
    found(page).text.expect("the text is found")
}

#[track_caller]
fn assert_height(page: Page, height: f32) {
    assert_eq!(text(page).height.to_bits(), height.to_bits());
}

#[test]
fn the_height_of_text_is_that_of_its_characters() {
    assert_height(page(), 14.0);
    assert_height(Page::white(450, 300).text(&LATIN, 24, 3, 60), 21.0);
}

#[test]
fn light_text_on_dark_ground_is_measured_too() {
    assert_height(page().each(|_, _, level| 255 - level), 14.0);
    // Half the characters are in a dark band; without them there would be too few.
    let page = Page::white(304, 256).text(&LATIN, 16, 2, 30).filled([0, 128, 304, 64], 10);
    let page = page.line(&LATIN, (8, 136), (2, 20), 240).line(&LATIN, (8, 164), (2, 20), 240);
    assert_height(page, 14.0);
}

#[test]
fn nothing_depends_on_how_a_picture_is_turned() {
    let page = page().filled([280, 220, 6, 10], 90).raster();
    let Legibility { text, content } = legibility(&page);
    for orientation in (1..=8).map(Orientation::from_exif) {
        let turned = legibility(&page.clone().upright(orientation));
        assert_eq!(turned.text, text, "{orientation:?}");
        // The sides are whole blocks, so the blocks are the same.
        let content = content.map(|content| content.turned(orientation, page.size()));
        assert_eq!(turned.content, content, "{orientation:?}");
    }
}

#[test]
fn noise_halftone_rules_and_pictures_do_not_change_the_height() {
    let grayer = |_, _, level: u8| if level == 0 { 60 } else { 200 };
    assert_height(page().each(grayer).noisy(25), 14.0);
    // On two thirds of the text; dots that touch characters make them higher.
    let halftone = |x, y, level: u8| {
        if y > 44 && x % 5 < 2 && y % 5 < 2 { level.min(150) } else { level }
    };
    assert_height(page().each(halftone), 14.0);
    let ruled = (0..3).fold(page(), |page, line| page.filled([4, 41 + line * 28, 296, 2], 80));
    assert_height(ruled, 14.0);
    let picture = |x: u32, y: u32, level: u8| {
        let texture = (x * x / 9 + y * y / 7 + x * y / 11) % 200;
        if y > 130 { u8::try_from(texture).unwrap() } else { level }
    };
    assert_height(page().each(picture), 14.0);
}

#[test]
fn characters_that_fell_into_fragments_are_measured_whole() {
    // A row of white between the fourth and the fifth row of squares of each line.
    let broken = |_, y: u32, level: u8| if y >= 24 && (y - 24) % 28 == 7 { 255 } else { level };
    assert_height(page().each(broken), 14.0);
}

#[test]
fn small_print_decides_once_it_is_a_tenth_of_the_characters() {
    let body = || Page::white(450, 400).text(&LATIN, 24, 3, 80);
    assert_height(body().text(&LATIN, 320, 1, 12), 7.0);
    assert_height(body().text(&LATIN, 320, 1, 8), 21.0);
}

#[test]
fn chinese_has_more_strokes_than_latin() {
    let latin = text(page()).strokes;
    assert!((1.4..1.9).contains(&latin), "{latin}");
    let chinese = text(Page::white(400, 240).text(&CHINESE, 24, 2, 60));
    assert_eq!(chinese.height.to_bits(), 14.0_f32.to_bits());
    assert!((2.2..3.2).contains(&chinese.strokes), "{}", chinese.strokes);
}

#[test]
fn too_little_text_is_not_measured() {
    let sixty = found(page());
    assert!(sixty.text.is_some());
    let few = found(Page::white(304, 240).text(&LATIN, 24, 2, 39));
    assert_eq!(few.text, None);
    assert!(few.content.is_some());
}

#[test]
fn dashes_dots_and_hatching_are_no_text() {
    let dashes = |x: u32, y: u32, level| if x % 16 < 10 && y % 20 < 4 { 0 } else { level };
    assert_eq!(found(Page::white(304, 240).each(dashes)).text, None);
    let dots = |x: u32, y: u32, level| if x % 12 < 5 && y % 20 < 5 { 0 } else { level };
    assert_eq!(found(Page::white(304, 240).each(dots)).text, None);
    let bars = |x: u32, y: u32, level| if x % 6 < 2 && y % 40 < 30 { 0 } else { level };
    assert_eq!(found(Page::white(304, 240).each(bars)).text, None);
}

#[test]
fn a_picture_without_text_is_not_measured_and_not_cut() {
    let noise = Page::of(128, 304, 240).noisy(127);
    let whole = Some(Region::of(Size::new(304, 240)));
    assert_eq!(found(noise), Legibility { text: None, content: whole });
    let texture = |x: u32, y: u32, _| u8::try_from((x * x / 30 + y * y / 40) % 256).unwrap();
    assert_eq!(found(Page::white(304, 240).each(texture)).text, None);
}

/// Pages on which there is nothing.
#[test]
fn blank_paper_is_blank() {
    let blank = [
        ("white", Page::white(304, 240)),
        ("black", Page::of(0, 304, 240)),
        ("noise", Page::of(235, 304, 240).noisy(5)),
        ("shade", Page::white(304, 240).each(|x, _, _| 180 + u8::try_from(x / 5).unwrap())),
        (
            "dust",
            (0..9).fold(Page::white(304, 240), |page, n| {
                page.filled([20 + n * 29, 12 + n * n * 2, 2, 2], 120)
            }),
        ),
        (
            "coarse grain",
            Page::of(235, 304, 240).each(|x, y, level| {
                // A pattern of two by two pixels, as unsharp as that of a scanner.
                let pattern =
                    (x / 2).wrapping_mul(2_654_435_761) ^ (y / 2).wrapping_mul(1_597_334_677);
                level + u8::try_from(pattern.wrapping_mul(2_246_822_519) >> 30).unwrap()
            }),
        ),
        ("the shadow of an edge", Page::of(250, 304, 240).filled([0, 0, 6, 240], 40)),
        (
            "the shadow of an edge that is not straight",
            Page::of(250, 304, 240)
                .each(|x, y, level| if x < 3 + y / 60 { 40 } else { level })
                .noisy(4),
        ),
        ("the shadow of a part of an edge", Page::of(250, 304, 240).filled([60, 236, 180, 4], 90)),
    ];
    for (name, page) in blank {
        assert_eq!(found(page), Legibility { text: None, content: None }, "{name}");
    }
}

/// Pages with as little as somebody may want to have read.
#[test]
fn what_can_be_seen_is_not_blank() {
    let paper = || Page::of(250, 304, 320);
    let seen = [
        ("pencil of 8 levels", paper().line(&LATIN, (100, 100), (2, 4), 242)),
        ("pencil of 8 levels in noise", paper().line(&LATIN, (100, 100), (3, 4), 242).noisy(4)),
        (
            "writing of 12 levels in strong noise",
            paper().line(&LATIN, (100, 100), (3, 6), 238).noisy(8),
        ),
        ("a page number", paper().line(&LATIN[1..], (150, 300), (1, 1), 60)),
        ("the number 1", paper().filled([150, 300, 2, 8], 90)),
        ("a stamp", paper().filled([90, 90, 60, 60], 205).filled([93, 93, 54, 54], 250)),
        ("a line at the edge", paper().filled([0, 100, 40, 2], 90)),
        ("a pale line of text at the edge", paper().line(&LATIN, (10, 1), (2, 20), 225)),
        (
            "a pale word in a shadow of the edge",
            paper().filled([0, 0, 304, 18], 200).line(&LATIN, (100, 2), (2, 3), 180),
        ),
        ("joined writing in a strip", written(Page::white(600, 24))),
        ("joined writing in a strip with a margin", written(Page::white(600, 40))),
        ("joined writing along an edge", written(Page::white(600, 400))),
    ];
    for (name, page) in seen {
        assert_ne!(found(page.clone()).content, None, "{name}");
        let turned = page.raster().upright(Orientation::QuarterTurnClockwise);
        assert_ne!(legibility(&turned).content, None, "{name}, turned");
    }
}

/// A page as scanners and cameras give it: with less and more noise, as it is and as a JPEG, gray and in colour.
fn taken(page: &Page, noises: &[u8]) -> Vec<(String, Raster)> {
    let stored = |raster: &Raster, quality| {
        let file = encode(raster, Encoding::Jpeg { quality }).unwrap();
        decode(&file, &probe(&file).unwrap()).unwrap()
    };
    let mut taken = Vec::new();
    for &noise in noises {
        let page = page.clone().noisy(noise);
        let (gray, colour) = (page.clone().raster(), page.on_yellow());
        taken.push((format!("noise {noise}, quality 75"), stored(&gray, 75)));
        taken.push((format!("in colour, noise {noise}, quality 90"), stored(&colour, 90)));
        taken.push((format!("noise {noise}"), gray));
    }
    taken
}

#[track_caller]
fn assert_seen(page: &Page, noises: &[u8], name: &str) {
    for (kind, raster) in taken(page, noises) {
        assert_ne!(legibility(&raster).content, None, "{name}, {kind}");
    }
}

#[test]
fn a_large_soft_shape_is_not_blank() {
    let paper = || Page::of(240, 480, 480);
    for (depth, radius, softness) in [(8, 50, 30), (8, 130, 60), (12, 200, 60)] {
        let page = paper().disc((230, 250), radius, softness, depth);
        assert_seen(&page, &[0, 5], &format!("{depth} levels, radius {radius}, soft {softness}"));
    }
    // A stamp of two rings.
    let ring = |page: Page, radius: u32| {
        let inner = paper().disc((230, 250), radius - 20, 16, 8);
        let outer = paper().disc((230, 250), radius, 16, 8);
        let across = page.width;
        page.each(|x, y, level| {
            let at = (y * across + x) as usize;
            level - (inner.levels[at] - outer.levels[at])
        })
    };
    assert_seen(&ring(ring(paper(), 120), 80), &[0, 5], "a washed-out stamp");
}

#[test]
fn a_hairline_is_not_blank_in_any_direction() {
    // So many levels, so many rows for eight columns, and noise.
    for (depth, slope, noises) in [
        (8, 0, [0, 2]),
        (8, 2, [0, 1]),
        (8, 5, [0, 1]),
        (10, 1, [0, 2]),
        (12, 8, [0, 1]),
        (12, 3, [0, 2]),
    ] {
        let page = Page::of(240, 400, 360).hairline((40, 30), 300, slope, depth);
        for (kind, raster) in taken(&page, &noises) {
            let name = format!("{depth} levels, slope {slope}, {kind}");
            assert_ne!(legibility(&raster).content, None, "{name}");
            let turned = raster.upright(Orientation::QuarterTurnClockwise);
            assert_ne!(legibility(&turned).content, None, "{name}, turned");
        }
    }
}

#[test]
fn joined_writing_in_faint_pencil_is_not_blank() {
    let paper = Page::of(240, 480, 320);
    let pencil = paper.each(|x, y, level| {
        let place = 200 + (x % 56).abs_diff(28) / 2;
        if (100..400).contains(&x) && y == place { level - 10 } else { level }
    });
    assert_seen(&pencil, &[0, 2], "pencil");
}

#[test]
fn what_is_faint_is_seen_in_large_pictures() {
    let paper = || Page::of(240, 1_700, 1_600);
    assert_ne!(found(paper().disc((800, 700), 300, 60, 8)).content, None);
    assert_ne!(found(paper().hairline((200, 300), 900, 1, 10)).content, None);
    let photo = Page::of(240, 3_200, 3_100).hairline((200, 300), 900, 0, 10);
    assert_ne!(found(photo).content, None);
}

#[test]
fn what_is_faint_is_not_cut_away_beside_text() {
    let text = || Page::of(250, 608, 640).line(&LATIN, (16, 40), (2, 20), 0);
    let shape = text().disc((450, 480), 100, 40, 10);
    for (kind, raster) in taken(&shape, &[0, 3]) {
        let content = legibility(&raster).content.unwrap();
        assert!(content.right >= 530 && content.bottom >= 560, "{kind}: {content:?}");
    }
    let line = text().hairline((200, 560), 380, 0, 10);
    for (kind, raster) in taken(&line, &[0, 2]) {
        let content = legibility(&raster).content.unwrap();
        assert!(content.right >= 570 && content.bottom >= 560, "{kind}: {content:?}");
    }
}

#[test]
fn uneven_light_is_blank_and_is_cut_away_beside_text() {
    let light = |page: Page| {
        [
            (
                "from one side",
                page.clone()
                    .each(|x, _, level| level.saturating_sub(u8::try_from(x / 16).unwrap())),
            ),
            (
                "less in the corners",
                page.clone().each(|x, y, level| {
                    let far = x.abs_diff(304).pow(2) + y.abs_diff(320).pow(2);
                    level.saturating_sub(u8::try_from(far * 20 / 92_416).unwrap())
                }),
            ),
            (
                "less along an edge",
                page.each(|x, _, level| {
                    level.saturating_sub(
                        u8::try_from(120_u32.saturating_sub(x).pow(2) / 900).unwrap(),
                    )
                }),
            ),
        ]
    };
    for (name, page) in light(Page::of(245, 608, 640)) {
        for (kind, raster) in taken(&page, &[2]) {
            assert_eq!(legibility(&raster).content, None, "{name}, {kind}");
        }
    }
    for (name, page) in light(Page::of(245, 608, 640).text(&LATIN, 24, 2, 60)) {
        for (kind, raster) in taken(&page, &[2]) {
            let content = legibility(&raster).content.unwrap();
            assert!(content.right < 360 && content.bottom < 300, "{name}, {kind}: {content:?}");
        }
    }
}

/// One line of a pen that goes up and down along the upper edge.
fn written(page: Page) -> Page {
    page.each(|x, y, level| {
        let place = 3 + (x % 28).abs_diff(14);
        if y.abs_diff(place) < 2 { 60 } else { level }
    })
}

#[test]
fn a_picture_that_is_narrower_than_a_block_is_not_blank() {
    for (width, height) in [(1, 1), (7, 300), (300, 7)] {
        let whole = Some(Region::of(Size::new(width, height)));
        let page = Page::white(width, height);
        assert_eq!(found(page), Legibility { text: None, content: whole });
    }
    assert_eq!(found(Page::white(8, 300)).content, None);
}

#[test]
fn the_content_has_a_margin_and_no_side_too_short_to_send() {
    let page = Page::white(608, 640).text(&LATIN, 320, 2, 60);
    // The characters are from (8, 320) to (284, 390). They change the mean of the paper up to 12 pixels around, blocks
    // are multiples of 8, and the margin has twice the height of the text. The height of all that is 160.
    let content = Region { left: 0, top: 228, right: 324, bottom: 484 };
    assert_eq!(found(page).content, Some(content));
}

#[test]
fn text_counts_at_any_edge_where_dust_and_shadows_do_not() {
    let dirty = |page: Page| page.filled([603, 0, 5, 640], 60).filled([500, 500, 3, 3], 100);
    let page = dirty(Page::white(608, 640)).text(&LATIN, 24, 2, 60);
    assert_eq!(found(page).content, Some(Region { left: 0, top: 0, right: 324, bottom: 256 }));
    let low =
        dirty(Page::white(608, 640)).text(&LATIN, 24, 2, 60).line(&LATIN, (300, 626), (2, 1), 0);
    assert_eq!(found(low).content.unwrap().bottom, 640);
}

#[test]
fn a_pale_page_number_counts_beside_large_text() {
    let page = Page::white(608, 900).text(&LATIN, 24, 3, 60);
    for level in [160, 200, 215] {
        let page = page.clone().line(&LATIN[1..], (300, 860), (1, 1), level);
        let content = found(page).content.unwrap();
        assert!(content.right >= 305 && content.bottom >= 867, "{level}: {content:?}");
    }
}

/// The page, printed in an ink on paper of another colour.
fn printed(page: &Page, ink: [u8; 3], paper: [u8; 3]) -> Raster {
    let colour = |level: &u8| if *level == 0 { ink } else { paper };
    let data: Vec<u8> = page.levels.iter().flat_map(colour).collect();
    Raster::new(Size::new(page.width, page.height), Samples::Rgb, data).unwrap()
}

#[test]
fn text_in_colour_is_measured_by_its_brightness() {
    let page = page();
    let (blue, yellow) = ([20, 40, 200], [250, 240, 150]);
    let coloured = legibility(&printed(&page, blue, yellow));
    let gray = legibility(&page.raster());
    assert_eq!(coloured.text, gray.text);
    // Blocks beside the text may differ in colour and not in brightness.
    let (coloured, gray) = (coloured.content.unwrap(), gray.content.unwrap());
    assert!(coloured.bottom.abs_diff(gray.bottom) <= 8, "{coloured:?} {gray:?}");
}

#[test]
fn text_that_is_as_bright_as_its_ground_is_not_blank_and_not_cut_away() {
    let page = Page::white(608, 640).line(&LATIN, (16, 40), (2, 20), 0);
    let page = page.line(&LATIN[1..], (560, 600), (2, 1), 0);
    for (ink, paper) in [
        ([255, 0, 0], [0, 131, 0]),
        ([255, 0, 0], [77, 77, 77]),
        ([200, 220, 255], [217, 217, 217]),
        ([255, 120, 120], [160, 160, 160]),
        ([0, 120, 200], [93, 93, 93]),
    ] {
        let content = legibility(&printed(&page, ink, paper)).content;
        let content = content.unwrap_or_else(|| panic!("{ink:?} on {paper:?} is blank"));
        assert!(content.left <= 16 && content.top <= 40, "{ink:?} on {paper:?}: {content:?}");
        assert!(content.right >= 570 && content.bottom >= 614, "{ink:?} on {paper:?}: {content:?}");
    }
    let paper = printed(&Page::white(304, 240), [0; 3], [200, 220, 255]);
    assert_eq!(legibility(&paper).content, None);
}

proptest! {
    #[test]
    fn no_picture_makes_it_panic(
        width in 1_u32..150, height in 1_u32..150, is_gray: bool, seed: u32, coarse in 1_u32..9,
        levels in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let samples = if is_gray { Samples::Gray } else { Samples::Rgb };
        let size = Size::new(width, height);
        let count = width * height * u32::try_from(samples.count()).unwrap();
        let level = |at: u32| {
            let square = at / coarse + at / (width * coarse) * 7;
            levels[(square.wrapping_mul(seed | 1) >> 7) as usize % levels.len()]
        };
        let picture = Raster::new(size, samples, (0..count).map(level).collect()).unwrap();
        let Legibility { text, content } = legibility(&picture);
        prop_assert!(content.is_none_or(|content| content.is_within(size)));
        // A character is at least 4 pixels high, and the height of letters that touch is halved.
        let is_sound = |text: TextHeight| {
            text.height >= 2.0 && text.height <= 150.0 && (1.2..=3.5).contains(&text.strokes)
        };
        prop_assert!(text.is_none_or(is_sound));
        prop_assert!(text.is_none() || content.is_some());
    }
}
