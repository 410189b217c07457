//! What a video is to be: format, speed, quality, repetition.

use std::fmt;
use std::str::FromStr;

use crate::error::{MediaError, Result};

/// Kind of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// H.264 in MP4.
    #[default]
    Mp4,
    /// Animated WebP.
    Webp,
    /// Animated GIF with one palette fitted to all frames.
    Gif,
    /// A folder of `00001.png`, `00002.png`, ...
    Png,
    /// The bare frames one after another, u8 `[frames, height, width, 3]`.
    Rgb,
}

impl OutputFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Mp4, Self::Webp, Self::Gif, Self::Png, Self::Rgb];

    /// The name, which is also the usual file extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Png => "png",
            Self::Rgb => "rgb",
        }
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for OutputFormat {
    type Err = MediaError;

    fn from_str(name: &str) -> Result<Self> {
        let choices = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| MediaError::option("format", name, choices()))
    }
}

/// How H.264 stores pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// 8 bits, chroma at half size: plays everywhere.
    #[default]
    Yuv420p,
    /// 10 bits, chroma at half size: less banding, fewer players.
    Yuv420p10le,
}

impl PixelFormat {
    /// All pixel formats.
    pub const ALL: [Self; 2] = [Self::Yuv420p, Self::Yuv420p10le];

    /// FFmpeg's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yuv420p => "yuv420p",
            Self::Yuv420p10le => "yuv420p10le",
        }
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PixelFormat {
    type Err = MediaError;

    fn from_str(name: &str) -> Result<Self> {
        let choices = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| MediaError::option("pixel format", name, choices()))
    }
}

/// Frames per second, as a fraction in lowest terms, above 0 and at most 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRate {
    numerator: u32,
    denominator: u32,
}

