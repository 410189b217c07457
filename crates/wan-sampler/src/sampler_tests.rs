//! All solvers against the reference's numbers, and the properties they share.
//!
//! Expected values: Wan2.1 `fm_solvers.py`, `fm_solvers_unipc.py` and diffusers'
//! FlowMatchEulerDiscreteScheduler with PyTorch 2.15 on the CPU, shift 5.

use candle_core::Device;
use sha2::{Digest, Sha256};

use super::*;
use crate::{Schedule, SigmaGrid, TorchRng};
use SchedulerKind::{
    DpmPp2M, DpmPpSde, DpmPpSdeBeta, Euler, EulerBeta, FlowMatchDistill, Lcm, LcmBeta, ResMultistep, UniPc,
    UniPcBeta,
};

const SHAPE: [usize; 6] = [1, 4, 2, 2, 2, 1];

fn ksampler(name: &str) -> SchedulerKind {
    let kind = name.parse().unwrap();
    assert!(matches!(kind, SchedulerKind::KSampler(_)), "{name}");
    kind
}

fn schedule(kind: SchedulerKind, grid: SigmaGrid, steps: usize) -> Schedule {
    Schedule::with_grid(kind, grid, steps, 5.0, 1.0).unwrap()
}

/// Initial noise and step noise from seed 42, velocities from seed 7 in one draw.
struct Inputs {
    sample: Tensor,
    velocities: Vec<Tensor>,
    noise: Vec<Tensor>,
}

impl Inputs {
    fn new(steps: usize) -> Self {
        let mut rng = TorchRng::seed(42);
        let mut draw = || rng.randn_tensor(SHAPE.to_vec(), &Device::Cpu).unwrap();
        let sample = draw();
        let noise = (0..steps).map(|_| draw()).collect();
        let shape: Vec<usize> = [&[steps][..], &SHAPE].concat();
        let velocities = TorchRng::seed(7).randn_tensor(shape, &Device::Cpu).unwrap();
        let velocities = (0..steps).map(|i| velocities.get(i).unwrap()).collect();
        Self { sample, velocities, noise }
    }

