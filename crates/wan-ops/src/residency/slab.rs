/// Alignment of every tensor in a slab, bytes: that of the device's allocations.
const ALIGNMENT: usize = 256;

/// How the tensors of one part lie in one piece of memory, the same on the host and on the device, so that a single
/// copy brings all of them. Neighbours whose sizes are multiples of 256 lie without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlabLayout {
    offsets: Vec<usize>,
    bytes: usize,
}

impl SlabLayout {
    /// The layout of tensors of these sizes in bytes, in order.
    pub fn new(sizes: impl IntoIterator<Item = usize>) -> Self {
        let mut bytes = 0usize;
        let mut offsets = Vec::new();
        for size in sizes {
            offsets.push(bytes);
            bytes = (bytes + size).next_multiple_of(ALIGNMENT);
        }
        Self { offsets, bytes }
    }

    /// First byte of each tensor.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Bytes of the slab.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_do_not_overlap() {
        let sizes = [512, 1, 0, 257, 300];
        let slab = SlabLayout::new(sizes);
        assert_eq!(slab.offsets(), [0, 512, 768, 768, 1280]);
        assert_eq!(slab.bytes(), 1792);
        for (offset, next) in
            slab.offsets().iter().zip(&slab.offsets()[1..]).zip(sizes).map(|((a, b), s)| (a + s, *b))
        {
            assert!(offset <= next);
        }
        assert_eq!(SlabLayout::new([]).bytes(), 0);
    }

    /// Query, key and value of the 14B model, in any dtype, are one matrix of three times the rows.
    #[test]
    fn matrices_of_the_model_lie_without_gaps() {
        for value in [1, 2, 4] {
            let matrix = 5120 * 5120 * value;
            assert_eq!(SlabLayout::new([matrix; 3]).offsets(), [0, matrix, 2 * matrix]);
        }
    }
}
