//! One velocity from those of all windows.

use candle_core::{Device, Tensor};

use super::ContextWindows;
use crate::Result;

/// The velocity of `latents` `[1, 16, F, h, w]`: `compute(window, part)` for the windows of `step`, each on its frames
/// alone `[1, 16, n, h, w]`, weighted by ramps over what neighbours have in common.
///
/// A frame that only ends of ramps meet, whose weights are 0, takes the plain mean; the reference divides by 0 there.
pub(crate) fn blended(
    windows: &ContextWindows,
    step: usize,
    latents: &Tensor,
    mut compute: impl FnMut(&[usize], &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let frames = latents.dim(2)?;
    let windows_of_step = windows.of_step(step, frames);
    let weights: Vec<Vec<f64>> =
        windows_of_step.iter().map(|w| ramps(w, frames, windows.latent_overlap())).collect();
    let mut sums: Vec<Sum> = (0..frames).map(|_| Sum::default()).collect();
    for (window, weights) in windows_of_step.iter().zip(&weights) {
        for (at, frame) in effective(window) {
            sums[frame].expect(weights[at]);
        }
    }
    for (window, weights) in windows_of_step.iter().zip(&weights) {
        let indices: Vec<u32> = window.iter().map(|frame| *frame as u32).collect();
        let indices = Tensor::new(indices, &Device::Cpu)?.to_device(latents.device())?;
        let velocity = compute(window, &latents.index_select(&indices, 2)?)?;
        for (at, frame) in effective(window) {
            sums[frame].add(&velocity.narrow(2, at, 1)?, weights[at])?;
        }
    }
    let frames = sums.into_iter().map(Sum::mean).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&frames, 2)?)
}

/// The places of a window and their frames; of a frame that it has twice, the last one counts.
fn effective(window: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    window.iter().copied().enumerate().filter(|(at, frame)| !window[at + 1..].contains(frame))
}

/// Weight of each place of `window`: 1, rising from 0 over the first `overlap` unless the video begins there, and
/// falling to 0 over the last unless it ends there.
fn ramps(window: &[usize], frames: usize, overlap: usize) -> Vec<f64> {
    let mut weights = vec![1.0; window.len()];
    // From 0 to 1, both included; a ramp of one place is 0 on its way up, 1 on its way down.
    let rise = |i: usize| if overlap > 1 { i as f64 / (overlap - 1) as f64 } else { 0.0 };
    if !window.contains(&0) {
        weights.iter_mut().take(overlap).enumerate().for_each(|(i, w)| *w = rise(i));
    }
    if !window.contains(&(frames - 1)) {
        let start = weights.len() - overlap;
        weights[start..].iter_mut().enumerate().for_each(|(i, w)| *w = 1.0 - rise(i));
    }
    weights
}

/// Weighted sum of a frame's velocities.
#[derive(Default)]
struct Sum {
    /// Sum of the weights, known before the first velocity.
    weight: f64,
    windows: usize,
    sum: Option<Tensor>,
}

impl Sum {
    fn expect(&mut self, weight: f64) {
        self.weight += weight;
        self.windows += 1;
    }

    fn add(&mut self, velocity: &Tensor, weight: f64) -> Result<()> {
        let share = if self.weight > 0.0 { weight / self.weight } else { 1.0 / self.windows as f64 };
        // A whole share is taken as it is, bit for bit; none at all adds nothing.
        let part = match share {
            0.0 => return Ok(()),
            1.0 => velocity.clone(),
            share => (velocity * share)?,
        };
        self.sum = Some(match self.sum.take() {
            Some(sum) => (sum + part)?,
            None => part,
        });
        Ok(())
    }

    fn mean(self) -> Result<Tensor> {
        self.sum.ok_or_else(|| {
            wan_core::Error::invalid("context windows", "a frame in none", "one or more").into()
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::WindowSchedule;

    fn options(overlap: usize) -> ContextWindows {
        let schedule = WindowSchedule::StaticStandard;
        ContextWindows { schedule, frames: 17, stride: 4, overlap, freenoise: false }
    }

    /// Latents whose every value is the number of its frame.
    fn numbered(frames: usize) -> Tensor {
        let numbers = Tensor::arange(0f32, frames as f32, &Device::Cpu).unwrap();
        numbers
            .reshape((1, 1, frames, 1, 1))
            .unwrap()
            .broadcast_as((1, 16, frames, 2, 2))
            .unwrap()
            .contiguous()
            .unwrap()
    }

    fn row(t: &Tensor) -> Vec<f32> {
        t.to_dtype(DType::F32)
            .unwrap()
            .narrow(1, 0, 1)
            .unwrap()
            .narrow(3, 0, 1)
            .unwrap()
            .narrow(4, 0, 1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    #[test]
    fn what_windows_agree_on_stays() {
        let latents = numbered(23);
        for overlap in [4, 8, 12] {
            let blended = blended(&options(overlap), 0, &latents, |_, part| Ok((part * 3.0)?)).unwrap();
            for (found, frame) in row(&blended).iter().zip(0..) {
                assert!((found - 3.0 * frame as f32).abs() < 1e-4, "{frame}: {found}");
            }
        }
    }

    #[test]
    fn neighbours_are_blended_by_ramps() {
        // Two windows of 5 over 7 frames, 3 in common: 0, 1/2, 1 and 1, 1/2, 0.
        let mut calls = 0;
        let blended = blended(&options(12), 0, &numbered(7), |window, part| {
            calls += 1;
            assert_eq!(window.len(), 5);
            Ok((part.zeros_like()? + calls as f64)?)
        });
        assert_eq!(row(&blended.unwrap()), [1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn ramps_are_those_of_the_reference() {
        // torch.linspace(0, 1, n) on the left, torch.linspace(1, 0, n) on the right.
        let window: Vec<usize> = (4..9).collect();
        // Where the two meet in a short window, the right one is the later and counts.
        assert_eq!(ramps(&window, 20, 3), [0.0, 0.5, 1.0, 0.5, 0.0]);
        assert_eq!(ramps(&window, 20, 1), [0.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(ramps(&(0..5).collect::<Vec<_>>(), 20, 2), [1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(ramps(&(15..20).collect::<Vec<_>>(), 20, 2), [0.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_frame_without_weight_takes_the_mean() {
        // One latent frame of overlap: 0 on the way up, 1 on the way down; then two ends of ramps alone.
        let mut sum = Sum::default();
        sum.expect(0.0);
        sum.expect(0.0);
        let of = |v: f32| Tensor::full(v, (1, 1, 1, 1, 1), &Device::Cpu).unwrap();
        sum.add(&of(2.0), 0.0).unwrap();
        sum.add(&of(4.0), 0.0).unwrap();
        assert_eq!(sum.mean().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [3.0]);
    }
}