impl FrameRate {
    /// `numerator / denominator` frames per second.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`] unless above 0 and at most 1000, with a denominator of at most
    /// 100,000.
    pub fn new(numerator: u32, denominator: u32) -> Result<Self> {
        let fits = numerator > 0
            && (1..=100_000).contains(&denominator)
            && u64::from(numerator) <= 1000 * u64::from(denominator);
        if !fits {
            return Err(Self::invalid(format!("{numerator}/{denominator}")));
        }
        let (mut divisor, mut rest) = (numerator, denominator);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        Ok(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }

    fn invalid(found: impl ToString) -> MediaError {
        MediaError::option(
            "frame rate",
            found,
            "a number or fraction above 0 and at most 1000, such as 16 or 30000/1001",
        )
    }

    /// The numerator.
    pub fn numerator(self) -> u32 {
        self.numerator
    }

    /// The denominator.
    pub fn denominator(self) -> u32 {
        self.denominator
    }

    /// Frames per second.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

impl Default for FrameRate {
    /// 16 frames per second, the rate that Wan2.1 was trained at.
    fn default() -> Self {
        Self { numerator: 16, denominator: 1 }
    }
}

impl TryFrom<f64> for FrameRate {
    type Error = MediaError;

    /// The exact fraction where the rate has at most three decimals; broadcast rates such as 23.976 and
    /// 29.97 become their true thousandths over 1001.
    fn try_from(rate: f64) -> Result<Self> {
        if !(rate > 0.0 && rate <= 1000.0) {
            return Err(Self::invalid(rate));
        }
        let broadcast = rate.ceil() as u32 * 1000;
        if [24_000, 30_000, 60_000, 120_000].contains(&broadcast)
            && (rate - f64::from(broadcast) / 1001.0).abs() < 5e-3
        {
            return Self::new(broadcast, 1001);
        }
        Self::new((rate * 1000.0).round() as u32, 1000).map_err(|_| Self::invalid(rate))
    }
}

impl FromStr for FrameRate {
    type Err = MediaError;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Self::invalid(format!("\"{text}\""));
        match text.split_once('/') {
            Some((above, below)) => {
                let parse = |part: &str| part.trim().parse().map_err(|_| invalid());
                Self::new(parse(above)?, parse(below)?)
            }
            None => Self::try_from(text.trim().parse::<f64>().map_err(|_| invalid())?),
        }
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// How a [`VideoWriter`](crate::VideoWriter) writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoOptions {
    /// Kind of output.
    pub format: OutputFormat,
    /// Frames per second.
    pub fps: FrameRate,
    /// x264's constant rate factor, 0 (lossless) to 51; used by mp4 only.
    pub crf: u8,
    /// How mp4 stores pixels.
    pub pixel_format: PixelFormat,
    /// mp4 and rgb: the video is repeated this many more times. gif and webp: plays this many more
    /// times, 0 without end. png: must be 0.
    pub loop_count: u32,
    /// webp: `loop_count` is how often it plays in all, as Pillow counts, and not how often more.
    pub counts_plays: bool,
    /// Forwards, then backwards without repeating the ends: `F` frames become `2F - 2`.
    pub pingpong: bool,
    /// Whether an earlier output may be replaced.
    pub overwrite: bool,
    /// JSON record of how the video was made, stored under
    /// [`METADATA_KEY`](crate::METADATA_KEY).
    pub metadata: Option<String>,
    /// Further texts by key, such as ComfyUI's `prompt` and `workflow`; used by mp4 and png only.
    pub tags: Vec<(String, String)>,
    /// `creation_time` of an mp4 (ISO 8601); without it the bytes depend on frames and options alone.
    pub creation_time: Option<String>,
}

impl Default for VideoOptions {
    fn default() -> Self {
        Self {
            format: OutputFormat::Mp4,
            fps: FrameRate::default(),
            crf: 19,
            pixel_format: PixelFormat::Yuv420p,
            loop_count: 0,
            counts_plays: false,
            pingpong: false,
            overwrite: false,
            metadata: None,
            tags: Vec::new(),
            creation_time: None,
        }
    }
}

impl VideoOptions {
    /// Largest crf of 8-bit H.264.
    pub const MAX_CRF: u8 = 51;

    /// How often a webp plays; 0 is without end.
    #[cfg(feature = "ffmpeg")]
    pub(crate) fn webp_plays(&self) -> u32 {
        match self.loop_count {
            0 => 0,
            count if self.counts_plays => count,
            count => count + 1,
        }
    }

    /// Whether loops are written out as frames; gif and webp have a counter instead.
    pub(crate) fn repeats_frames(&self) -> bool {
        self.loop_count > 0 && matches!(self.format, OutputFormat::Mp4 | OutputFormat::Rgb)
    }

    /// Checks that the options make sense together for frames of this size in pixels.
    ///
    /// # Errors
    /// [`MediaError::InvalidOption`].
    pub fn check(&self, width: u32, height: u32) -> Result<()> {
        let max = match self.format {
            OutputFormat::Mp4 | OutputFormat::Webp => 16_383,
            _ => 65_535,
        };
        if !(1..=max).contains(&width) || !(1..=max).contains(&height) {
            let expected = format!("1 to {max} pixels a side for {}", self.format);
            return Err(MediaError::option("video size", format!("{width}x{height}"), expected));
        }
        if self.crf > Self::MAX_CRF {
            return Err(MediaError::option("crf", self.crf, format!("0 to {}", Self::MAX_CRF)));
        }
        let max_loops = match self.format {
            OutputFormat::Png => 0,
            OutputFormat::Gif | OutputFormat::Webp => 65_534,
            _ => 10_000,
        };
        if self.loop_count > max_loops {
            let expected = format!("0 to {max_loops} for {}", self.format);
            return Err(MediaError::option("loop count", self.loop_count, expected));
        }
        let texts =
            [("metadata", self.metadata.as_deref()), ("creation time", self.creation_time.as_deref())];
        let tags = self.tags.iter().flat_map(|(key, text)| [("tag", Some(&**key)), ("tag", Some(&**text))]);
        for (option, text) in texts.into_iter().chain(tags) {
            if text.is_some_and(|text| text.contains('\0')) {
                return Err(MediaError::option(option, "text with a NUL character", "text without one"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rates_are_exact_fractions() {
        let rows = [
            ("16", Some((16, 1))),
            ("23.976", Some((24_000, 1001))),
            ("29.97", Some((30_000, 1001))),
            ("30", Some((30, 1))),
            ("24", Some((24, 1))),
            ("12.5", Some((25, 2))),
            ("30000/1001", Some((30_000, 1001))),
            ("32/2", Some((16, 1))),
            ("1000", Some((1000, 1))),
            ("0", None),
            ("0.0001", None),
            ("-1", None),
            ("NaN", None),
            ("inf", None),
            ("1001", None),
            ("16/0", None),
            ("fast", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let found = text.parse::<FrameRate>().ok().map(|rate| (rate.numerator(), rate.denominator()));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn unknown_names_list_the_choices() {
        let error = "yuv444p".parse::<PixelFormat>().expect_err("not supported");
        assert_eq!(error.to_string(), "pixel format is yuv444p, expected yuv420p, yuv420p10le");
        let error = "avi".parse::<OutputFormat>().expect_err("not supported");
        assert_eq!(error.to_string(), "format is avi, expected mp4, webp, gif, png, rgb");
        assert!(error.is_usage());
        for format in OutputFormat::ALL {
            assert_eq!(format.name().parse::<OutputFormat>().ok(), Some(format));
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let fine = VideoOptions::default();
        assert!(fine.check(832, 480).is_ok());
        assert!(fine.check(0, 480).is_err());
        assert!(fine.check(20_000, 480).is_err());
        assert!(VideoOptions { crf: 52, ..fine.clone() }.check(8, 8).is_err());
        assert!(VideoOptions { metadata: Some("a\0b".into()), ..fine.clone() }.check(8, 8).is_err());
        let png = VideoOptions { format: OutputFormat::Png, loop_count: 1, ..fine };
        assert_eq!(
            png.check(8, 8).expect_err("stills do not loop").to_string(),
            "loop count is 1, expected 0 to 0 for png"
        );
    }
}
