use super::rows::GROUP;
use crate::launch::args;
use crate::{DevPtr, Float, Launch};

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// f32, bf16 or f16.
    Float(Float),
    /// e4m3 with the factor of each row `stride` f32 values apart at `scale`: 0 for one factor of all rows, 1 for one
    /// a row. `scale` null: the codes are the values.
    E4m3 {
        /// Factors.
        scale: DevPtr,
        /// 0 or 1.
        stride: usize,
    },
    /// Blocks of GGUF, without gaps, at an even address. Rows are whole blocks.
    Blocks(Blocks),
}

macro_rules! block_formats {
    ($($format:ident $name:literal),+) => {
        /// GGUF's quantised blocks, under ggml's names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are ggml's")]
        pub enum Blocks {
            $($format),+
        }

        impl Blocks {
            /// The format that ggml calls so, such as `Q4_K`.
            pub fn named(name: &str) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($name) {
                    return Some(Self::$format);
                })+
                None
            }

            fn kernel(self, float: Float) -> &'static str {
                match (self, float) {
                    $((Self::$format, Float::Bf16) => concat!("dequantise_", $name, "_bf16"),
                    (Self::$format, Float::F16) => concat!("dequantise_", $name, "_f16"),
                    (Self::$format, Float::F32) => concat!("dequantise_", $name, "_f32"),)+
                }
            }
        }
    };
}

block_formats!(
    Q4_0 "q4_0", Q4_1 "q4_1", Q5_0 "q5_0", Q5_1 "q5_1", Q8_0 "q8_0",
    Q2K "q2_k", Q3K "q3_k", Q4K "q4_k", Q5K "q5_k", Q6K "q6_k"
);

const THREADS: usize = 256;

/// A stored matrix `[rows, dim]` at `from` as values of `float` at `to`; rounded once from f32. `None` where nothing
/// changes (a float format to itself).
pub fn dequantise(
    storage: Storage,
    from: DevPtr,
    (float, to): (Float, DevPtr),
    rows: usize,
    dim: usize,
) -> Option<Launch> {
    use Float::{Bf16, F16, F32};
    let kernel = match (storage, float) {
        (Storage::E4m3 { .. }, Bf16) => "dequantise_e4m3_bf16",
        (Storage::E4m3 { .. }, F16) => "dequantise_e4m3_f16",
        (Storage::E4m3 { .. }, F32) => "dequantise_e4m3_f32",
        (Storage::Float(F16), Bf16) => "dequantise_f16_bf16",
        (Storage::Float(F16), F32) => "dequantise_f16_f32",
        (Storage::Float(Bf16), F16) => "dequantise_bf16_f16",
        (Storage::Float(Bf16), F32) => "dequantise_bf16_f32",
        (Storage::Float(F32), Bf16) => "dequantise_f32_bf16",
        (Storage::Float(F32), F16) => "dequantise_f32_f16",
        (Storage::Float(_), _) => return None,
        (Storage::Blocks(format), _) => format.kernel(float),
    };
    let (scale, stride) = match storage {
        Storage::Blocks(_) => {
            let count = rows * dim;
            let args = args![from, to, count as i64];
            return Some(Launch::new(kernel, count.div_ceil(GROUP * THREADS), THREADS as u32, args));
        }
        Storage::E4m3 { scale, stride } => (scale, stride),
        Storage::Float(_) => (DevPtr::NULL, 0),
    };
    // Without factors that tell rows apart they are one.
    let (rows, dim) = if stride == 0 { (1, rows * dim) } else { (rows, dim) };
    let blocks_per_row = dim.div_ceil(GROUP * THREADS);
    let args = args![from, scale, to, dim as i64, blocks_per_row as i32, stride as i32];
    Some(Launch::new(kernel, rows * blocks_per_row, THREADS as u32, args))
}
