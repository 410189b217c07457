//! mp4, webp and gif through FFmpeg: a filter graph converts each frame, an encoder compresses it, a
//! muxer writes it.
//!
//! Conversion and tags of mp4 follow ComfyUI-VideoHelperSuite (`video_formats/h264-mp4.json` and
//! `nodes.py`): full-range RGB in, BT.709 limited range out, odd sides made even by replication.

use std::path::Path;

use ffmpeg::codec::{self, threading};
use ffmpeg::format::Pixel;
use ffmpeg::{Dictionary, Packet, Rational, color, encoder, filter, format, frame};
use ffmpeg_next as ffmpeg;

use super::{FrameSink, OutputFormat, VideoOptions};
use crate::atomic::TempFile;
use crate::error::{MediaError, Result, one_line};
use crate::graph;
use crate::metadata::{self, METADATA_KEY};

/// Threads of x264. Fixed, because the number of frame threads shows in the bytes.
const X264_THREADS: usize = 4;

/// Quality of WebP on libwebp's scale of 0 to 100.
const WEBP_QUALITY: u32 = 85;

/// Sink of the formats that FFmpeg writes.
pub(super) struct EncodedFile {
    // Declared before the file: the muxer closes it before it is removed.
    stream: Stream,
    temp: TempFile,
    options: VideoOptions,
    size: (u32, u32),
}

impl EncodedFile {
    pub fn create(path: &Path, width: u32, height: u32, options: &VideoOptions) -> Result<Self> {
        let (temp, _) = TempFile::create(path, options.overwrite)?;
        let stream = Stream::open(temp.path(), temp.shown(), width, height, options)?;
        Ok(Self { stream, temp, options: options.clone(), size: (width, height) })
    }
}

impl FrameSink for EncodedFile {
    fn push(&mut self, rgb: &[u8]) -> Result<()> {
        self.stream.push(rgb).map_err(|failure| failure.at(self.temp.shown()))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { stream, temp, options, size } = *self;
        stream.finish().map_err(|failure| failure.at(temp.shown()))?;
        metadata::embed(temp.path(), options.format, size, options.metadata.as_deref(), options.webp_plays())
            .map_err(|error| MediaError::write(temp.shown(), error))?;
        temp.commit()
    }
}

/// A step of the encoder that failed.
struct Failure {
    what: &'static str,
    error: ffmpeg::Error,
}

impl Failure {
    /// Names the output; system errors such as a full disk are told apart from the codec's.
    fn at(self, path: &Path) -> MediaError {
        match self.error {
            ffmpeg::Error::Other { errno } => {
                MediaError::write(path, std::io::Error::from_raw_os_error(errno))
            }
            error => {
                MediaError::Encode { path: path.to_path_buf(), what: self.what, reason: one_line(error) }
            }
        }
    }
}

/// Attaches the step to an FFmpeg error.
fn step(what: &'static str) -> impl Fn(ffmpeg::Error) -> Failure {
    move |error| Failure { what, error }
}

/// What distinguishes the formats.
struct Recipe {
    encoder: &'static str,
    muxer: &'static str,
    /// Filter graph from RGB24 to the encoder's pixels.
    filters: String,
    pixels: Pixel,
    encoder_options: Vec<(&'static str, String)>,
    muxer_options: Vec<(&'static str, String)>,
    /// Sides are padded to a multiple of this.
    alignment: u32,
}

impl Recipe {
    fn of(options: &VideoOptions) -> Self {
        match options.format {
            OutputFormat::Gif => Self {
                encoder: "gif",
                muxer: "gif",
                filters: "split[a][b];[a]palettegen=reserve_transparent=0[p];[b][p]paletteuse".into(),
                pixels: Pixel::PAL8,
                encoder_options: Vec::new(),
                muxer_options: vec![("loop", options.loop_count.to_string())],
                alignment: 1,
            },
            OutputFormat::Webp => Self {
                encoder: "libwebp_anim",
                muxer: "webp",
                filters: "format=bgra".into(),
                pixels: Pixel::BGRA,
                encoder_options: vec![("quality", WEBP_QUALITY.to_string())],
                // The muxer would write its counter at a fixed place that single frames do not have;
                // it is set when the metadata is.
                muxer_options: vec![("loop", "0".into())],
                alignment: 1,
            },
            _ => Self {
                encoder: "libx264",
                muxer: "mp4",
                // Exact rounding, equal on every processor.
                filters: format!(
                    "scale=in_range=full:out_range=limited:out_color_matrix=bt709\
                     :flags=bicubic+accurate_rnd+full_chroma_int+bitexact,format={}",
                    options.pixel_format
                ),
                pixels: match options.pixel_format {
                    super::PixelFormat::Yuv420p => Pixel::YUV420P,
                    super::PixelFormat::Yuv420p10le => Pixel::YUV420P10LE,
                },
                encoder_options: x264_options(options),
                muxer_options: vec![("movflags", "+faststart+use_metadata_tags".into())],
                alignment: 2,
            },
        }
    }
}

fn x264_options(options: &VideoOptions) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("preset", "medium".into()),
        ("crf", options.crf.to_string()),
        // MP4 keeps the stream's parameters in its own header.
        ("flags", "+cgop+global_header".into()),
    ];
    // The AVX-512 code of x264 (core 164, macroblock tree) reads memory that was never written where the
    // width is no multiple of 256, and the same frames give different bytes from run to run.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        list.push(("x264-params", "asm=AVX2".into()));
    }
    list
}

