//! What shortcuts cost on the embedded model: how far the latents move, and whether the videos still do what they are told.

use candle_core::Tensor;
use wan_core::testkit::distance;
use wan_pipeline::{GuidanceInterval, TeaCache, TeaCacheMode};

use super::maker::{DEFAULTS, FOUR_STEPS, FOUR_STEPS_DISTILLED, Maker, Settings};
use super::obedience::obedient;
use super::pairs::pairs;

const STEPS: usize = 20;
const PAIRS: usize = 12;

/// Share of the pairs that may be lost to the mildest shortcuts.
const LOST: f32 = 0.1;

fn guided_until(end: f64) -> Settings {
    Settings { steps: STEPS, guidance_interval: GuidanceInterval { start: 0.0, end }, ..DEFAULTS }
}

fn teacache(threshold: f64) -> Settings {
    let teacache = TeaCache { threshold, mode: TeaCacheMode::Raw, start: None, end: None };
    Settings { steps: STEPS, teacache: Some(teacache), ..DEFAULTS }
}

/// Prints the table of benches/RESULTS.md.
#[test]
#[ignore = "minutes; make test-long LONG=what_shortcuts_cost"]
fn what_shortcuts_cost() {
    let maker = Maker::new();
    let pairs = pairs(PAIRS);
    let run = |name: &str, settings| {
        let made: Vec<_> = pairs.iter().map(|pair| maker.make(pair, &pair.prompt, settings)).collect();
        let obey = obedient(name, &pairs, made.iter().map(|made| &made.frames));
        let passes = made[0].passes;
        (obey, passes, made.into_iter().map(|made| made.latents).collect::<Vec<_>>())
    };
    let (exact_obey, exact_passes, exact) = run("all", Settings { steps: STEPS, ..DEFAULTS });
    println!("| all | {exact_passes} | | | {:.0} % |", exact_obey * 100.0);
    // The mildest of each kind is the first of three.
    let rows = [
        ("guidance in the first 0.75", guided_until(0.75)),
        ("guidance in the first 0.5", guided_until(0.5)),
        ("guidance in the first 0.25", guided_until(0.25)),
        ("TeaCache, raw, 0.05", teacache(0.05)),
        ("TeaCache, raw, 0.1", teacache(0.1)),
        ("TeaCache, raw, 0.2", teacache(0.2)),
        ("4 steps, cfg 1, distilled LoRA", FOUR_STEPS_DISTILLED),
        ("4 steps, cfg 1, without it", FOUR_STEPS),
        ("4 steps, cfg 6, without it", Settings { cfg: 6.0, ..FOUR_STEPS }),
    ];
    let mut nearness = Vec::new();
    for (row, (name, settings)) in rows.into_iter().enumerate() {
        let (obey, passes, latents) = run(name, settings);
        let (psnr, cosine) = mean_nearness(&exact, &latents);
        println!("| {name} | {passes} | {psnr:.1} | {cosine:.4} | {:.0} % |", obey * 100.0);
        assert!(passes < exact_passes, "{name}: nothing is left out");
        assert!(row % 3 > 0 || obey >= exact_obey - LOST, "{name}");
        nearness.push(cosine);
    }
    let [.., distilled, _, guided] = nearness[..] else { unreachable!() };
    assert!(distilled > guided, "four passes with the LoRA are not nearer than eight without it");
}

/// A video in four passes in place of twenty.
#[test]
fn four_passes_obey_with_the_distilled_lora() {
    let maker = Maker::new();
    let pairs = pairs(8);
    let made: Vec<_> =
        pairs.iter().map(|pair| maker.make(pair, &pair.prompt, FOUR_STEPS_DISTILLED)).collect();
    assert!(made.iter().all(|made| made.passes == 4));
    assert!(obedient("4 steps with the LoRA", &pairs, made.iter().map(|made| &made.frames)) >= 0.85);
}

/// Of each pair's latents: PSNR in dB, the peak being the range of the exact ones, and cosine.
fn mean_nearness(exact: &[Tensor], found: &[Tensor]) -> (f64, f64) {
    let one = |(exact, found): (&Tensor, &Tensor)| {
        let values = exact.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let power = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        let apart = distance(found, exact).unwrap();
        let error = apart.relative_l2.powi(2) * power;
        (10.0 * (f64::from(high - low).powi(2) / error).log10(), apart.cosine)
    };
    let each: Vec<_> = exact.iter().zip(found).map(one).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| each.iter().map(of).sum::<f64>() / each.len() as f64;
    (mean(|pair| pair.0), mean(|pair| pair.1))
}