    fn run(&self, sampler: &mut dyn Sampler, from: usize, mut sample: Tensor) -> Vec<Tensor> {
        let mut samples = Vec::new();
        for i in from..self.velocities.len() {
            let noise = sampler.needs_noise().then(|| &self.noise[i]);
            sample = sampler.step(&self.velocities[i], &sample, noise).unwrap();
            samples.push(sample.clone());
        }
        samples
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// One value, sample 1, velocity 0.1 (i + 1) in step i, ten steps.
#[test]
fn scalar_runs_equal_the_references() {
    #[rustfmt::skip]
    let rows = [
        (DpmPp2M, SigmaGrid::Twice,
         [0.999557, 0.998462, 0.996145, 0.992123, 0.985304, 0.973506, 0.951790, 0.906476, 0.782481, 0.047187]),
        (DpmPp2M, SigmaGrid::Original,
         [0.997826, 0.992650, 0.982210, 0.965126, 0.938327, 0.896572, 0.830416, 0.721144, 0.525427, 0.168284]),
        (DpmPp2M, SigmaGrid::Default,
         [0.997826, 0.992483, 0.982040, 0.964954, 0.938152, 0.896395, 0.830237, 0.720964, 0.525257, 0.168165]),
        (UniPc, SigmaGrid::Default,
         [0.997826, 0.991448, 0.979796, 0.962143, 0.934975, 0.892990, 0.826791, 0.717819, 0.523109, 0.166017]),
        (Euler, SigmaGrid::Twice,
         [0.999557, 0.998462, 0.996376, 0.992728, 0.986485, 0.975599, 0.955466, 0.913414, 0.799316, 0.064022]),
        (Euler, SigmaGrid::Default,
         [0.997574, 0.991680, 0.980711, 0.962080, 0.931407, 0.880726, 0.794138, 0.635319, 0.301705, 0.277291]),
    ];
    for (kind, grid, expected) in rows {
        let mut sampler = schedule(kind, grid, 10).sampler();
        let mut sample = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        for (i, expected) in expected.into_iter().enumerate() {
            let velocity = Tensor::new(&[0.1 * (i as f32 + 1.0)], &Device::Cpu).unwrap();
            sample = sampler.step(&velocity, &sample, None).unwrap();
            let found = values(&sample)[0];
            assert!((found - expected).abs() < 1e-6, "{kind} {grid} step {i}: {found}, expected {expected}");
        }
    }
}

/// The first of sixteen values; initial noise and step noise from one generator with seed 42.
#[test]
fn stochastic_run_equals_the_reference() {
    let expected = [
        1.643134, -0.490386, -1.030778, 0.396027, 0.279547, -1.594373, -2.180846, -0.148389, -0.575544,
        -1.310838,
    ];
    let mut rng = TorchRng::seed(42);
    let mut draw = || rng.randn_tensor((1, 1, 1, 4, 4), &Device::Cpu).unwrap();
    let mut sampler = schedule(DpmPpSde, SigmaGrid::Twice, 10).sampler();
    let mut sample = draw();
    for (i, expected) in expected.into_iter().enumerate() {
        let velocity = Tensor::full(0.1 * (i as f32 + 1.0), (1, 1, 1, 4, 4), &Device::Cpu).unwrap();
        sample = sampler.step(&velocity, &sample, Some(&draw())).unwrap();
        let found = values(&sample)[0];
        assert!((found - expected).abs() < 1e-6, "step {i}: {found}, expected {expected}");
    }
}

/// Whole tensor runs bit for bit: first 16 digits of the SHA-256 of all samples, little-endian f32.
///
/// At a few step counts torch's logarithm or exponential is off by one ulp from the correctly rounded
/// value used here (for dpm++, N = 10 is one); the counts below are free of that.
#[test]
fn tensor_runs_equal_the_references_bit_for_bit() {
    let rows = [
        (
            DpmPp2M,
            SigmaGrid::Default,
            [1, 20, 30],
            ["75d91dda7161cd34", "f0cb9dd148e50c6d", "a7b7ced87ccc6b67"],
        ),
        (
            DpmPp2M,
            SigmaGrid::Original,
            [2, 10, 30],
            ["b97414d89aa0d4d3", "8da94e1ddfa27579", "5252322d40416394"],
        ),
        (
            DpmPp2M,
            SigmaGrid::Twice,
            [3, 10, 20],
            ["981a7f54ccaa289d", "72f054c6beb2799a", "4c71eac903c4f463"],
        ),
        (
            DpmPpSde,
            SigmaGrid::Default,
            [2, 10, 30],
            ["2801efb6371f0a10", "268b590d1882b1be", "ba07fd2c997291af"],
        ),
        (
            DpmPpSde,
            SigmaGrid::Twice,
            [2, 10, 20],
            ["5b062f46c01a2589", "8f727d0656df1ef1", "582a212d96ccc44a"],
        ),
        (
            UniPc,
            SigmaGrid::Default,
            [2, 10, 30],
            ["9d13c9526d834322", "a707f7dea737301c", "2a7bb6acfab7027d"],
        ),
        (UniPc, SigmaGrid::Default, [1, 3, 20], ["75d91dda7161cd34", "7f598170165ae422", "5d451b523b92b18c"]),
        (
            Euler,
            SigmaGrid::Default,
            [1, 10, 30],
            ["41e3d9347626b139", "13320f1b5d9f24f4", "d466dbaec3139c92"],
        ),
    ];
    for (kind, grid, counts, digests) in rows {
        for (steps, expected) in counts.into_iter().zip(digests) {
            let inputs = Inputs::new(steps);
            let mut sampler = schedule(kind, grid, steps).sampler();
            let mut hash = Sha256::new();
            for value in inputs.run(sampler.as_mut(), 0, inputs.sample.clone()).iter().flat_map(values) {
                hash.update(value.to_le_bytes());
            }
            let found: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected, "{kind} {grid} {steps} steps");
        }
    }
}

/// Data and noise fixed, the true velocity is constant along the path and every solver is exact.
#[test]
fn a_straight_path_ends_at_the_data() {
    let mut rng = TorchRng::seed(5);
    let mut draw = || rng.randn_tensor(64, &Device::Cpu).unwrap();
    let (data, noise) = (draw(), draw());
    let own = ["dpmpp_2m/simple", "euler/simple", "dpmpp_2m/karras", "k_euler/beta"].map(ksampler);
    for kind in [DpmPp2M, UniPc, UniPcBeta, Euler, EulerBeta, ResMultistep].into_iter().chain(own) {
        for steps in [1, 2, 5, 14, 15, 40] {
            let schedule = schedule(kind, SigmaGrid::Default, steps);
            let first = schedule.sigmas()[0];
            let velocity = (&noise - &data).unwrap();
            let mut sample = (&data + scale(first, &velocity).unwrap()).unwrap();
            let mut sampler = schedule.sampler();
            for _ in 0..steps {
                sample = sampler.step(&velocity, &sample, None).unwrap();
            }
            for (found, expected) in values(&sample).into_iter().zip(values(&data)) {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{kind}, {steps} steps: {found}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn the_last_step_returns_the_data_prediction() {
    let own = ["dpmpp_2m/simple", "dpmpp_2m_sde/normal", "lcm/simple"].map(ksampler);
    for kind in [DpmPp2M, DpmPpSde, Lcm].into_iter().chain(own) {
        for steps in [1, 4, 20] {
            let inputs = Inputs::new(steps);
            let schedule = schedule(kind, SigmaGrid::Default, steps);
            let samples = inputs.run(schedule.sampler().as_mut(), 0, inputs.sample.clone());
            let before = if steps == 1 { &inputs.sample } else { &samples[steps - 2] };
            let x0 = predict_x0(before, schedule.sigmas()[steps - 1], &inputs.velocities[steps - 1]).unwrap();
            assert_eq!(values(&samples[steps - 1]), values(&x0), "{kind}, {steps} steps");
        }
    }
}

#[test]
fn a_resumed_run_equals_the_uninterrupted_one() {
    for kind in SchedulerKind::ALL {
        let steps = if kind == FlowMatchDistill { 4 } else { 7 };
        let inputs = Inputs::new(steps);
        let schedule = schedule(kind, SigmaGrid::Default, steps);
        let whole = inputs.run(schedule.sampler().as_mut(), 0, inputs.sample.clone());
        for stop in 0..=steps {
            let mut first = schedule.sampler();
            let mut sample = inputs.sample.clone();
            for i in 0..stop {
                sample = first.step(&inputs.velocities[i], &sample, Some(&inputs.noise[i])).unwrap();
            }
            let state = first.state();
            assert_eq!((state.step, first.steps_taken()), (stop, stop));
            let mut second = schedule.sampler();
            second.restore(state).unwrap();
            let rest = inputs.run(second.as_mut(), stop, sample);
            for (a, b) in rest.iter().zip(&whole[stop..]) {
                assert_eq!(values(a), values(b), "{kind} stopped after {stop}");
            }
            assert_eq!(rest.len(), steps - stop);
        }
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let inputs = Inputs::new(3);
    let mut sampler = schedule(DpmPp2M, SigmaGrid::Default, 3).sampler();
    sampler.step(&inputs.velocities[0], &inputs.sample, None).unwrap();
    let state = sampler.state();
    let refused = |kind, steps, state: &SamplerState| {
        schedule(kind, SigmaGrid::Default, steps).sampler().restore(state.clone()).unwrap_err().to_string()
    };
    assert_eq!(refused(UniPc, 3, &state), "sampler state: found one of dpm++, expected unipc");
    // The same solver on another grid.
    assert!(
        refused(ksampler("dpmpp_2m/simple"), 3, &state)
            .ends_with("found one of dpm++, expected dpmpp_2m/simple")
    );
    let late = SamplerState { step: 4, ..state.clone() };
    assert_eq!(refused(DpmPp2M, 3, &late), "sampler state: found step 4, expected at most 3");
    let bare = SamplerState { history: BTreeMap::new(), ..state.clone() };
    assert!(refused(DpmPp2M, 3, &bare).contains("x0_previous"));
    let mut half = state;
    half.history.values_mut().for_each(|t| *t = t.to_dtype(DType::F16).unwrap());
    assert!(refused(DpmPp2M, 3, &half).contains("F16"));
}

#[test]
fn bad_inputs_are_refused_and_leave_the_state_alone() {
    // Four is the one number of steps that every solver takes.
    let inputs = Inputs::new(4);
    let (velocity, sample, noise) = (&inputs.velocities[0], &inputs.sample, &inputs.noise[0]);
    let other = velocity.flatten_all().unwrap();
    let half = velocity.to_dtype(DType::F16).unwrap();
    for kind in SchedulerKind::ALL {
        let mut sampler = schedule(kind, SigmaGrid::Default, 4).sampler();
        for (name, bad) in [("velocity", &other), ("velocity", &half)] {
            let message = sampler.step(bad, sample, Some(noise)).unwrap_err().to_string();
            assert!(message.starts_with(name), "{message}");
        }
        let message = sampler.step(velocity, &half, Some(noise)).unwrap_err().to_string();
        assert_eq!(message, "sample is F16, expected F32");
        let of_comfyui = matches!(kind, SchedulerKind::KSampler(_));
        let stochastic = [DpmPpSde, DpmPpSdeBeta, Lcm, LcmBeta].contains(&kind)
            || of_comfyui
                && ["lcm/", "k_lcm/", "dpmpp_2m_sde/"].iter().any(|start| kind.name().starts_with(start));
        assert_eq!(sampler.needs_noise(), stochastic);
        if sampler.needs_noise() {
            let message = sampler.step(velocity, sample, None).unwrap_err().to_string();
            assert_eq!(message, format!("scheduler {kind} needs noise in every step, found none"));
            assert!(sampler.step(velocity, sample, Some(&other)).is_err());
        }
        assert_eq!(sampler.steps_taken(), 0);
        for _ in 0..4 {
            sampler.step(velocity, sample, Some(noise)).unwrap();
        }
        let message = sampler.step(velocity, sample, Some(noise)).unwrap_err().to_string();
        assert_eq!(message, "all 4 steps have been taken, expected no further one");
    }
}

/// Nothing of a sample but its data prediction outlives a step.
#[test]
fn lcm_makes_each_sample_of_the_data_prediction_and_fresh_noise() {
    let inputs = Inputs::new(4);
    let schedule = schedule(Lcm, SigmaGrid::Default, 4);
    let samples = inputs.run(schedule.sampler().as_mut(), 0, inputs.sample.clone());
    let x0 = predict_x0(&samples[0], schedule.sigmas()[1], &inputs.velocities[1]).unwrap();
    let next = schedule.sigmas()[2];
    let expected = values(&x0).into_iter().zip(values(&inputs.noise[1]));
    for (found, (x0, noise)) in values(&samples[1]).into_iter().zip(expected) {
        assert_eq!(found, (1.0 - next) * x0 + next * noise);
    }
}

#[test]
fn samples_stay_finite_from_sigma_1_to_sigma_0() {
    for kind in [DpmPp2M, DpmPpSde] {
        for grid in SigmaGrid::ALL {
            let inputs = Inputs::new(12);
            let mut sampler = schedule(kind, grid, 12).sampler();
            for sample in inputs.run(sampler.as_mut(), 0, inputs.sample.clone()) {
                assert!(values(&sample).iter().all(|v| v.is_finite()), "{kind} {grid}");
            }
        }
    }
}