/// Filter graph, encoder and muxer of one output file.
struct Stream {
    output: format::context::Output,
    encoder: encoder::Video,
    graph: filter::Graph,
    time_base: Rational,
    /// Size as pushed.
    width: u32,
    height: u32,
    /// Size as encoded.
    padded: (u32, u32),
    pushed: i64,
}

impl Stream {
    /// Opens `file` (absolute) for writing; `shown` stands for it in messages.
    fn open(file: &Path, shown: &Path, width: u32, height: u32, options: &VideoOptions) -> Result<Self> {
        graph::initialise();
        if file.to_str().is_none() {
            let source =
                std::io::Error::new(std::io::ErrorKind::InvalidInput, "FFmpeg needs a path in UTF-8");
            return Err(MediaError::write(shown, source));
        }
        let recipe = Recipe::of(options);
        let Some(codec) = encoder::find_by_name(recipe.encoder) else {
            let reason = format!("this FFmpeg was built without the encoder {}", recipe.encoder);
            return Err(MediaError::Encode {
                path: shown.to_path_buf(),
                what: "opening the encoder",
                reason,
            });
        };
        Self::start(file, codec, &recipe, width, height, options).map_err(|failure| failure.at(shown))
    }

    fn start(
        file: &Path,
        codec: ffmpeg::Codec,
        recipe: &Recipe,
        width: u32,
        height: u32,
        options: &VideoOptions,
    ) -> Result<Self, Failure> {
        let rate = Rational(options.fps.numerator() as i32, options.fps.denominator() as i32);
        let time_base = rate.invert();
        let padded = (width.next_multiple_of(recipe.alignment), height.next_multiple_of(recipe.alignment));
        let graph =
            rgb_graph(padded, rate, &recipe.filters).map_err(step("setting up the colour conversion"))?;

        let mut output = format::output_as(file, recipe.muxer).map_err(step("opening the output"))?;
        let context = codec::context::Context::new_with_codec(codec);
        let mut video = context.encoder().video().map_err(step("opening the encoder"))?;
        video.set_width(padded.0);
        video.set_height(padded.1);
        video.set_format(recipe.pixels);
        video.set_time_base(time_base);
        video.set_frame_rate(Some(rate));
        video.set_aspect_ratio(Rational(1, 1));
        if options.format == OutputFormat::Mp4 {
            video.set_color_range(color::Range::MPEG);
            video.set_colorspace(color::Space::BT709);
            video.set_color_primaries(color::Primaries::BT709);
            video.set_color_transfer_characteristic(color::TransferCharacteristic::BT709);
            video.set_threading(threading::Config {
                kind: threading::Type::Frame,
                count: X264_THREADS,
                ..Default::default()
            });
        }
        let video =
            video.open_with(dictionary(&recipe.encoder_options)).map_err(step("opening the encoder"))?;
        {
            let mut stream = output.add_stream_with(&video).map_err(step("opening the output"))?;
            stream.set_time_base(time_base);
            stream.set_rate(rate);
            stream.set_avg_frame_rate(rate);
        }
        if options.format == OutputFormat::Mp4 {
            let mut tags = Dictionary::new();
            if let Some(record) = &options.metadata {
                tags.set(METADATA_KEY, record);
            }
            for (key, text) in &options.tags {
                tags.set(key, text);
            }
            if let Some(time) = &options.creation_time {
                tags.set("creation_time", time);
            }
            output.set_metadata(tags);
        }
        output.write_header_with(dictionary(&recipe.muxer_options)).map_err(step("writing the header"))?;
        Ok(Self { output, encoder: video, graph, time_base, width, height, padded, pushed: 0 })
    }

