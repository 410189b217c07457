use wan_cuda::ops::{self, Function};
use wan_ops::{Activation, channel_rms_norm};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

#[test]
fn equals_the_cpu() {
    for (float, dtype, tolerance) in FLOATS {
        // Voxels of one lane, of parts of a warp, of whole warps, and blocks that are not full.
        for channels in [1, 3, 12, 16, 33, 96, 192, 384, 1024] {
            for (function, activation) in
                [(Function::Identity, Activation::Identity), (Function::Silu, Activation::Silu)]
            {
                let shape = [3, 11, channels];
                let mut x = random(&shape, 1);
                if channels == 16 {
                    x = (x * 0.0).unwrap(); // a norm that is limited from below
                }
                let (x, gamma) = (x.to_dtype(dtype).unwrap(), random(&[channels], 2));
                let (xb, gb, y) =
                    (Buffer::of(&x), Buffer::of(&gamma), Buffer::poisoned(dtype, 33 * channels));
                let launch = ops::channel_norm(float, [xb.ptr(), gb.ptr(), y.ptr()], 33, channels, function);
                run(&launch, &[&xb, &gb, &y]);
                let want = channel_rms_norm(&x, &gamma, activation).unwrap();
                assert_close(&y.tensor(dtype, &shape), &want, tolerance);
            }
        }
    }
}
