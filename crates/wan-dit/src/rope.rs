//! Rotary position embedding over (frame, row, column).

use std::f64::consts::PI;

use candle_core::{Device, Tensor};
use wan_core::geometry::LatentSize;
use wan_core::{Error, Result};

/// Base of the geometric series of frequencies.
const THETA: f64 = 10000.0;

/// Cosines and sines of all positions of one latent size, computed once per job.
///
/// Of a head's `d` reals height and width take `2 (d / 6)` each (integer division), time the rest: 44, 42, 42 of
/// 128. On an axis of `n` reals, pair `j` turns by `position * 10000^(-2j/n)`.
///
/// Source: Wan2.1 `wan/modules/model.py`, `rope_params` and `rope_apply`; RoFormer (arXiv 2104.09864).
#[derive(Debug, Clone)]
pub struct RopeTable {
    table: Tensor,
    latent: LatentSize,
}

impl RopeTable {
    /// The table for heads of `head_dim` (even) and latents of `latent`.
    ///
    /// `riflex_index`: 0, or the number (from 1) of the temporal frequency that RIFLEx lowers to
    /// `0.9 * 2 pi / F`, so that it does not complete a period within the video (arXiv 2502.15894).
    ///
    /// Angles are f64, the table is f32: angles in f32 would lose the low frequencies' last digits.
    ///
    /// Errors: [`Error::Invalid`] for an odd height or width, or an index above the number of temporal frequencies.
    pub fn new(head_dim: usize, latent: LatentSize, riflex_index: usize, device: &Device) -> Result<Self> {
        Self::of_window(head_dim, latent, latent.frames, riflex_index, device)
    }

    /// [`Self::new`] for windows of size `latent` of a video of `video_frames` latent frames, which are RIFLEx's F.
    ///
    /// Errors: those of [`Self::new`].
    pub fn of_window(
        head_dim: usize,
        latent: LatentSize,
        video_frames: usize,
        riflex_index: usize,
        device: &Device,
    ) -> Result<Self> {
        if !latent.height.is_multiple_of(2) || !latent.width.is_multiple_of(2) || latent.tokens() == 0 {
            let found = format!("{} x {} x {}", latent.frames, latent.height, latent.width);
            return Err(Error::invalid("latent size", found, "at least 1 x 2 x 2, height and width even"));
        }
        let space = 2 * (head_dim / 6);
        let mut time_frequencies = frequencies(2 * Self::temporal_frequencies(head_dim));
        if riflex_index > 0 {
            let count = time_frequencies.len();
            let Some(frequency) = time_frequencies.get_mut(riflex_index - 1) else {
                return Err(Error::invalid("riflex index", riflex_index, format!("0 to {count}")));
            };
            *frequency = 0.9 * 2.0 * PI / video_frames as f64;
        }
        let (rows, columns) = (latent.height / 2, latent.width / 2);
        let time = axis(&time_frequencies, latent.frames);
        let height = axis(&frequencies(space), rows);
        let width = axis(&frequencies(space), columns);

        let half = head_dim / 2;
        let mut values: Vec<f32> = Vec::with_capacity(latent.tokens() * half * 2);
        for frame in &time {
            for row in &height {
                for column in &width {
                    values.extend(frame.iter().chain(row).chain(column).flatten());
                }
            }
        }
        Ok(Self { table: Tensor::from_vec(values, (latent.tokens(), half, 2), device)?, latent })
    }

    /// Number of frequencies on the time axis of heads of `head_dim`, the largest RIFLEx index.
    pub fn temporal_frequencies(head_dim: usize) -> usize {
        head_dim / 2 - 2 * (head_dim / 6)
    }

    /// `[L, head_dim / 2, 2]` f32: (cos, sin) of each token's pairs.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// The latent size it was made for.
    pub fn latent(&self) -> LatentSize {
        self.latent
    }
}

/// `10000^(-2j/reals)` for each pair `j` of an axis of `reals` reals.
fn frequencies(reals: usize) -> Vec<f64> {
    (0..reals / 2).map(|j| THETA.powf(-2.0 * j as f64 / reals as f64)).collect()
}

