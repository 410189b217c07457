//! Between the latent grid and its tokens: one token per patch of 1x2x2 latent pixels.

use candle_core::{DType, Tensor};
use wan_core::{Error, Loader, Result};
use wan_ops::Linear;

use crate::config::{DitConfig, PATCH_VALUES};

/// The patch embedding: a convolution whose kernel is its stride, which is a linear layer over patches.
///
/// Source: Wan2.1 `wan/modules/model.py`, WanModel.patch_embedding.
#[derive(Debug)]
pub(crate) struct PatchEmbedding {
    linear: Linear,
}

impl PatchEmbedding {
    /// Takes `weight` `[dim, in_dim, 1, 2, 2]` and `bias` `[dim]`.
    pub(crate) fn load(loader: &Loader, config: &DitConfig) -> Result<Self> {
        let weight = loader.stored("weight", &[config.dim, config.in_dim, 1, 2, 2])?;
        let weight = weight.reshape(&[config.dim, config.in_dim * PATCH_VALUES])?;
        let linear = Linear::new(weight, Some(loader.tensor("bias", &[config.dim])?));
        Ok(Self { linear: linear.with_deltas(loader.deltas("weight"))? })
    }

    /// `x`: `[1, in_dim, F, h, w]` f32; returns tokens `[L, dim]` f32.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.forward(&patchify(x)?)
    }
}

/// `[1, C, F, h, w]` to `[L, C * 4]` f32: tokens in the order (frame, row, column), a patch's values in the order
/// (channel, row, column).
///
/// Errors: [`Error::Shape`] for an odd height or width.
pub(crate) fn patchify(x: &Tensor) -> Result<Tensor> {
    let (_, c, f, h, w) = x.dims5()?;
    if !h.is_multiple_of(2) || !w.is_multiple_of(2) {
        return Err(Error::shape("latents", x.dims(), "an even height and width"));
    }
    let x = x.to_dtype(DType::F32)?.reshape(&[c, f, h / 2, 2, w / 2, 2])?;
    let x = x.permute([1, 2, 4, 0, 3, 5])?; // [F, h/2, w/2, C, 2, 2]
    Ok(x.contiguous()?.reshape((f * (h / 2) * (w / 2), c * PATCH_VALUES))?)
}

/// `[L, 4 * C]`, a patch's values in the order (row, column, channel), to `[1, C, F, h, w]`.
pub(crate) fn unpatchify(tokens: &Tensor, channels: usize, grid: [usize; 3]) -> Result<Tensor> {
    let [f, h, w] = grid;
    let x = tokens.reshape(&[f, h / 2, w / 2, 2, 2, channels])?;
    let x = x.permute([5, 0, 1, 3, 2, 4])?; // [C, F, h/2, 2, w/2, 2]
    Ok(x.contiguous()?.reshape((1, channels, f, h, w))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Value of channel `c` at frame `f`, row `y`, column `x`: its own coordinates.
    fn coordinates(c: usize, f: usize, h: usize, w: usize) -> Tensor {
        let mut values = Vec::new();
        for c in 0..c {
            for f in 0..f {
                for y in 0..h {
                    values.extend((0..w).map(|x| (c * 1000 + f * 100 + y * 10 + x) as f32));
                }
            }
        }
        Tensor::from_vec(values, (1, c, f, h, w), &Device::Cpu).unwrap()
    }

    #[test]
    fn patches_are_channel_slowest_and_tokens_column_fastest() {
        let tokens = patchify(&coordinates(3, 2, 4, 6)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!((tokens.len(), tokens[0].len()), (12, 12));
        // Token 10 is frame 1, row 1, column 1: pixels (2..4, 2..4).
        assert_eq!(
            tokens[10],
            [122., 123., 132., 133., 1122., 1123., 1132., 1133., 2122., 2123., 2132., 2133.]
        );
    }

    #[test]
    fn the_head_puts_the_channel_fastest() {
        let want = coordinates(3, 2, 4, 6);
        let patches = patchify(&want).unwrap(); // (channel, row, column)
        let head = patches.reshape((12, 3, 4)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
        let found = unpatchify(&head.reshape((12, 12)).unwrap(), 3, [2, 4, 6]).unwrap();
        assert_eq!(
            found.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            want.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
    }

    #[test]
    fn odd_sizes_are_refused() {
        let error = patchify(&coordinates(1, 1, 3, 4)).unwrap_err().to_string();
        assert_eq!(error, "latents: found shape [1, 1, 1, 3, 4], expected an even height and width");
    }
}
