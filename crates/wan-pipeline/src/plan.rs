use std::ops::Range;

use candle_core::Tensor;
use wan_core::geometry::{self, LatentSize};
use wan_models::ModelType;
use wan_sampler::{Schedule, SchedulerKind};

use crate::{PipelineError, Request, Result, TeaCache};

/// Everything that follows from a request before any weight is touched. Later stages derive no size again.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The request, as asked.
    pub request: Request,
    /// Width of the video in pixels, a multiple of 16.
    pub width: usize,
    /// Height of the video in pixels, a multiple of 16.
    pub height: usize,
    /// Frames of the video, 4k+1.
    pub frames: usize,
    /// Size of the latents.
    pub latent: LatentSize,
    /// Sigmas and timesteps.
    pub schedule: Schedule,
    /// Whether the last frame is given as well as the first.
    pub end_image: bool,
    /// What was adjusted, and hints; one line each.
    pub notes: Vec<String>,
    /// How width and height follow from those asked for.
    pub(crate) sizing: Sizing,
}

/// An image that is scaled up by more than this looks soft in the video.
const NOTABLY_ENLARGED: f64 = 1.25;

/// How the size of the video follows from the one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizing {
    /// It is settled: there are latents of it.
    Fixed,
    /// Rounded down to whole tokens.
    Asked,
    /// The shape of this image, (width, height), at the area asked for.
    Image((usize, usize)),
}

impl Sizing {
    /// Width and height of the video where `target` is asked for; `None` if no whole token is left of it, or the size
    /// is settled.
    pub fn size(self, target: (usize, usize)) -> Option<(usize, usize)> {
        let size = match self {
            Self::Fixed => return None,
            Self::Asked => (geometry::floor_pixels(target.0), geometry::floor_pixels(target.1)),
            Self::Image(image) => geometry::adjust_resolution(image, target),
        };
        Some(size).filter(|(width, height)| *width > 0 && *height > 0)
    }

    /// Says why the video has another size than `target`.
    fn note(self, target: (usize, usize), size: (usize, usize)) -> String {
        match self {
            // What is asked for would fit; another shape would only be stretched.
            Self::Image(image)
                if image.0 * target.1 == image.1 * target.0 && Self::Asked.size(target) == Some(target) =>
            {
                format!(
                    "size adjusted from {0}x{1} to {2}x{3}: rounded to multiples of 16 as ComfyUI-WanVideoWrapper does for \
                     images; --no-adjust-resolution keeps {0}x{1}",
                    target.0, target.1, size.0, size.1
                )
            }
            Self::Image(image) => format!(
                "size adjusted from {}x{} to {}x{}: the image's shape ({}x{}) at the same area, in multiples of 16",
                target.0, target.1, size.0, size.1, image.0, image.1
            ),
            Self::Asked | Self::Fixed => format!(
                "size rounded down from {}x{} to {}x{}: width and height are multiples of 16",
                target.0, target.1, size.0, size.1
            ),
        }
    }
}

impl Plan {
    /// Checks a request and derives its sizes. `image` is the size (width, height) of the input image.
    ///
    /// Errors: [`PipelineError::Request`] for values that make no sense or do not fit the model: an
    /// image-to-video model needs an image, a text-to-video model takes none.
    pub fn new(request: Request, model: ModelType, image: Option<(usize, usize)>) -> Result<Self> {
        request.check()?;
        let mut notes = Vec::new();
        let target = (request.width, request.height);
        let sizing = match (model, image) {
            (ModelType::I2v, None) => {
                return Err(PipelineError::request(
                    "image",
                    "none",
                    "an input image (--image FILE): this model turns an image into a video",
                ));
            }
            (ModelType::T2v, Some(_)) => {
                return Err(PipelineError::request(
                    "image",
                    "an input image",
                    "none: this model makes videos from text alone",
                ));
            }
            (ModelType::I2v, Some(image)) if request.adjust_resolution => Sizing::Image(image),
            _ => Sizing::Asked,
        };
        let Some((width, height)) = sizing.size(target) else {
            return Err(PipelineError::request(
                "image",
                image.map_or("none".into(), |(w, h)| format!("{w}x{h} pixels")),
                format!(
                    "a shape that leaves at least 16 pixels a side at the area of {}x{}",
                    target.0, target.1
                ),
            ));
        };
        if (width, height) != target {
            notes.push(sizing.note(target, (width, height)));
        }
        let frames = geometry::floor_frames(request.frames);
        if frames != request.frames {
            notes.push(format!(
                "frames rounded down from {} to {frames}: the model makes 4k+1",
                request.frames
            ));
        }
        if let Some((w, h)) = image.filter(|(w, h)| {
            let enlarged = (width as f64 / *w as f64).max(height as f64 / *h as f64);
            enlarged > NOTABLY_ENLARGED
        }) {
            notes.push(format!(
                "hint: the image has {w}x{h} pixels and is enlarged to {width}x{height}; a larger one gives better videos"
            ));
        }
        if model == ModelType::I2v && request.context.is_some() {
            let expected =
                "none: context windows are for text-to-video models; --extend continues an image's video";
            return Err(PipelineError::request("context-schedule", "context windows", expected));
        }
        if frames > 81 && request.context.is_none() {
            notes.push(format!("hint: the model was trained on 81 frames; {frames} may drift or repeat"));
        }
        if request.denoise_strength < 1.0 {
            notes.push(
                "hint: image-to-video starts from noise; a denoise strength below 1 lowers its quality"
                    .into(),
            );
        }
        if matches!(request.scheduler, SchedulerKind::KSampler(_)) && request.scheduler.needs_noise() {
            notes.push(format!(
                "{}: the noise of its steps is not ComfyUI's; a seed gives another video than there",
                request.scheduler
            ));
        }
        Ok(Self { notes, sizing, ..Self::for_size(request, (width, height), frames)? })
    }