/// (cos, sin) of each frequency at each of `positions` positions, counted from 0.
fn axis(frequencies: &[f64], positions: usize) -> Vec<Vec<[f32; 2]>> {
    let turn = |angle: f64| [angle.cos() as f32, angle.sin() as f32];
    (0..positions).map(|p| frequencies.iter().map(|w| turn(p as f64 * w)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latent(frames: usize, height: usize, width: usize) -> LatentSize {
        LatentSize { frames, height, width }
    }

    fn row(table: &RopeTable, frame: usize, row: usize, column: usize) -> Vec<Vec<f32>> {
        let size = table.latent();
        let token = (frame * (size.height / 2) + row) * (size.width / 2) + column;
        table.table().get(token).unwrap().to_vec2::<f32>().unwrap()
    }

    #[test]
    fn the_reference_angles_of_head_dim_128() {
        let table = RopeTable::new(128, latent(4, 12, 16), 0, &Device::Cpu).unwrap();
        assert_eq!(table.table().dims(), [4 * 6 * 8, 64, 2]);
        let pairs = row(&table, 3, 5, 7);
        for (pair, angle) in [
            (0, 3.0f64),
            (1, 1.9737997),
            (21, 0.000455973),
            (22, 5.0),
            (23, 3.2247334),
            (42, 0.000775258),
            (43, 7.0),
            (44, 4.5146267),
            (63, 0.001085361),
        ] {
            assert!((f64::from(pairs[pair][0]) - angle.cos()).abs() < 1e-6, "cos of pair {pair}");
            assert!((f64::from(pairs[pair][1]) - angle.sin()).abs() < 1e-6, "sin of pair {pair}");
        }
        assert_eq!(pairs[0][0], -0.989_992_5);
    }

    #[test]
    fn time_takes_what_space_leaves() {
        // head_dim 28: 12 reals of time, 8 of height, 8 of width.
        let table = RopeTable::new(28, latent(2, 4, 4), 0, &Device::Cpu).unwrap();
        let still = [1.0, 0.0];
        let pairs = row(&table, 1, 0, 0);
        assert!(pairs[..6].iter().all(|p| p[..] != still) && pairs[6..].iter().all(|p| p[..] == still));
        let pairs = row(&table, 0, 1, 0);
        assert!(pairs[6..10].iter().all(|p| p[..] != still) && pairs[10..].iter().all(|p| p[..] == still));
        let pairs = row(&table, 0, 0, 1);
        assert!(pairs[10..].iter().all(|p| p[..] != still) && pairs[..10].iter().all(|p| p[..] == still));
        // Two reals are too few to share: time has them.
        assert_eq!(RopeTable::new(2, latent(1, 2, 2), 0, &Device::Cpu).unwrap().table().dims(), [1, 1, 2]);
    }

    #[test]
    fn riflex_replaces_one_temporal_frequency() {
        let plain = RopeTable::new(128, latent(21, 2, 2), 0, &Device::Cpu).unwrap();
        let riflex = RopeTable::new(128, latent(21, 2, 2), 6, &Device::Cpu).unwrap();
        let (plain, riflex) = (row(&plain, 1, 0, 0), row(&riflex, 1, 0, 0));
        let angle = |pair: &Vec<f32>| pair[1].atan2(pair[0]);
        assert!((angle(&plain[5]) - 0.123285).abs() < 1e-6);
        assert!((angle(&riflex[5]) - 0.269279).abs() < 1e-6);
        assert!((0..64).all(|j| (plain[j] == riflex[j]) == (j != 5)));
    }

    #[test]
    fn a_window_has_riflexs_frequency_of_the_whole_video() {
        let whole = RopeTable::new(128, latent(41, 2, 2), 6, &Device::Cpu).unwrap();
        let window = RopeTable::of_window(128, latent(21, 2, 2), 41, 6, &Device::Cpu).unwrap();
        assert_eq!(window.latent().frames, 21);
        assert!((0..21).all(|frame| row(&window, frame, 0, 0) == row(&whole, frame, 0, 0)));
    }

    #[test]
    fn bad_sizes_and_indices_are_named() {
        let error = |size, index| RopeTable::new(128, size, index, &Device::Cpu).unwrap_err().to_string();
        assert_eq!(error(latent(1, 2, 2), 23), "riflex index: found 23, expected 0 to 22");
        assert!(error(latent(1, 3, 2), 0).starts_with("latent size: found 1 x 3 x 2"));
        assert!(error(latent(0, 2, 2), 0).starts_with("latent size: found 0 x 2 x 2"));
    }
}