    fn push(&mut self, rgb: &[u8]) -> Result<(), Failure> {
        let mut picture = frame::Video::new(Pixel::RGB24, self.padded.0, self.padded.1);
        let stride = picture.stride(0);
        fill(picture.data_mut(0), stride, rgb, self.width, self.height, self.padded);
        picture.set_color_range(color::Range::JPEG);
        picture.set_color_space(color::Space::RGB);
        picture.set_color_primaries(color::Primaries::BT709);
        picture.set_color_transfer_characteristic(color::TransferCharacteristic::BT709);
        picture.set_pts(Some(self.pushed));
        self.pushed += 1;
        graph::push(&mut self.graph, Some(&picture)).map_err(step("converting a frame"))?;
        self.encode_converted()
    }

    fn finish(mut self) -> Result<(), Failure> {
        graph::push(&mut self.graph, None).map_err(step("converting a frame"))?;
        self.encode_converted()?;
        self.encoder.send_eof().map_err(step("encoding a frame"))?;
        self.write_packets()?;
        self.output.write_trailer().map_err(step("writing the end of the file"))
    }

    /// Hands what the filter graph has ready to the encoder. A palette is ready after the last frame.
    fn encode_converted(&mut self) -> Result<(), Failure> {
        let mut picture = frame::Video::empty();
        while graph::pull(&mut self.graph, &mut picture).map_err(step("converting a frame"))? {
            picture.set_kind(ffmpeg::picture::Type::None);
            self.encoder.send_frame(&picture).map_err(step("encoding a frame"))?;
            self.write_packets()?;
        }
        Ok(())
    }

    fn write_packets(&mut self) -> Result<(), Failure> {
        let mut packet = Packet::empty();
        loop {
            match self.encoder.receive_packet(&mut packet) {
                Ok(()) => {}
                Err(error) if graph::is_starved(error) => return Ok(()),
                Err(error) => return Err(step("encoding a frame")(error)),
            }
            let time_base = self.output.stream(0).map_or(self.time_base, |stream| stream.time_base());
            packet.set_stream(0);
            packet.set_duration(1);
            packet.rescale_ts(self.time_base, time_base);
            packet.write_interleaved(&mut self.output).map_err(step("writing a frame"))?;
        }
    }
}

/// Copies u8 `[height, width, 3]` into rows of `stride` bytes and repeats the last column and row up to
/// the `padded` size.
fn fill(rows: &mut [u8], stride: usize, rgb: &[u8], width: u32, height: u32, padded: (u32, u32)) {
    let (length, padded_length) = (width as usize * 3, padded.0 as usize * 3);
    for (y, row) in rows.chunks_mut(stride).take(padded.1 as usize).enumerate() {
        let source = y.min(height as usize - 1) * length;
        row[..length].copy_from_slice(&rgb[source..source + length]);
        for x in (length..padded_length).step_by(3) {
            row.copy_within(length - 3..length, x);
        }
    }
}

/// A filter graph that takes RGB24 frames of `size` and gives what `filters` make of them.
fn rgb_graph(size: (u32, u32), rate: Rational, filters: &str) -> Result<filter::Graph, ffmpeg::Error> {
    let input = format!(
        "video_size={}x{}:pix_fmt=rgb24:time_base={}/{}:frame_rate={}/{}:pixel_aspect=1/1",
        size.0, size.1, rate.1, rate.0, rate.0, rate.1
    );
    graph::build(&input, filters)
}

fn dictionary(options: &[(&'static str, String)]) -> Dictionary<'static> {
    options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that accepts no byte stands for a full disk.
    #[test]
    fn a_full_disk_is_named() {
        let device = Path::new("/dev/full");
        for format in [OutputFormat::Mp4, OutputFormat::Webp, OutputFormat::Gif] {
            let options = VideoOptions { format, ..VideoOptions::default() };
            let shown = Path::new("film.out");
            let written = Stream::open(device, shown, 64, 48, &options).and_then(|mut stream| {
                for shade in 0..9u8 {
                    stream.push(&vec![shade; 64 * 48 * 3]).map_err(|failure| failure.at(shown))?;
                }
                stream.finish().map_err(|failure| failure.at(shown))
            });
            let error = written.expect_err("the device is full");
            assert_eq!(error.to_string(), "film.out: cannot be written: the disk is full", "{format}");
        }
    }

    #[test]
    fn padding_repeats_the_last_column_and_row() {
        let rgb: Vec<u8> = (0..18).collect(); // 3x2 pixels
        let mut rows = vec![255; 4 * 16];
        fill(&mut rows, 16, &rgb, 3, 2, (4, 4));
        assert_eq!(rows[..16], [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 255, 255, 255, 255]);
        assert_eq!(rows[16..28], [9, 10, 11, 12, 13, 14, 15, 16, 17, 15, 16, 17]);
        assert_eq!(rows[48..60], rows[16..28]);
    }
}
