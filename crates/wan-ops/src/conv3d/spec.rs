/// Geometry of a [`Conv3d`](super::Conv3d); triples are (time, height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Kernel size.
    pub kernel: [usize; 3],
    /// Stride.
    pub stride: [usize; 3],
    /// Frames before the first input frame: the last `front` frames of zeros followed by the history.
    /// `kernel[0] - 1` makes the convolution causal and keeps the number of frames at stride 1.
    pub front: usize,
    /// Zero padding in space: (top, bottom, left, right).
    pub padding: [usize; 4],
    /// Doubles height and width by repeating pixels, before the convolution.
    pub upsample: bool,
}

impl ConvSpec {
    /// A causal convolution of an odd `kernel`, stride 1, that keeps frames, height and width.
    pub fn causal(inputs: usize, outputs: usize, kernel: [usize; 3]) -> Self {
        let [t, h, w] = kernel;
        Self {
            inputs,
            outputs,
            kernel,
            stride: [1, 1, 1],
            front: t - 1,
            padding: [h / 2, h / 2, w / 2, w / 2],
            upsample: false,
        }
    }

    /// Frames, height and width of the output for an input of `[t, h, w]`; `None` where the kernel does not fit.
    pub fn output(&self, [t, h, w]: [usize; 3]) -> Option<[usize; 3]> {
        let scale = if self.upsample { 2 } else { 1 };
        let [top, bottom, left, right] = self.padding;
        let padded = [t + self.front, h * scale + top + bottom, w * scale + left + right];
        let mut out = [0; 3];
        for i in 0..3 {
            out[i] = padded[i].checked_sub(self.kernel[i])? / self.stride[i] + 1;
        }
        Some(out)
    }
}
