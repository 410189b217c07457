//! Expected values come from the reference schedulers: Wan2.1 `fm_solvers.py` and
//! `fm_solvers_unipc.py`, diffusers' FlowMatchEulerDiscreteScheduler, and ComfyUI-WanVideoWrapper's `get_scheduler`.

use candle_core::{DType, Device};
use sha2::{Digest, Sha256};

use super::*;
use SchedulerKind::{
    Deis, DpmPp2M, DpmPp2MBeta, DpmPpSde, DpmPpSdeBeta, Euler, EulerBeta, FlowMatchDistill, Lcm, LcmBeta,
    ResMultistep, UniPc, UniPcBeta,
};

fn schedule(kind: SchedulerKind, grid: SigmaGrid, steps: usize) -> Schedule {
    Schedule::with_grid(kind, grid, steps, 5.0, 1.0).unwrap()
}

#[test]
fn ten_steps_at_shift_5() {
    type Row = (SchedulerKind, SigmaGrid, [f32; 10], [f32; 10]);
    let rows: [Row; 5] = [
        (
            DpmPp2M,
            SigmaGrid::Original,
            [
                1.0, 0.9782609, 0.952381, 0.9210526, 0.8823529, 0.8333333, 0.7692308, 0.6818182, 0.5555556,
                0.3571429,
            ],
            [1000.0, 978.0, 952.0, 921.0, 882.0, 833.0, 769.0, 681.0, 555.0, 357.0],
        ),
        (
            DpmPp2M,
            SigmaGrid::Twice,
            [
                1.0, 0.9955752, 0.990099, 0.9831461, 0.974026, 0.9615384, 0.9433962, 0.9146342, 0.862069,
                0.7352941,
            ],
            [1000.0, 995.0, 990.0, 983.0, 974.0, 961.0, 943.0, 914.0, 862.0, 735.0],
        ),
        (
            DpmPp2M,
            SigmaGrid::Default,
            [
                0.9999599, 0.9782183, 0.9523355, 0.9210041, 0.882301, 0.8332777, 0.7691715, 0.6817561,
                0.5554938, 0.3570918,
            ],
            [999.0, 978.0, 952.0, 921.0, 882.0, 833.0, 769.0, 681.0, 555.0, 357.0],
        ),
        (
            UniPc,
            SigmaGrid::Original,
            [
                0.9997998, 0.978048, 0.952154, 0.9208101, 0.8820933, 0.8330554, 0.7689347, 0.6815081,
                0.5552468, 0.3568877,
            ],
            [999.0, 978.0, 952.0, 920.0, 882.0, 833.0, 768.0, 681.0, 555.0, 356.0],
        ),
        (
            Euler,
            SigmaGrid::Default,
            [
                1.0, 0.975743, 0.946273, 0.9097071, 0.8631319, 0.8017857, 0.7173175, 0.5936192, 0.3950954,
                0.0244141,
            ],
            [1000.0, 975.743, 946.2729, 909.7072, 863.132, 801.7857, 717.3174, 593.6192, 395.0954, 24.4141],
        ),
    ];
    for (kind, grid, sigmas, timesteps) in rows {
        let schedule = schedule(kind, grid, 10);
        assert_eq!(schedule.steps(), 10);
        assert_eq!(schedule.sigmas().len(), 11);
        assert_eq!(schedule.sigmas()[10], 0.0);
        for i in 0..10 {
            // Half a unit of the table's seventh and fourth decimal.
            assert!((schedule.sigmas()[i] - sigmas[i]).abs() < 1.1e-7, "{kind} {grid} sigma {i}");
            assert!((schedule.timesteps()[i] - timesteps[i]).abs() < 1e-4, "{kind} {grid} timestep {i}");
        }
    }
}

#[test]
fn timesteps_are_truncated_not_rounded() {
    let default = schedule(DpmPp2M, SigmaGrid::Default, 30);
    #[rustfmt::skip]
    assert_eq!(default.timesteps(), [
        999.0, 993.0, 985.0, 978.0, 970.0, 961.0, 952.0, 942.0, 932.0, 921.0, 909.0, 896.0, 882.0, 867.0, 851.0,
        833.0, 813.0, 792.0, 769.0, 743.0, 714.0, 681.0, 645.0, 603.0, 555.0, 499.0, 434.0, 357.0, 263.0, 147.0,
    ]);
    // Here sigma is 1/2 but for the last bit of the f64, and exactly 1/2 as f32.
    let original = schedule(DpmPp2M, SigmaGrid::Original, 30);
    assert_eq!(original.sigmas()[25], 0.5);
    assert_eq!(original.timesteps()[25], 499.0);
    #[rustfmt::skip]
    assert_eq!(schedule(DpmPp2M, SigmaGrid::Default, 20).timesteps(), [
        999.0, 989.0, 978.0, 965.0, 952.0, 937.0, 921.0, 902.0, 882.0, 859.0, 833.0, 803.0, 769.0, 729.0, 681.0,
        624.0, 555.0, 468.0, 357.0, 208.0,
    ]);
}

