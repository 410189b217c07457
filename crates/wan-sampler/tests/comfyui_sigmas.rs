//! The sigmas of ComfyUI's own schedulers against those that ComfyUI computes; `tests/golden/README.md` tells how.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use wan_sampler::{ComfySampler, ComfyScheduler, KSampler, Schedule, SchedulerKind};

struct Fixture(HashMap<String, Tensor>);

impl Fixture {
    fn open() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/comfyui_sigmas/grids.safetensors");
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.0[name].to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    /// (steps, shift, denoise) and the sigmas of each case.
    fn grids(&self, sampler: &str, scheduler: ComfyScheduler) -> Vec<((usize, f64, f64), Vec<f32>)> {
        let name = format!("{sampler}/{}", scheduler.name());
        let sigmas = self.0[&name].to_vec1::<f32>().unwrap();
        let (steps, shifts, denoise) =
            (self.numbers("steps"), self.numbers("shift"), self.numbers("denoise"));
        let mut rest = sigmas.as_slice();
        let lengths = self.numbers(&format!("{name}.len"));
        let grids = lengths.iter().enumerate().map(|(case, len)| {
            let (grid, after) = rest.split_at(*len as usize);
            rest = after;
            ((steps[case] as usize, shifts[case], denoise[case]), grid.to_vec())
        });
        grids.collect()
    }
}

/// The fixture's grids that `sampler` takes: three samplers each have their own, the others those of `euler`.
fn own(sampler: ComfySampler) -> &'static str {
    match sampler {
        ComfySampler::UniPc | ComfySampler::DpmPpSde => sampler.name(),
        _ => "euler",
    }
}

/// In units of the last place of an f32. Where ComfyUI takes a power, an exponential or a tangent of f32 values, torch's
/// functions are good to one unit, and these here are rounded correctly.
fn tolerance(scheduler: ComfyScheduler) -> u32 {
    match scheduler {
        ComfyScheduler::Karras | ComfyScheduler::Exponential | ComfyScheduler::KlOptimal => 1,
        _ => 0,
    }
}

#[test]
fn sigmas_equal_comfyuis() {
    let fixture = Fixture::open();
    for pair in KSampler::ALL {
        let kind = SchedulerKind::KSampler(pair);
        let grids = fixture.grids(own(pair.sampler), pair.scheduler);
        assert!(grids.len() >= 64);
        for ((steps, shift, denoise), expected) in grids {
            let case = format!("{kind}, {steps} steps, shift {shift}, denoise {denoise}");
            let schedule = Schedule::new(kind, steps, shift, denoise);
            if expected.iter().any(|sigma| sigma.is_nan()) {
                assert_eq!((steps, pair.scheduler), (1, ComfyScheduler::KlOptimal), "{case}");
                assert!(schedule.unwrap_err().to_string().contains("not a number"), "{case}");
                continue;
            }
            let schedule = schedule.unwrap_or_else(|error| panic!("{case}: {error}"));
            let found = schedule.sigmas();
            assert_eq!(found.len(), expected.len(), "{case}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let apart = found.to_bits().abs_diff(expected.to_bits());
                assert!(
                    apart <= tolerance(pair.scheduler),
                    "{case}, sigma {i}: {found}, expected {expected}: {apart} ulp"
                );
            }
            for (time, sigma) in schedule.timesteps().iter().zip(found) {
                assert_eq!(*time, sigma * 1000.0, "{case}");
            }
        }
    }
}

/// At all numbers of steps: roundings to entries of a table can go wrong at few of them.
#[test]
fn sigmas_without_transcendental_functions_are_exact() {
    let fixture = Fixture::open();
    for scheduler in ComfyScheduler::ALL.into_iter().filter(|scheduler| tolerance(*scheduler) == 0) {
        let kind = SchedulerKind::KSampler(KSampler { sampler: ComfySampler::Euler, scheduler });
        let mut hash = Sha256::new();
        for (shift, most) in [(1.0, 100), (3.0, 100), (7.3, 100), (8.0, 100), (5.0, 1000)] {
            for steps in 1..=most {
                let schedule = Schedule::new(kind, steps, shift, 1.0).unwrap();
                schedule.sigmas().iter().for_each(|sigma| hash.update(sigma.to_le_bytes()));
            }
        }
        let expected: Vec<u8> = fixture.0[&format!("{}.sha256", scheduler.name())].to_vec1().unwrap();
        assert_eq!(hash.finalize().as_slice(), expected, "{kind}");
    }
}
