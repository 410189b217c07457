use candle_core::{DType, Tensor};
use wan_core::{Error, Loader, Result};
use wan_ops::{Activation, Affine, Linear, layer_norm};

/// eps of this module's norms, whatever the configuration's says.
const EPS: f32 = 1e-5;

/// Name of the positions of two images' tokens, below `img_emb`.
const POSITIONS: &str = "emb_pos";

/// From the image encoder's channels to the model's (i2v).
///
/// Source: Wan2.1 `wan/modules/model.py`, MLPProj.
#[derive(Debug)]
pub(crate) struct ImageEmbedding {
    /// `[2 N, image_dim]`: added to the tokens of two images, one after the other (first-and-last-frame models only).
    positions: Option<Tensor>,
    norm_in: [Tensor; 2],
    first: Linear,
    second: Linear,
    norm_out: [Tensor; 2],
    image_dim: usize,
}

impl ImageEmbedding {
    /// Takes `proj.0` (norm), `proj.1`, `proj.3` (linears), `proj.4` (norm), and `emb_pos` where the file has it;
    /// `positions` is the number of its rows.
    pub(crate) fn load(
        loader: &Loader,
        positions: Option<usize>,
        image_dim: usize,
        dim: usize,
    ) -> Result<Self> {
        let positions = positions.map(|rows| loader.tensor(POSITIONS, &[rows, image_dim])).transpose()?;
        let loader = &loader.pp("proj");
        let norm = |name: &str, channels: usize| -> Result<[Tensor; 2]> {
            let l = loader.pp(name);
            Ok([l.tensor("weight", &[channels])?, l.tensor("bias", &[channels])?])
        };
        Ok(Self {
            positions,
            norm_in: norm("0", image_dim)?,
            first: Linear::load(&loader.pp("1"), image_dim, image_dim)?,
            second: Linear::load(&loader.pp("3"), image_dim, dim)?,
            norm_out: norm("4", dim)?,
            image_dim,
        })
    }

    /// - `image_embeds`: `[N, image_dim]` or `[1, N, image_dim]`, N at least 1; with positions at most as many as there
    ///   are, and the tokens of a single image take the first of them
    /// - returns `[N, dim]` in `dtype`; norms are f32
    ///
    /// Errors: [`Error::Shape`].
    pub(crate) fn forward(&self, image_embeds: &Tensor, dtype: DType) -> Result<Tensor> {
        let rows = match *image_embeds.dims() {
            [n, d] | [1, n, d] if d == self.image_dim && n > 0 && n <= self.most_tokens() => n,
            _ => {
                let most = self
                    .positions
                    .as_ref()
                    .map_or(String::new(), |_| format!(" and at most {}", self.most_tokens()));
                let expected = format!("[1, N, {}] with N at least 1{most}", self.image_dim);
                return Err(Error::shape("image_embeds", image_embeds.dims(), expected));
            }
        };
        let x = image_embeds.reshape((rows, self.image_dim))?.to_dtype(DType::F32)?;
        let x = match &self.positions {
            Some(positions) => (x + positions.narrow(0, 0, rows)?)?,
            None => x,
        };
        let x = normalise(&x, &self.norm_in)?.to_dtype(dtype)?;
        let x = self.second.forward(&self.first.forward_act(&x, Activation::GeluErf)?)?; // [N, dim]
        Ok(normalise(&x.to_dtype(DType::F32)?, &self.norm_out)?.to_dtype(dtype)?)
    }
}

impl ImageEmbedding {
    fn most_tokens(&self) -> usize {
        self.positions.as_ref().map_or(usize::MAX, |p| p.dims()[0])
    }
}

fn normalise(x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Result<Tensor> {
    layer_norm(x, EPS, Affine::Weights { weight, bias })
}