/// Sigmas and timesteps of 500 schedules per grid, bit for bit: first 16 digits of the SHA-256 of
/// the little-endian f32 values.
#[test]
fn every_grid_is_exact() {
    let rows = [
        (DpmPp2M, SigmaGrid::Original, "e245773771019409"),
        (DpmPp2M, SigmaGrid::Twice, "3df12577f25d75aa"),
        (DpmPp2M, SigmaGrid::Default, "5619616b009d4284"),
        (DpmPpSde, SigmaGrid::Default, "5619616b009d4284"),
        (UniPc, SigmaGrid::Default, "5619616b009d4284"),
        (UniPc, SigmaGrid::Original, "ca3efec322601874"),
        (Euler, SigmaGrid::Default, "8cc9504aa79533f4"),
        (Euler, SigmaGrid::Twice, "e7ac425e6918b9be"),
        (DpmPp2MBeta, SigmaGrid::Default, "f82f771fcad6bc3d"),
        (DpmPpSdeBeta, SigmaGrid::Default, "f82f771fcad6bc3d"),
        (UniPcBeta, SigmaGrid::Default, "f82f771fcad6bc3d"),
        (EulerBeta, SigmaGrid::Default, "6cedad56ddeb8676"),
        (Deis, SigmaGrid::Default, "3c818a5e6bda4460"),
        (ResMultistep, SigmaGrid::Default, "be13186759838388"),
        (Lcm, SigmaGrid::Default, "8cc9504aa79533f4"),
        (LcmBeta, SigmaGrid::Default, "6cedad56ddeb8676"),
    ];
    for (kind, grid, expected) in rows {
        let mut hash = Sha256::new();
        for shift in [1.0, 3.0, 5.0, 7.3, 8.0] {
            for steps in 1..=100 {
                let values = grid_values(kind, grid, steps, shift).unwrap();
                for value in values.sigmas.iter().chain(&values.timesteps) {
                    hash.update(value.to_le_bytes());
                }
            }
        }
        let digest: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, expected, "{kind} {grid}");
    }
}

#[test]
fn denoise_strength_runs_the_end_of_a_longer_grid() {
    // steps, strength, grid steps, steps run, first sigma of grids Twice and Default
    let rows = [
        (10, 0.5, 20, 11, 0.968310, 0.859321),
        (10, 0.6, 16, 10, 0.976562, 0.892806),
        (10, 0.7, 14, 10, 0.984252, 0.925878),
        (10, 0.8, 12, 10, 0.992063, 0.961494),
        (10, 0.9, 11, 10, 0.996016, 0.980350),
        (20, 0.8, 25, 21, 0.992439, 0.963259),
        (30, 0.6, 50, 31, 0.976071, 0.890753),
    ];
    for (steps, strength, grid_steps, run, twice, default) in rows {
        for (grid, first) in [(SigmaGrid::Twice, twice), (SigmaGrid::Default, default)] {
            let schedule = Schedule::with_grid(DpmPp2M, grid, steps, 5.0, strength).unwrap();
            assert_eq!(schedule.grid_steps(), grid_steps);
            assert_eq!(schedule.steps(), run);
            assert_eq!(schedule.start_index(), grid_steps - run);
            assert_eq!(schedule.sigmas().len(), run + 1);
            assert!((schedule.sigmas()[0] - first).abs() < 1e-6, "{steps} steps at {strength}");
            let whole = Schedule::with_grid(DpmPp2M, grid, grid_steps, 5.0, 1.0).unwrap();
            assert_eq!(schedule.sigmas(), &whole.sigmas()[grid_steps - run..]);
            assert_eq!(schedule.timesteps(), &whole.timesteps()[grid_steps - run..]);
        }
    }
}

#[test]
fn one_step_more_than_there_are_is_never_run() {
    for steps in [1, 2, 10, 50] {
        let schedule = Schedule::new(UniPc, steps, 5.0, 1.0 - f64::EPSILON / 2.0).unwrap();
        assert_eq!(schedule.steps(), steps);
        assert_eq!(schedule.start_index(), 0);
    }
}