    /// The plan of a job whose size (width, height) and frames are settled already.
    pub(crate) fn for_size(request: Request, size: (usize, usize), frames: usize) -> Result<Self> {
        request.check()?;
        let (width, height) = size;
        let schedule = request.schedule()?;
        let latent = LatentSize::of_video(frames, width, height);
        Ok(Self {
            request,
            width,
            height,
            frames,
            latent,
            schedule,
            end_image: false,
            notes: Vec::new(),
            sizing: Sizing::Fixed,
        })
    }

    /// The plan of decoding `latents` `[1, 16, F, h, w]`, whose size decides the video's.
    ///
    /// Errors: [`PipelineError::Core`] with a shape error for anything else.
    pub fn for_latents(request: Request, latents: &Tensor) -> Result<Self> {
        let &[1, geometry::LATENT_CHANNELS, frames, height, width] = latents.dims() else {
            return Err(wan_core::Error::shape("latents", latents.dims(), "[1, 16, F, h, w]").into());
        };
        let size = (width * geometry::SPATIAL_FACTOR, height * geometry::SPATIAL_FACTOR);
        Self::for_size(request, size, geometry::pixel_frames(frames))
    }

    /// The plan with its last frame given, or not.
    ///
    /// Errors: [`PipelineError::Request`] for a video of a single frame, which has no other one.
    pub fn with_end_image(self, end_image: bool) -> Result<Self> {
        if end_image && self.frames == 1 {
            return Err(PipelineError::request("frames", 1, "at least 5 with an end image"));
        }
        Ok(Self { end_image, ..self })
    }

    /// Latent frames that the DiT sees at a time.
    pub(crate) fn window_frames(&self) -> usize {
        let all = self.latent.frames;
        self.request.context.map_or(all, |windows| windows.latent_frames().min(all))
    }

    /// Images that the DiT attends to.
    pub(crate) fn images(&self) -> usize {
        if self.end_image { 2 } else { 1 }
    }

    /// Whether a step runs the model on the negative prompt as well.
    pub fn uses_guidance(&self) -> bool {
        !self.guided_steps().is_empty()
    }

    /// The steps, from 0, that run the model on the negative prompt as well.
    pub(crate) fn guided_steps(&self) -> Range<usize> {
        let Request { cfg, guidance_interval, .. } = &self.request;
        if *cfg == 1.0 { 0..0 } else { guidance_interval.steps(self.schedule.steps()) }
    }

    /// For how many contexts the DiT runs in each step, or in each window of it: prompt, and negative prompt.
    pub(crate) fn contexts_per_step(&self) -> Vec<usize> {
        let guided = self.guided_steps();
        (0..self.schedule.steps()).map(|step| 1 + usize::from(guided.contains(&step))).collect()
    }

    /// Whether some steps may take fewer passes of the DiT than others.
    pub(crate) fn leaves_passes_out(&self) -> bool {
        let partly = self.guided_steps() != (0..self.schedule.steps());
        self.teacache().is_some() || (self.request.cfg != 1.0 && partly)
    }

    /// TeaCache, where it is on.
    pub(crate) fn teacache(&self) -> Option<TeaCache> {
        self.request.teacache.filter(|options| options.threshold > 0.0)
    }

    /// Shape of the latents: `[1, 16, F, h, w]`.
    pub fn latent_shape(&self) -> [usize; 5] {
        [1, geometry::LATENT_CHANNELS, self.latent.frames, self.latent.height, self.latent.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of an image of this size where 832x480 is asked for.
    fn notes(image: (usize, usize), adjust_resolution: bool) -> String {
        let model = wan_models::Registry::builtin().unwrap().find("tiny").unwrap();
        let plain = Request::with_defaults(&model.defaults).unwrap();
        let request = Request { width: 832, height: 480, frames: 5, adjust_resolution, ..plain };
        Plan::new(request, ModelType::I2v, Some(image)).unwrap().notes.join("\n")
    }

    #[test]
    fn a_shape_that_is_kept_all_the_same_is_no_contradiction() {
        assert_eq!(
            notes((832, 480), true),
            "size adjusted from 832x480 to 832x464: rounded to multiples of 16 as ComfyUI-WanVideoWrapper does for images; \
             --no-adjust-resolution keeps 832x480"
        );
        assert_eq!(notes((832, 480), false), "");
        let square = notes((900, 900), true);
        assert!(square.contains("the image's shape (900x900)") && !square.contains("keeps"), "{square}");
    }

    #[test]
    fn noise_that_is_not_comfyuis_is_told() {
        let model = wan_models::Registry::builtin().unwrap().find("tiny").unwrap();
        let plain = Request::with_defaults(&model.defaults).unwrap();
        for scheduler in SchedulerKind::ALL {
            let request = Request { width: 128, height: 128, steps: 4, scheduler, ..plain.clone() };
            let notes = Plan::new(request, ModelType::I2v, Some((128, 128))).unwrap().notes.join("\n");
            let told = notes.contains("the noise of its steps is not ComfyUI's");
            let of_comfyui = matches!(scheduler, SchedulerKind::KSampler(_));
            assert_eq!(told, of_comfyui && scheduler.needs_noise(), "{scheduler}: {notes}");
        }
    }

    #[test]
    fn images_are_small_beside_the_video() {
        let hint =
            "hint: the image has 400x240 pixels and is enlarged to 832x480; a larger one gives better videos";
        assert_eq!(notes((400, 240), false), hint);
        for image in [(832, 480), (720, 400), (4000, 470)] {
            assert!(!notes(image, false).contains("hint"), "{image:?}");
        }
    }
}
