use candle_core::{DType, Device, Tensor};
use wan_ops::{Conv3d, ConvSpec};
use wan_pipeline::Result;

use super::{Case, FLOATS, GROUP, Gate, Scale, sampled, short};
use crate::reference::{self, Format, Matrix};
use crate::synthesis::{normal, stored};
use crate::{Check, Runner};

pub fn run(runner: &mut Runner<'_>, device: &Device, scale: Scale) {
    let causal = |inputs, outputs, kernel| ConvSpec::causal(inputs, outputs, kernel);
    let down = ConvSpec { stride: [1, 2, 2], padding: [0, 1, 0, 1], ..causal(24, 40, [1, 3, 3]) };
    let up = ConvSpec { upsample: true, ..causal(32, 16, [1, 3, 3]) };
    let halve = ConvSpec { stride: [2, 1, 1], front: 1, ..causal(16, 16, [3, 1, 1]) };
    // The last two are as Hopper's own kernel takes them.
    let up_far = ConvSpec { upsample: true, ..causal(32, 96, [1, 3, 3]) };
    let small = [
        causal(3, 5, [3, 3, 3]),
        causal(16, 32, [3, 3, 3]),
        causal(7, 3, [1, 1, 1]),
        down,
        up,
        halve,
        causal(64, 96, [3, 3, 3]),
        up_far,
    ];
    for dtype in FLOATS {
        for spec in small {
            for size in [[2, 4, 6], [4, 9, 7]] {
                row(runner, device, scale, dtype, spec, size);
            }
        }
    }
    if scale.full {
        // The decoder's middle, its last two resolutions, and an upsampling.
        let (h, w) = if scale.tokens > 1024 { (480, 832) } else { (32, 48) };
        row(runner, device, scale, DType::BF16, causal(384, 384, [3, 3, 3]), [3, h / 8, w / 8]);
        row(runner, device, scale, DType::BF16, causal(192, 192, [3, 3, 3]), [4, h / 2, w / 2]);
        row(runner, device, scale, DType::BF16, causal(96, 96, [3, 3, 3]), [4, h, w]);
        let up = ConvSpec { upsample: true, ..causal(384, 192, [1, 3, 3]) };
        row(runner, device, scale, DType::BF16, up, [4, h / 4, w / 4]);
    }
}

fn row(
    runner: &mut Runner<'_>,
    device: &Device,
    scale: Scale,
    dtype: DType,
    spec: ConvSpec,
    size: [usize; 3],
) {
    let [kt, kh, kw] = spec.kernel;
    let ([t, h, w], change) =
        (size, [spec.upsample.then_some(" up"), (spec.stride != [1; 3]).then_some(" down")]);
    let change = change.into_iter().flatten().collect::<String>();
    let name = format!(
        "conv3d{change} {} {kt}x{kh}x{kw} {}->{} {t}x{h}x{w}",
        short(dtype),
        spec.inputs,
        spec.outputs
    );
    runner.row(GROUP, name, || check(device, scale, dtype, spec, size));
}

fn check(
    device: &Device,
    scale: Scale,
    dtype: DType,
    spec: ConvSpec,
    size: [usize; 3],
) -> Result<Vec<Check>> {
    let ([t, h, w], [kt, kh, kw], c) = (size, spec.kernel, spec.inputs);
    let Some(out) = spec.output(size) else {
        return Err(
            wan_core::Error::invalid("convolution", format!("{size:?}"), "room for the kernel").into()
        );
    };
    let taps = c * kt * kh * kw;
    let deviation = 1.0 / (taps as f32).sqrt();
    let weight = stored("weight", dtype, &[spec.outputs, c, kt, kh, kw], deviation, scale.seed)?;
    let bias = normal(dtype, &[spec.outputs], 0.5, scale.seed + 1)?.to_dtype(DType::F32)?;
    let x = normal(dtype, &[t, h, w, c], 1.0, scale.seed + 2)?;
    let history = normal(dtype, &[spec.front.max(1), h, w, c], 1.0, scale.seed + 3)?;
    let history = (spec.front > 0).then_some(&history);
    let run = |device: &Device| {
        let layer = Conv3d::new(spec, weight.clone(), bias.to_device(device)?)?;
        let history = history.map(|t| t.to_device(device)).transpose()?;
        let y = layer.forward(&x.to_device(device)?, history.as_ref(), None)?;
        Ok(y.reshape(((), spec.outputs))?)
    };
    let frames = match history {
        Some(history) => Tensor::cat(&[history, &x], 0)?,
        None => x.clone(),
    };
    let (values, biases) = (Matrix::of(&frames)?, Matrix::of(&bias)?.values);
    let wide: Vec<f64> = weight.to_f32_vec()?.into_iter().map(f64::from).collect();
    let wide = Matrix { columns: taps, values: wide };
    let padded = [t + spec.front, h, w];
    let reference = |format: Format, voxels: &[usize]| {
        Ok(reference::conv3d(format, &spec, (&values, padded), &wide, &biases, voxels))
    };
    let voxels: usize = out.iter().product();
    let case = Case {
        dtype,
        rows: sampled(voxels),
        run: &run,
        reference: &reference,
        gate: Gate::TwiceEager,
        against_cpu: voxels * taps * spec.outputs < 1 << 32,
    };
    case.check(device)
}