#[test]
fn equal_integer_timesteps_do_not_skip_a_step() {
    // 70 steps at 0.7 start where two neighbouring timesteps truncate to the same integer.
    let schedule = Schedule::with_grid(DpmPp2M, SigmaGrid::Twice, 70, 5.0, 0.7).unwrap();
    assert_eq!((schedule.grid_steps(), schedule.steps()), (100, 71));
    assert_eq!(schedule.timesteps()[0], schedule.timesteps()[1]);
    assert!(schedule.sigmas()[0] > schedule.sigmas()[1]);
}

#[test]
fn values_out_of_range_are_refused() {
    let message = |steps, shift, strength| {
        SchedulerKind::ALL.map(|kind| Schedule::new(kind, steps, shift, strength).unwrap_err().to_string())
    };
    for found in message(0, 5.0, 1.0) {
        assert_eq!(found, "steps is 0, expected 1 to 100000");
    }
    for shift in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e60] {
        for found in message(10, shift, 1.0) {
            assert!(found.starts_with("shift is "), "{found}");
        }
    }
    for strength in [0.0, -0.5, 1.000001, f64::NAN, f64::INFINITY] {
        for found in message(10, 5.0, strength) {
            assert!(found.starts_with("denoise strength is "), "{found}");
        }
    }
    for found in message(10, 5.0, 1e-300) {
        assert!(found.starts_with("steps is "), "{found}");
    }
}

#[test]
fn a_grid_that_f32_cannot_resolve_is_refused() {
    for kind in [DpmPp2M, DpmPpSde, UniPc, UniPcBeta, Deis, ResMultistep] {
        let message = Schedule::new(kind, 30, 1e9, 1.0).unwrap_err().to_string();
        assert!(message.contains("strictly decreasing"), "{message}");
    }
    for kind in [Euler, Lcm] {
        assert!(Schedule::new(kind, 30, 1e9, 1.0).is_ok());
    }
}

#[test]
fn missing_grids_are_named() {
    for (kind, grid) in [
        (UniPc, SigmaGrid::Twice),
        (Euler, SigmaGrid::Original),
        ("uni_pc/karras".parse().unwrap(), SigmaGrid::Original),
        (DpmPp2MBeta, SigmaGrid::Original),
        (FlowMatchDistill, SigmaGrid::Twice),
    ] {
        let message = Schedule::with_grid(kind, grid, 10, 5.0, 1.0).unwrap_err().to_string();
        assert_eq!(message, format!("scheduler {kind} has no sigma grid '{grid}', use 'default'"));
    }
    assert!("thrice".parse::<SigmaGrid>().unwrap_err().to_string().contains("'thrice'"));
    for grid in SigmaGrid::ALL {
        assert_eq!(grid.to_string().parse::<SigmaGrid>().unwrap(), grid);
    }
}

#[test]
fn sigmas_fall_from_at_most_1_to_0() {
    for kind in SchedulerKind::ALL {
        for steps in [1, 2, 3, 14, 15, 33, 1000] {
            for shift in [0.5, 1.0, 5.0, 17.0] {
                let steps = if kind == FlowMatchDistill { 4 } else { steps };
                let schedule = match (Schedule::new(kind, steps, shift, 1.0), kind) {
                    (Ok(schedule), _) => schedule,
                    // Many steps are close together, and one of `kl_optimal` is not a number.
                    (Err(_), SchedulerKind::KSampler(_)) if steps == 1 || steps == 1000 => continue,
                    (Err(error), _) => panic!("{kind} {steps} {shift}: {error}"),
                };
                let sigmas = schedule.sigmas();
                assert!(sigmas[0] <= 1.0 && *sigmas.last().unwrap() == 0.0);
                assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{kind} {steps} {shift}");
                let may_differ = kind.name().ends_with("/ddim_uniform") || kind.name().ends_with("/beta");
                assert!(schedule.steps() == steps || may_differ, "{kind} {steps} {shift}");
                assert_eq!(schedule.timesteps().len() + 1, sigmas.len());
            }
        }
    }
}

#[test]
fn initial_mix_uses_the_integer_timestep() {
    let schedule = Schedule::new(DpmPp2M, 10, 5.0, 0.5).unwrap();
    assert_eq!(schedule.timesteps()[0], 859.0);
    let noise = Tensor::new(&[1.0_f32, 0.0], &Device::Cpu).unwrap();
    let latents = Tensor::new(&[0.0_f32, 1.0], &Device::Cpu).unwrap();
    let mixed = schedule.mix_initial(&noise, &latents).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(mixed, [0.859, 1.0 - 0.859]);
    let half = latents.to_dtype(DType::F16).unwrap();
    assert!(schedule.mix_initial(&noise, &half).is_err());
    assert!(schedule.mix_initial(&noise.narrow(0, 0, 1).unwrap(), &latents).is_err());
}
