use wan_core::geometry::LatentSize;
use wan_core::progress::Stage;
use wan_dit::Numerics;
use wan_vae::Tiling;

use crate::plan::Sizing;
use crate::{BlocksToSwap, OutputRange, Plan, Result, TilingChoice};

/// What of a plan decides how much memory it takes.
#[derive(Debug, Clone)]
pub(crate) struct JobShape {
    /// Width and height that were asked for.
    pub asked: (usize, usize),
    /// Width of the video in pixels.
    pub width: usize,
    /// Height of the video in pixels.
    pub height: usize,
    /// Frames of the video.
    pub frames: usize,
    /// Prompts that the DiT runs for.
    pub contexts: usize,
    /// Whether what the DiT's blocks add is kept for later steps.
    pub keeps_residuals: bool,
    /// Latent frames of a context window, if the DiT sees the video in windows.
    pub window: Option<usize>,
    /// Images that the DiT attends to, where it attends to any.
    pub images: usize,
    /// Whether and when the VAE decodes in tiles.
    pub tiling: TilingChoice,
    /// Sizes of the tiles.
    pub tile: Tiling,
    /// Whether all frames are kept until the last one is known.
    pub keeps_frames: bool,
    /// How a GPU multiplies.
    pub numerics: Numerics,
    /// DiT blocks in host memory.
    pub blocks_to_swap: BlocksToSwap,
    /// How the size follows from the one asked for.
    pub sizing: Sizing,
    /// First stage that still has to run.
    pub first: Stage,
}

impl JobShape {
    /// `plan`, from the stage `first` on.
    pub fn of(plan: &Plan, first: Stage) -> Self {
        let request = &plan.request;
        Self {
            asked: (request.width, request.height),
            width: plan.width,
            height: plan.height,
            frames: plan.frames,
            contexts: request.prompts().len() + usize::from(plan.uses_guidance()),
            keeps_residuals: plan.teacache().is_some(),
            window: request.context.map(|_| plan.window_frames()),
            images: plan.images(),
            tiling: request.vae_tiling,
            tile: request.tile,
            keeps_frames: request.output_range == OutputRange::Minmax,
            numerics: request.numerics(),
            blocks_to_swap: request.blocks_to_swap,
            sizing: plan.sizing,
            first,
        }
    }

    /// Size of the latents.
    pub fn latent(&self) -> LatentSize {
        LatentSize::of_video(self.frames, self.width, self.height)
    }

    /// Video tokens that the DiT sees at a time.
    pub fn tokens(&self) -> usize {
        let latent = self.latent();
        LatentSize { frames: self.window.map_or(latent.frames, |w| w.min(latent.frames)), ..latent }.tokens()
    }

    /// Whether the size may still be chosen, which that of latents in hand may not.
    pub fn is_free(&self) -> bool {
        self.sizing != Sizing::Fixed
    }

    /// The same job with another width and height asked for; `None` if nothing is left of the picture.
    pub fn with_size(&self, asked: (usize, usize)) -> Option<Self> {
        let (width, height) = self.sizing.size(asked)?;
        Some(Self { asked, width, height, ..self.clone() })
    }

    /// Pixels of a frame.
    pub fn pixels(&self) -> u64 {
        (self.width * self.height) as u64
    }

    /// Bytes of the decoded frames in f32.
    pub fn frames_bytes(&self) -> u64 {
        self.frames as u64 * self.pixels() * 3 * 4
    }

    /// Bytes of one latent channel in f32, all frames.
    pub fn latent_plane_bytes(&self) -> u64 {
        let latent = self.latent();
        (latent.frames * latent.height * latent.width * 4) as u64
    }

    /// The same job, its tiles checked.
    pub fn checked(self) -> Result<Self> {
        self.tile.check()?;
        Ok(self)
    }
}
