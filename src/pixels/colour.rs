//! From the colours of files to gray and RGB.
//!
//! Colour profiles are not applied: text stays as legible without them, and a profile may be hostile.

/// A sample of `alpha` opacity in front of white.
pub(super) fn on_white(sample: u8, alpha: u8) -> u8 {
    let (sample, alpha) = (u32::from(sample), u32::from(alpha));
    low((sample * alpha + 255 * (255 - alpha) + 127) / 255)
}

/// The same for a sample that is already multiplied by its opacity.
pub(super) fn multiplied_on_white(sample: u8, alpha: u8) -> u8 {
    sample.saturating_add(255 - alpha)
}

/// Red, green and blue for four inks, of which 255 is all.
pub(super) fn from_inks([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let left = u32::from(255 - black);
    [cyan, magenta, yellow].map(|ink| low((u32::from(255 - ink) * left + 127) / 255))
}

/// Red, green and blue for the luma and chroma of JFIF (ITU-R BT.601, full range), in fixed-point numbers of 16 bits.
pub(super) fn from_luma_and_chroma([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    let luma = (i32::from(luma) << 16) + (1 << 15);
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    let level = |level: i32| u8::try_from((level >> 16).clamp(0, 255)).unwrap_or(u8::MAX);
    [
        level(luma + 91_881 * red),
        level(luma - 22_554 * blue - 46_802 * red),
        level(luma + 116_130 * blue),
    ]
}

fn low(level: u32) -> u8 {
    u8::try_from(level).unwrap_or(u8::MAX)
}
