//! What the blocks added in one forward, used in place of the blocks in another.

use candle_core::{DType, Device, Tensor};
use wan_core::WeightSet;
use wan_core::geometry::LatentSize;
use wan_core::progress::CancelToken;
use wan_core::testkit::{Golden, distance, repo_path};
use wan_dit::{Context, Dit, DitInput, KeyCache, RopeTable, TimeSignal};

struct Case {
    dit: Dit,
    latents: Tensor,
    condition: Tensor,
    rope: RopeTable,
    contexts: Vec<Context>,
}

impl Case {
    /// The golden i2v case under two prompts.
    fn new() -> Self {
        let weights = WeightSet::open(&repo_path("tests/golden/dit/i2v.weights.safetensors")).unwrap();
        let dit = Dit::open(&weights, None, &Device::Cpu, DType::F32).unwrap();
        let io = Golden::open("dit/i2v.io.safetensors");
        let (text, image) = (io.f32("text_embeds"), io.f32("image_embeds"));
        let other = (&text * 0.5).unwrap();
        let latents = io.f32("latents");
        let (_, _, frames, height, width) = latents.dims5().unwrap();
        Self {
            rope: dit.rope(LatentSize { frames, height, width }, 0).unwrap(),
            contexts: dit.contexts(&[&text, &other], Some(&image), KeyCache::Keep).unwrap(),
            dit,
            latents,
            condition: io.f32("condition"),
        }
    }

    fn input(&self, timestep: f32) -> DitInput<'_> {
        DitInput { latents: &self.latents, condition: Some(&self.condition), timestep, rope: &self.rope }
    }

    fn contexts(&self) -> Vec<&Context> {
        self.contexts.iter().collect()
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn keeping_changes_no_bit_and_reusing_at_once_gives_the_same_velocity() {
    let (case, cancel) = (Case::new(), CancelToken::new());
    let plain = case.dit.forward_lockstep(&case.input(735.0), &case.contexts(), &cancel).unwrap();
    let kept = case.dit.forward_lockstep_keeping(&case.input(735.0), &case.contexts(), &cancel);
    let (velocities, residuals) = kept.unwrap();
    assert_eq!(residuals.contexts(), 2);
    let reused = case.dit.forward_reusing(&case.input(735.0), &residuals, 2).unwrap();
    assert_eq!(reused.len(), 2);
    for ((plain, kept), reused) in plain.iter().zip(&velocities).zip(&reused) {
        assert_eq!(values(plain), values(kept));
        // tokens + (stream - tokens) is the stream up to f32 rounding.
        assert!(distance(reused, plain).unwrap().relative_l2 < 1e-5);
    }
    assert!(distance(&reused[0], &reused[1]).unwrap().relative_l2 > 1e-3, "each context has its own");
    let first = case.dit.forward_reusing(&case.input(735.0), &residuals, 1).unwrap();
    assert_eq!(values(&first[0]), values(&reused[0]));
}

/// Beside the blocks, latents and timestep matter as ever: the tokens and the head are those of the new step.
#[test]
fn a_later_step_has_its_own_tokens_and_head() {
    let (mut case, cancel) = (Case::new(), CancelToken::new());
    let (old, residuals) =
        case.dit.forward_lockstep_keeping(&case.input(735.0), &case.contexts(), &cancel).unwrap();
    let later = case.dit.forward_reusing(&case.input(700.0), &residuals, 1).unwrap();
    assert!(distance(&later[0], &old[0]).unwrap().relative_l2 > 1e-4, "the timestep does not reach the head");
    case.latents = (&case.latents * 0.9).unwrap();
    let moved = case.dit.forward_reusing(&case.input(735.0), &residuals, 1).unwrap();
    assert!(distance(&moved[0], &old[0]).unwrap().relative_l2 > 1e-4, "the latents do not reach the tokens");
    let exact = case.dit.forward_lockstep(&case.input(735.0), &case.contexts(), &cancel).unwrap();
    assert!(distance(&moved[0], &exact[0]).unwrap().relative_l2 > 1e-4, "the blocks have run");
}

#[test]
fn residuals_that_do_not_fit_are_refused() {
    let (mut case, cancel) = (Case::new(), CancelToken::new());
    let contexts = case.contexts();
    let (_, residuals) =
        case.dit.forward_lockstep_keeping(&case.input(735.0), &contexts[..1], &cancel).unwrap();
    let error = case.dit.forward_reusing(&case.input(735.0), &residuals, 2).unwrap_err().to_string();
    assert_eq!(error, "residuals: found 1, expected those of 2 contexts");
    let (_, _, frames, height, width) = case.latents.dims5().unwrap();
    let wider = |t: &Tensor| Tensor::cat(&[t, t], 4).unwrap();
    (case.latents, case.condition) = (wider(&case.latents), wider(&case.condition));
    case.rope = case.dit.rope(LatentSize { frames, height, width: 2 * width }, 0).unwrap();
    let error = case.dit.forward_reusing(&case.input(735.0), &residuals, 1).unwrap_err().to_string();
    assert!(error.starts_with("residual: found shape"), "{error}");
}

#[test]
fn the_signals_follow_the_timestep_alone() {
    let dit = Case::new().dit;
    let dim = dit.config().dim;
    for (signal, len) in [(TimeSignal::Embedding, dim), (TimeSignal::Projection, 6 * dim)] {
        let at = |t| dit.time_signal(t, signal).unwrap();
        assert_eq!(at(735.0).len(), len);
        assert_eq!(at(735.0), at(735.0));
        assert_ne!(at(735.0), at(734.0));
    }
}
