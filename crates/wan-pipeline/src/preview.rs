use candle_core::Tensor;
use wan_core::{Error, Result};
use wan_media::to_u8;
use wan_models::LatentRgb;

/// One small RGB picture per latent frame, by an affine map of the latent channels.
///
/// - `latents`: `[1, 16, F, h, w]` f32 on the CPU
/// - returns `F` buffers of `h * w * 3` bytes
pub fn latent_preview(latents: &Tensor, map: &LatentRgb) -> Result<Vec<Vec<u8>>> {
    let (_, channels, frames, h, w) = latents.dims5()?;
    if map.factors.len() != channels {
        return Err(Error::shape(
            "latent-to-RGB factors",
            &[map.factors.len(), 3],
            format!("[{channels}, 3]"),
        ));
    }
    let values = latents.flatten_all()?.to_vec1::<f32>()?;
    let plane = h * w;
    Ok((0..frames)
        .map(|f| {
            (0..plane)
                .flat_map(|i| {
                    let mut rgb = map.bias;
                    for (c, factors) in map.factors.iter().enumerate() {
                        let value = values[(c * frames + f) * plane + i];
                        rgb.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += value * factor);
                    }
                    rgb.map(to_u8)
                })
                .collect()
        })
        .collect())
}
