//! Names of the VAE's tensors in the files people have.
//!
//! Canonical are the names of Wan2.1's own file, which ComfyUI's and Kijai's files share.

use wan_core::{Dialect, Result, Rule, WeightSet};

const ORIGINAL: Dialect = Dialect {
    name: "original",
    markers: &["decoder.middle.0.residual.2.weight"],
    prefixes: &["model."],
    rules: &[],
    unused: &[],
};

/// Blocks keep their numbers, except in the decoder, where [`flatten`] follows.
const DIFFUSERS: Dialect = Dialect {
    name: "diffusers",
    markers: &["decoder.mid_block.resnets.0.conv1.weight"],
    prefixes: &[],
    rules: &[
        Rule { from: "quant_conv.*", to: &["conv1.*"] },
        Rule { from: "post_quant_conv.*", to: &["conv2.*"] },
        Rule { from: "{}.conv_in.*", to: &["{}.conv1.*"] },
        Rule { from: "{}.norm_out.*", to: &["{}.head.0.*"] },
        Rule { from: "{}.conv_out.*", to: &["{}.head.2.*"] },
        Rule { from: "{}.mid_block.attentions.0.*", to: &["{}.middle.1.*"] },
        Rule { from: "{}.mid_block.resnets.0.norm1.*", to: &["{}.middle.0.residual.0.*"] },
        Rule { from: "{}.mid_block.resnets.0.conv1.*", to: &["{}.middle.0.residual.2.*"] },
        Rule { from: "{}.mid_block.resnets.0.norm2.*", to: &["{}.middle.0.residual.3.*"] },
        Rule { from: "{}.mid_block.resnets.0.conv2.*", to: &["{}.middle.0.residual.6.*"] },
        Rule { from: "{}.mid_block.resnets.1.norm1.*", to: &["{}.middle.2.residual.0.*"] },
        Rule { from: "{}.mid_block.resnets.1.conv1.*", to: &["{}.middle.2.residual.2.*"] },
        Rule { from: "{}.mid_block.resnets.1.norm2.*", to: &["{}.middle.2.residual.3.*"] },
        Rule { from: "{}.mid_block.resnets.1.conv2.*", to: &["{}.middle.2.residual.6.*"] },
        Rule { from: "encoder.down_blocks.{}.norm1.*", to: &["encoder.downsamples.{}.residual.0.*"] },
        Rule { from: "encoder.down_blocks.{}.conv1.*", to: &["encoder.downsamples.{}.residual.2.*"] },
        Rule { from: "encoder.down_blocks.{}.norm2.*", to: &["encoder.downsamples.{}.residual.3.*"] },
        Rule { from: "encoder.down_blocks.{}.conv2.*", to: &["encoder.downsamples.{}.residual.6.*"] },
        Rule { from: "encoder.down_blocks.{}.conv_shortcut.*", to: &["encoder.downsamples.{}.shortcut.*"] },
        Rule { from: "encoder.down_blocks.*", to: &["encoder.downsamples.*"] },
        Rule {
            from: "decoder.up_blocks.{}.resnets.{}.norm1.*",
            to: &["decoder.up_blocks.{}.resnets.{}.residual.0.*"],
        },
        Rule {
            from: "decoder.up_blocks.{}.resnets.{}.conv1.*",
            to: &["decoder.up_blocks.{}.resnets.{}.residual.2.*"],
        },
        Rule {
            from: "decoder.up_blocks.{}.resnets.{}.norm2.*",
            to: &["decoder.up_blocks.{}.resnets.{}.residual.3.*"],
        },
        Rule {
            from: "decoder.up_blocks.{}.resnets.{}.conv2.*",
            to: &["decoder.up_blocks.{}.resnets.{}.residual.6.*"],
        },
        Rule {
            from: "decoder.up_blocks.{}.resnets.{}.conv_shortcut.*",
            to: &["decoder.up_blocks.{}.resnets.{}.shortcut.*"],
        },
    ],
    unused: &[],
};

/// The namings known, tried in this order.
pub const DIALECTS: &[Dialect] = &[ORIGINAL, DIFFUSERS];

/// The weights under canonical names.
///
/// Errors: [`WeightsError::UnknownNaming`](wan_core::WeightsError::UnknownNaming).
pub fn canonical(weights: &WeightSet) -> Result<WeightSet> {
    let (set, dialect) = weights.canonical("Wan VAE", DIALECTS)?;
    if dialect.name != DIFFUSERS.name {
        return Ok(set);
    }
    let resnets = set.count("decoder.up_blocks.0.resnets");
    Ok(set.renamed(|name| flatten(name, resnets)))
}

/// diffusers groups the decoder's blocks by level, `resnets` residual blocks and an upsampler each; the original
/// numbers them through. `None` for every other name.
fn flatten(name: &str, resnets: usize) -> Option<String> {
    let (level, rest) = name.strip_prefix("decoder.up_blocks.")?.split_once('.')?;
    let (kind, rest) = rest.split_once('.')?;
    let (index, rest) = rest.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let place = match kind {
        "resnets" if index < resnets => index,
        "upsamplers" if index == 0 => resnets,
        _ => return None,
    };
    let block = level.parse::<usize>().ok()?.checked_mul(resnets.checked_add(1)?)?.checked_add(place)?;
    Some(format!("decoder.upsamples.{block}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoder_blocks_are_numbered_through() {
        let rows = [
            ("decoder.up_blocks.0.resnets.2.residual.2.bias", 3, Some("decoder.upsamples.2.residual.2.bias")),
            (
                "decoder.up_blocks.1.upsamplers.0.time_conv.bias",
                3,
                Some("decoder.upsamples.7.time_conv.bias"),
            ),
            ("decoder.up_blocks.3.resnets.0.shortcut.bias", 3, Some("decoder.upsamples.12.shortcut.bias")),
            (
                "decoder.up_blocks.1.resnets.1.residual.0.gamma",
                2,
                Some("decoder.upsamples.4.residual.0.gamma"),
            ),
            ("decoder.up_blocks.1.resnets.2.residual.0.gamma", 2, None),
            ("decoder.up_blocks.0.upsampler.resample.1.bias", 3, None),
            ("decoder.conv1.bias", 3, None),
        ];
        for (name, resnets, want) in rows {
            assert_eq!(flatten(name, resnets).as_deref(), want, "{name}");
        }
    }
}
