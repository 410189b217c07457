//! The velocity of each step: which passes of the DiT it takes, and which it reuses.

use candle_core::Tensor;
use wan_core::geometry::LatentSize;
use wan_core::progress::{CancelToken, Observer};
use wan_dit::{BlockResiduals, Context, Dit, DitInput, KeyCache, RopeTable};
use wan_sampler::classifier_free_guidance;

use crate::condition::Conditioning;
use crate::state::DenoiseState;
use crate::swapping::Swapping;
use crate::windows::blended;
use crate::{PipelineError, Plan, Result};

/// A loaded DiT with everything of a job that stays the same from step to step.
pub(crate) struct Velocities<'a> {
    plan: &'a Plan,
    dit: &'a mut Swapping<Dit>,
    observer: &'a dyn Observer,
    cancel: &'a CancelToken,
    condition: Option<Tensor>,
    rope: RopeTable,
    /// Of each prompt, and of the negative prompt if a step is guided.
    contexts: (Vec<Context>, Vec<Context>),
    /// Whether each step reuses what the blocks added in an earlier one.
    reused: Vec<bool>,
    /// What the blocks added in the last computed step, and its sample, where the next step reuses it.
    kept: Option<(BlockResiduals, Tensor)>,
}

impl<'a> Velocities<'a> {
    /// Embeds the job's prompts and image. `reused`: for each step, whether it reuses an earlier one.
    ///
    /// Errors: a negative prompt that is missing; computing; those of [`Swapping::run`].
    pub fn new(
        plan: &'a Plan,
        conditioning: &Conditioning,
        reused: Vec<bool>,
        dit: &'a mut Swapping<Dit>,
        observer: &'a dyn Observer,
        cancel: &'a CancelToken,
    ) -> Result<Self> {
        let device = dit.model().device().clone();
        let to_device = |t: &Tensor| t.to_device(&device);
        let image = conditioning.image.as_ref().map(to_device).transpose()?;
        let condition = conditioning.condition.as_ref().map(to_device).transpose()?;
        let mut texts = conditioning.texts().map(to_device).collect::<Result<Vec<_>, _>>()?;
        let prompts = texts.len();
        if plan.uses_guidance() {
            let negative = conditioning.negative.as_ref().ok_or_else(|| {
                PipelineError::request("cfg", plan.request.cfg, "1, or embeddings of a negative prompt")
            })?;
            texts.push(to_device(negative)?);
        }
        let texts: Vec<&Tensor> = texts.iter().collect();
        let mut contexts = dit.run("keys of the prompts", observer, |dit| {
            Ok(dit.contexts(&texts, image.as_ref(), KeyCache::Keep)?)
        })?;
        let negative = contexts.split_off(prompts);
        let seen = LatentSize { frames: plan.window_frames(), ..plan.latent };
        let rope = dit.model().rope_of_window(seen, plan.latent.frames, plan.request.riflex_freq_index)?;
        let contexts = (contexts, negative);
        Ok(Self { plan, dit, observer, cancel, condition, rope, contexts, reused, kept: None })
    }

    /// Goes on before step `step` (from 0): what that step reuses is made again.
    ///
    /// Errors: a state without the sample of the step that is reused; computing.
    pub fn resume(&mut self, step: usize, state: &DenoiseState) -> Result<()> {
        if !self.reuses(step) {
            return Ok(());
        }
        let Some(sample) = &state.reused_from else {
            let expected = "the sample of the step that the next one reuses";
            return Err(wan_core::Error::invalid("state of the run", "none", expected).into());
        };
        let computed = (0..step).rev().find(|step| !self.reuses(*step)).unwrap_or(0);
        let sample = sample.to_device(self.dit.model().device())?;
        self.passes(computed, 0, &sample)?;
        Ok(())
    }

    /// How many times the DiT runs in each step; 0 where it reuses another.
    pub fn passes_per_step(&self) -> Vec<usize> {
        let windows = |step| match &self.plan.request.context {
            Some(windows) => windows.of_step(step, self.plan.latent.frames).len(),
            None => 1,
        };
        let contexts = self.plan.contexts_per_step().into_iter().enumerate();
        contexts.map(|(step, count)| if self.reuses(step) { 0 } else { count * windows(step) }).collect()
    }

    /// The guided velocity of `latents` `[1, 16, F, h, w]` in step `step` (from 0), of that shape, f32.
    ///
    /// Errors: computing; [`wan_core::Error::Cancelled`].
    pub fn at(&mut self, step: usize, latents: &Tensor) -> Result<Tensor> {
        let plan = self.plan;
        match &plan.request.context {
            None => self.guided(step, 0, latents),
            Some(windows) => blended(windows, step, latents, |window, part| {
                let prompt = prompt_of(window, plan.latent.frames, self.contexts.0.len());
                self.guided(step, prompt, part)
            }),
        }
    }

    /// The sample that a state before step `step` needs, where that step reuses one.
    pub fn reused_by(&self, step: usize) -> Option<&Tensor> {
        self.kept.as_ref().filter(|_| self.reuses(step)).map(|(_, sample)| sample)
    }

    fn reuses(&self, step: usize) -> bool {
        self.reused.get(step).is_some_and(|reused| *reused)
    }

    fn guided(&mut self, step: usize, prompt: usize, latents: &Tensor) -> Result<Tensor> {
        let velocities = self.passes(step, prompt, latents)?;
        match velocities.as_slice() {
            [cond, uncond] => Ok(classifier_free_guidance(cond, uncond, self.plan.request.cfg)?),
            [cond, ..] => Ok(cond.clone()),
            [] => Err(wan_core::Error::invalid("velocities", 0, "one per context").into()),
        }
    }

    /// The velocities of a prompt and, in a guided step, of the negative prompt.
    fn passes(&mut self, step: usize, prompt: usize, latents: &Tensor) -> Result<Vec<Tensor>> {
        let (plan, cancel) = (self.plan, self.cancel);
        let input = DitInput {
            latents,
            condition: self.condition.as_ref(),
            timestep: plan.schedule.timesteps()[step],
            rope: &self.rope,
        };
        let (prompts, negative) = &self.contexts;
        let negative = negative.iter().filter(|_| plan.guided_steps().contains(&step));
        let contexts: Vec<&Context> = std::iter::once(&prompts[prompt]).chain(negative).collect();
        let stage = stage(step, plan);
        if let (true, Some((residuals, _))) = (self.reuses(step), &self.kept) {
            return self.dit.run(&stage, self.observer, |dit| {
                Ok(dit.forward_reusing(&input, residuals, contexts.len())?)
            });
        }
        self.kept = None; // its memory first
        if !self.reuses(step + 1) {
            return self
                .dit
                .run(&stage, self.observer, |dit| Ok(dit.forward_lockstep(&input, &contexts, cancel)?));
        }
        let (velocities, residuals) = self
            .dit
            .run(&stage, self.observer, |dit| Ok(dit.forward_lockstep_keeping(&input, &contexts, cancel)?))?;
        self.kept = Some((residuals, latents.clone()));
        Ok(velocities)
    }
}

/// A step, from 0, for messages.
pub(crate) fn stage(step: usize, plan: &Plan) -> String {
    format!("denoise step {} of {}", step + 1, plan.schedule.steps())
}

/// Which of several prompts a window follows: each has an equal part of the video, and the window's last frame counts.
fn prompt_of(window: &[usize], frames: usize, prompts: usize) -> usize {
    let last = window.iter().copied().max().unwrap_or(0);
    (last * prompts / frames).min(prompts - 1)
}
