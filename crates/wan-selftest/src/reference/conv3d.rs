use wan_ops::ConvSpec;

use super::{Format, Matrix};

/// One voxel of a convolution for each of `voxels`, numbered row-major over the output: `[voxels, outputs]`.
///
/// - `x`: frames before the chunk and the chunk, `[front + T, H, W, inputs]`, its sizes in `size`
/// - `weight`: `[outputs, inputs * kt * kh * kw]`
pub fn conv3d(
    format: Format,
    spec: &ConvSpec,
    (x, size): (&Matrix, [usize; 3]),
    weight: &Matrix,
    bias: &[f64],
    voxels: &[usize],
) -> Matrix {
    let [frames, height, width] = size;
    let Some([_, h_out, w_out]) = spec.output([frames - spec.front, height, width]) else {
        return Matrix { columns: spec.outputs, values: Vec::new() };
    };
    let scale = if spec.upsample { 2 } else { 1 };
    let [kt, kh, kw] = spec.kernel;
    let [top, _, left, _] = spec.padding;
    let picked = Matrix { columns: 1, values: voxels.iter().map(|v| *v as f64).collect() };
    picked.map_rows(|_, voxel| {
        let voxel = voxel[0] as usize;
        let (t, rest) = (voxel / (h_out * w_out), voxel % (h_out * w_out));
        let (row, column) = (rest / w_out, rest % w_out);
        // The voxels under the kernel, each with its place in the kernel.
        let mut taps = Vec::with_capacity(kt * kh * kw);
        for (a, b, c) in (0..kt).flat_map(|a| (0..kh).flat_map(move |b| (0..kw).map(move |c| (a, b, c)))) {
            let y = (row * spec.stride[1] + b).checked_sub(top).filter(|y| *y < height * scale);
            let x = (column * spec.stride[2] + c).checked_sub(left).filter(|x| *x < width * scale);
            if let (Some(y), Some(x)) = (y, x) {
                let frame = t * spec.stride[0] + a;
                taps.push(((frame * height + y / scale) * width + x / scale, (a * kh + b) * kw + c));
            }
        }
        (0..spec.outputs)
            .map(|output| {
                let kernel = weight.row(output);
                let products = taps.iter().flat_map(|(voxel, tap)| {
                    let weights = kernel.iter().skip(*tap).step_by(kt * kh * kw);
                    x.row(*voxel).iter().copied().zip(weights.copied())
                });
                format.dot(products.chain([(bias[output], 1.0)]))
            })
            .collect()
    })
}
