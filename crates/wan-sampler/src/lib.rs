//! Flow-matching samplers for Wan2.1: sigma grids, solvers, guidance, and torch's CPU noise.
//!
//! The flow convention throughout: `x_sigma = (1 - sigma) x0 + sigma noise`, the model predicts the
//! velocity `v = noise - x0`, hence `x0 = x - sigma v`, and the model's time is `t = 1000 sigma`.
//!
//! One denoising run:
//!
//! 1. [`TorchRng::seed`], then [`TorchRng::randn_tensor`] for the initial latents;
//! 2. [`Schedule::new`] for the sigmas and timesteps;
//! 3. [`Schedule::sampler`], then one [`Sampler::step`] per timestep with the guided velocity
//!    ([`classifier_free_guidance`]). Where [`Sampler::needs_noise`] says so, each step takes one more
//!    draw of the same generator.
//!
//! A run can stop after any step: [`Sampler::state`] and [`TorchRng::state`] hold everything the
//! remaining steps depend on, and a restored run gives the same bytes as an uninterrupted one.
//!
//! Pitfalls, each covered by a test:
//! - timesteps are truncated, not rounded, and from the f64 product (499, not 500, at N = 30);
//! - the last step is first order for every number of steps, not only below fifteen;
//! - sigma 1 and 0 are handled by IEEE infinities in the log-SNR, not by an epsilon;
//! - UniPC does not recompute the data prediction after its correction;
//! - only the low 32 bits of a seed matter.

mod beta_spacing;
mod deis;
mod distill_grid;
mod dpmpp;
mod dpmpp_sde;
mod error;
mod euler;
mod grid;
mod guidance;
mod kind;
mod ksampler;
mod ksampler_grid;
mod ksampler_sigmas;
mod lcm;
mod linspace;
mod mt19937;
mod noise;
mod res_multistep;
mod sampler;
mod schedule;
mod snr;
mod unipc;
mod unipc_ksampler;

pub use deis::Deis;
pub use dpmpp::DpmPp2M;
pub use dpmpp_sde::DpmPpSde;
pub use error::{Result, SamplerError};
pub use euler::Euler;
pub use grid::SigmaGrid;
pub use guidance::{GuidanceInterval, classifier_free_guidance};
pub use kind::SchedulerKind;
pub use ksampler::{ComfySampler, ComfyScheduler, KSampler};
pub use lcm::Lcm;
pub use noise::{RngState, TorchRng};
pub use res_multistep::ResMultistep;
pub use sampler::{Sampler, SamplerState};
pub use schedule::Schedule;
pub use unipc::UniPc;
pub use unipc_ksampler::UniPcKSampler;
