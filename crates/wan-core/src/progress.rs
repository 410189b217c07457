//! What a running job tells its caller, and how the caller stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{Error, Result};

/// The stages of a job, in the order in which data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// UMT5 over both prompts.
    EncodeText,
    /// CLIP over the image.
    EncodeImage,
    /// VAE over the conditioning frames.
    EncodeCondition,
    /// The DiT under the sampler; one step per sigma.
    Denoise,
    /// VAE from latents to frames; one step per latent frame.
    Decode,
    /// Frames into the video file.
    Encode,
}

impl Stage {
    /// Stable lower-case name, used in messages and in JSON progress.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncodeText => "encode-text",
            Self::EncodeImage => "encode-image",
            Self::EncodeCondition => "encode-condition",
            Self::Denoise => "denoise",
            Self::Decode => "decode",
            Self::Encode => "encode",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A stage begins; it will take `total` steps.
    Started {
        /// The stage.
        stage: Stage,
        /// Number of steps that follow.
        total: usize,
    },
    /// `step` of `total` steps are done (counted from 1), the last one took `took`.
    Step {
        /// The stage.
        stage: Stage,
        /// Steps done.
        step: usize,
        /// Steps in all.
        total: usize,
        /// Duration of this step.
        took: Duration,
    },
    /// How many times the model runs in each step of [`Stage::Denoise`], told before the first one where the job asks
    /// for steps that take fewer.
    Passes {
        /// One number for each step; 0 where it reuses an earlier step.
        per_step: &'a [usize],
    },
    /// A stage is done.
    Finished {
        /// The stage.
        stage: Stage,
        /// Its whole duration, loading of weights included.
        took: Duration,
    },
    /// A cheap look at the present latents: one RGB8 image per latent frame.
    Preview {
        /// Denoising step the preview belongs to, counted from 1.
        step: usize,
        /// Latent columns.
        width: usize,
        /// Latent rows.
        height: usize,
        /// `F` images of `height * width * 3` bytes.
        frames: &'a [Vec<u8>],
    },
    /// Something the user should know: an adjusted value, a hint.
    Note(&'a str),
}

/// Receives the events of a job. Called on the thread that computes: return quickly.
pub trait Observer: Sync {
    /// One event.
    fn on_event(&self, event: &Event<'_>);

    /// Whether [`Event::Preview`] is wanted after each denoising step.
    fn wants_previews(&self) -> bool {
        false
    }
}

/// An observer that ignores everything.
pub struct Silent;

impl Observer for Silent {
    fn on_event(&self, _: &Event<'_>) {}
}

/// Asks a running job to stop; clones share the request.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a stop. The job ends between two steps.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Error::Cancelled`] once a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
