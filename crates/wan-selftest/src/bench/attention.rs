//! Attention alone.

use wan_core::device::compute_dtype;
use wan_dit::{AttentionChoice, DitConfig};
use wan_ops::{attention_sum, self_attention};
use wan_pipeline::Result;

use super::{Bench, latent};
use crate::synthesis::normal;
use crate::{Check, Runner};

const GROUP: &str = "attention";
/// Keys of the image.
const IMAGE: usize = 257;

pub fn run(bench: &Bench<'_>, runner: &mut Runner<'_>) {
    let Ok(config) = bench.files.dit.weights().and_then(|w| DitConfig::read(&w, None)) else { return };
    for video in &bench.options.videos {
        let tokens = latent(*video).tokens();
        for choice in [AttentionChoice::Exact, AttentionChoice::Cudnn, AttentionChoice::Sage] {
            runner.row(GROUP, format!("{choice} {tokens}x{tokens}"), || own(bench, &config, tokens, choice));
        }
        let keys = config.text_len + IMAGE;
        runner.row(GROUP, format!("cross {tokens}x{keys}"), || cross(bench, &config, tokens));
    }
}

fn own(bench: &Bench<'_>, config: &DitConfig, tokens: usize, choice: AttentionChoice) -> Result<Vec<Check>> {
    let [q, k, v] = [1, 2, 3].map(|n| heads(bench, config, tokens, n));
    let (q, k, v) = (q?, k?, v?);
    let scale = 3.0 / (config.head_dim() as f32).sqrt();
    let times = bench.time(|| {
        self_attention(&q, &k, &v, scale, choice)?;
        Ok(())
    })?;
    let flops = 4.0 * (tokens as f64).powi(2) * config.dim as f64;
    let rate = bench.rates.map(|r| if choice == AttentionChoice::Sage { r.fp8 } else { r.bf16 });
    Ok(Bench::figures(times, flops, rate.map(|rate| flops / rate)))
}

fn cross(bench: &Bench<'_>, config: &DitConfig, tokens: usize) -> Result<Vec<Check>> {
    let q = heads(bench, config, tokens, 1)?;
    let [k, v] = [2, 3].map(|n| heads(bench, config, config.text_len, n));
    let [k2, v2] = [4, 5].map(|n| heads(bench, config, IMAGE, n));
    let (k, v, k2, v2) = (k?, v?, k2?, v2?);
    let scale = 1.0 / (config.head_dim() as f32).sqrt();
    let times = bench.time(|| {
        attention_sum(&q, (&k, &v), (&k2, &v2), scale)?;
        Ok(())
    })?;
    let flops = 4.0 * (tokens * (config.text_len + IMAGE)) as f64 * config.dim as f64;
    Ok(Bench::figures(times, flops, bench.rates.map(|r| flops / r.bf16)))
}

fn heads(bench: &Bench<'_>, config: &DitConfig, tokens: usize, n: u64) -> Result<candle_core::Tensor> {
    let shape = [tokens, config.num_heads, config.head_dim()];
    let dtype = compute_dtype(bench.device());
    Ok(normal(dtype, &shape, 1.0, bench.options.seed + n)?.to_device(bench.device())?)
}
