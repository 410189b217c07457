//! FFmpeg's filter graphs with one way in and one way out, and what else the encoder and the reader
//! of videos share.

use std::sync::Once;

use ffmpeg::{filter, frame};
use ffmpeg_next as ffmpeg;

/// Initialises FFmpeg once and silences it: its messages reach the user as our errors.
pub(crate) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Registration cannot fail since FFmpeg 4; a missing codec is reported where it is looked up.
        let _ = ffmpeg::init();
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    });
}

/// Names of the two ends of a filter graph.
const SOURCE: &str = "in";
const SINK: &str = "out";

/// A filter graph from the arguments of its source and the text of its filters.
pub(crate) fn build(input: &str, filters: &str) -> Result<filter::Graph, ffmpeg::Error> {
    let find = |name| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
    let mut graph = filter::Graph::new();
    graph.add(&find("buffer")?, SOURCE, input)?;
    graph.add(&find("buffersink")?, SINK, "")?;
    graph.output(SOURCE, 0)?.input(SINK, 0)?.parse(filters)?;
    graph.validate()?;
    Ok(graph)
}

/// Sends a frame into a graph, or with `None` the end of the stream.
pub(crate) fn push(graph: &mut filter::Graph, picture: Option<&frame::Video>) -> Result<(), ffmpeg::Error> {
    let mut source = node(graph, SOURCE)?;
    match picture {
        Some(picture) => source.source().add(picture),
        None => source.source().flush(),
    }
}

/// Takes a frame out of a graph; `false` where none is ready.
pub(crate) fn pull(graph: &mut filter::Graph, picture: &mut frame::Video) -> Result<bool, ffmpeg::Error> {
    match node(graph, SINK)?.sink().frame(picture) {
        Ok(()) => Ok(true),
        Err(error) if is_starved(error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn node(graph: &mut filter::Graph, name: &str) -> Result<filter::Context, ffmpeg::Error> {
    graph.get(name).ok_or(ffmpeg::Error::FilterNotFound)
}

/// Whether a filter or codec only waits for more input, or has reached its end.
pub(crate) fn is_starved(error: ffmpeg::Error) -> bool {
    matches!(error, ffmpeg::Error::Eof | ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN })
}
