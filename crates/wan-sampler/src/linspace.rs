//! Equal distances, each with the rounding of the library that the references use.

/// `numpy.linspace(from, to, steps + 1)` without its last value, bit for bit.
pub(crate) fn numpy_linspace(from: f64, to: f64, steps: usize) -> impl Iterator<Item = f64> {
    let step = (to - from) / steps as f64;
    (0..steps).map(move |i| i as f64 * step + from)
}

/// `torch.linspace(from, to, len)` of f32: each value from its nearer end, with one rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TorchLinspace {
    from: f32,
    to: f32,
    len: usize,
}

impl TorchLinspace {
    pub(crate) fn new(from: f32, to: f32, len: usize) -> Self {
        Self { from, to, len }
    }

    pub(crate) fn value(self, index: usize) -> f32 {
        let Self { from, to, len } = self;
        if len == 1 {
            return from;
        }
        let step = (to - from) / (len - 1) as f32;
        match index < len / 2 {
            true => step.mul_add(index as f32, from),
            false => (-step).mul_add((len - 1 - index) as f32, to),
        }
    }

    pub(crate) fn values(self) -> impl Iterator<Item = f32> {
        (0..self.len).map(move |index| self.value(index))
    }
}
