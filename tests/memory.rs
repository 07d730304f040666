//! The bytes that `decode_memory` promises are enough to decode, shrink, turn and encode a picture.
//!
//! A program of its own, since its allocator counts all that the program allocates.

#![expect(clippy::unwrap_used, reason = "these are tests")]
#![expect(clippy::print_stdout, reason = "the shares of the promise are worth reading")]

use std::io::Cursor;
use std::sync::{LazyLock, Mutex};

use image::codecs::bmp::BmpEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::Encoder;
use ocr_gateway::image::Size;
use ocr_gateway::image::format::Orientation;
use ocr_gateway::image::probe::probe;
use ocr_gateway::pixels::decode::{decode, decode_memory};
use ocr_gateway::pixels::encode::{Encoding, QUALITY, encode};
use ocr_gateway::pixels::resize::shrink_to;
use ocr_gateway::units::Pixels;
use peak_alloc::PeakAlloc;
use tiff::encoder::colortype::{ColorType, Gray8, RGBA16};
use tiff::encoder::{Compression, TiffEncoder, TiffValue};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Only one test measures at once.
static ONE_AT_ONCE: Mutex<()> = Mutex::new(());

const SIZES: [Size; 3] = [Size::new(16, 16), Size::new(700, 1_100), Size::new(9_000, 50)];

/// Samples without any order: no encoder makes them small.
fn noise(count: usize) -> Vec<u8> {
    NOISE[..count].to_vec()
}

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(8 * 700 * 1_100).collect()
});

fn pixels(size: Size) -> usize {
    usize::try_from(size.pixels().get()).unwrap()
}

/// Does all that is promised, at several sizes and in both encodings, and compares the peak with the promise.
fn check(name: &str, file: &[u8]) {
    let header = probe(file).unwrap();
    for max_pixels in [50_000, u64::MAX] {
        for encoding in [Encoding::Png, Encoding::Jpeg { quality: QUALITY }] {
            let to = shrink_to(header.stored, Pixels::new(max_pixels));
            let promised = decode_memory(file, &header, to);
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let picture = decode(file, &header).unwrap().resized(to);
            let encoded = encode(&picture.upright(Orientation::Transposed), encoding).unwrap();
            let peak = (MEMORY.peak_usage() - before) as u64;
            drop(encoded);
            let share = peak * 100 / promised;
            println!("{name} {} to {to}: {peak} of {promised} bytes ({share} %)", header.stored);
            assert!(peak <= promised, "{name} {}: {peak} of {promised} bytes", header.stored);
        }
    }
}

#[test]
fn jpegs_of_every_kind_stay_below_the_promise() {
    let _one = ONE_AT_ONCE.lock().unwrap();
    for size in SIZES {
        for (colours, samples) in [
            (jpeg_encoder::ColorType::Luma, 1),
            (jpeg_encoder::ColorType::Rgb, 3),
            (jpeg_encoder::ColorType::Cmyk, 4),
        ] {
            for is_progressive in [false, true] {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, 90);
                encoder.set_progressive(is_progressive);
                let (width, height) =
                    (size.width.try_into().unwrap(), size.height.try_into().unwrap());
                encoder.encode(&noise(pixels(size) * samples), width, height, colours).unwrap();
                check(&format!("{colours:?} progressive {is_progressive}"), &file);
            }
        }
    }
}

#[test]
fn pngs_webps_and_bitmaps_stay_below_the_promise() {
    let _one = ONE_AT_ONCE.lock().unwrap();
    for size in SIZES {
        for (colours, bytes) in [
            (ExtendedColorType::L8, 1),
            (ExtendedColorType::Rgb8, 3),
            (ExtendedColorType::Rgba8, 4),
            (ExtendedColorType::Rgba16, 8),
        ] {
            let data = noise(pixels(size) * bytes);
            let (width, height) = (size.width, size.height);
            let mut png = Vec::new();
            let encoder = image::codecs::png::PngEncoder::new(&mut png);
            encoder.write_image(&data, width, height, colours).unwrap();
            check(&format!("PNG {colours:?}"), &png);
            if bytes > 4 {
                continue;
            }
            let mut webp = Vec::new();
            let encoder = WebPEncoder::new_lossless(&mut webp);
            encoder.write_image(&data, width, height, colours).unwrap();
            check(&format!("WebP {colours:?}"), &webp);
            let mut bmp = Vec::new();
            BmpEncoder::new(&mut bmp).write_image(&data, width, height, colours).unwrap();
            check(&format!("BMP {colours:?}"), &bmp);
        }
    }
}

/// A TIFF of one page.
fn tiff<C>(size: Size, compression: Compression, data: &[C::Inner]) -> Vec<u8>
where
    C: ColorType,
    [C::Inner]: TiffValue,
{
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap().with_compression(compression);
    encoder.write_image::<C>(size.width, size.height, data).unwrap();
    file.into_inner()
}

#[test]
fn tiffs_stay_below_the_promise() {
    let _one = ONE_AT_ONCE.lock().unwrap();
    for size in SIZES {
        let samples = noise(pixels(size) * 4);
        let deep: Vec<u16> = samples.iter().map(|&level| u16::from(level) * 257).collect();
        for compression in [Compression::Uncompressed, Compression::Lzw] {
            let gray = &samples[..pixels(size)];
            check("TIFF gray", &tiff::<Gray8>(size, compression, gray));
            check("TIFF RGBA of 16 bits", &tiff::<RGBA16>(size, compression, &deep));
        }
    }
}
