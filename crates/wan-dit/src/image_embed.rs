use candle_core::{DType, Tensor};
use wan_core::{Error, Loader, Result};
use wan_ops::{Activation, Affine, Linear, layer_norm};

/// eps of this module's norms, whatever the configuration's says.
const EPS: f32 = 1e-5;

/// From the image encoder's channels to the model's (i2v).
///
/// Source: Wan2.1 `wan/modules/model.py`, MLPProj.
#[derive(Debug)]
pub(crate) struct ImageEmbedding {
    norm_in: [Tensor; 2],
    first: Linear,
    second: Linear,
    norm_out: [Tensor; 2],
    image_dim: usize,
}

impl ImageEmbedding {
    /// Takes `0` (norm), `1`, `3` (linears) and `4` (norm).
    pub(crate) fn load(loader: &Loader, image_dim: usize, dim: usize) -> Result<Self> {
        let norm = |name: &str, channels: usize| -> Result<[Tensor; 2]> {
            let l = loader.pp(name);
            Ok([l.tensor("weight", &[channels])?, l.tensor("bias", &[channels])?])
        };
        Ok(Self {
            norm_in: norm("0", image_dim)?,
            first: Linear::load(&loader.pp("1"), image_dim, image_dim)?,
            second: Linear::load(&loader.pp("3"), image_dim, dim)?,
            norm_out: norm("4", dim)?,
            image_dim,
        })
    }

    /// - `image_embeds`: `[N, image_dim]` or `[1, N, image_dim]`, N at least 1
    /// - returns `[N, dim]` in `dtype`; norms are f32
    ///
    /// Errors: [`Error::Shape`].
    pub(crate) fn forward(&self, image_embeds: &Tensor, dtype: DType) -> Result<Tensor> {
        let rows = match *image_embeds.dims() {
            [n, d] | [1, n, d] if d == self.image_dim && n > 0 => n,
            _ => {
                let expected = format!("[1, N, {}] with N at least 1", self.image_dim);
                return Err(Error::shape("image_embeds", image_embeds.dims(), expected));
            }
        };
        let x = image_embeds.reshape((rows, self.image_dim))?.to_dtype(DType::F32)?;
        let x = normalise(&x, &self.norm_in)?.to_dtype(dtype)?;
        let x = self.second.forward(&self.first.forward_act(&x, Activation::GeluErf)?)?; // [N, dim]
        Ok(normalise(&x.to_dtype(DType::F32)?, &self.norm_out)?.to_dtype(dtype)?)
    }
}

fn normalise(x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Result<Tensor> {
    layer_norm(x, EPS, Affine::Weights { weight, bias })
}
