//! The data layouts of `kernels/attention_sage_sm90.cu`, which does not run here: its products, emulated from the PTX
//! ISA's descriptors and fragments ("Asynchronous Warpgroup Level Matrix Instructions"), over the tiles that the
//! quantising kernels write.

use candle_core::{DType, Tensor};
use float8::F8E4M3;
use wan_cuda::ops::{AttentionPlaces, Sage, SageKernel};
use wan_cuda::{Arg, Float};
use wan_ops::attention;

use crate::attention::{Inputs, rows};
use crate::attention_sage::relative_error;
use crate::host::{Buffer, run};

const TILE: usize = 128 * 128;
/// Largest value of e4m3.
const E4M3_MAX: f64 = 448.0;

/// Byte `byte` of row `row` of the matrix that a descriptor of the kernel describes: rows of 128 bytes, 8-row groups
/// 1024 bytes apart, the 128-byte swizzle. `start`: the first row, plus 32 bytes for each step along the rows.
fn described(tile: &[u8], start: usize, row: usize, byte: usize) -> u8 {
    let address = start + row / 8 * 1024 + row % 8 * 128 + byte;
    // Bits 4 to 6 of an address are exclusive-ored with bits 7 to 9.
    tile[address ^ (address >> 7 & 7) << 4]
}

/// One tile of queries and one of keys of a head.
struct Head<'a> {
    q8: &'a [u8],
    q_scale: Vec<f32>,
    k8: &'a [u8],
    k_scale: Vec<f32>,
    v8: &'a [u8],
    v_scale: Vec<f32>,
    keys: usize,
}

impl Head<'_> {
    /// Rows `64 group ..` of the result, `[64, 128]`, as a warpgroup computes them.
    fn warpgroup(&self, group: usize) -> Vec<[f64; 128]> {
        let mut weights = vec![[0f64; 128]; 64]; // as the second product reads them
        let mut totals = [0f64; 64];
        for (row, total) in totals.iter_mut().enumerate() {
            let scores: Vec<f64> = (0..self.keys).map(|key| self.score(group, row, key)).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // What a lane holds of the row: sum 2 n + i is key 8 n + 2 t + i.
            for t in 0..4 {
                let key = |sum: usize| sum / 2 * 8 + 2 * t + sum % 2;
                let weight = |sum: usize| {
                    let score = scores.get(key(sum)).copied().unwrap_or(f64::NEG_INFINITY);
                    (score - most).exp2() * E4M3_MAX
                };
                *total += (0..32).map(weight).sum::<f64>();
                for step in 0..4 {
                    // Register i of the operand holds row g + 8 (i % 2), columns 16 (i / 2) + 4 t + byte; of those
                    // that hold this row, i / 2 is `half`.
                    for half in 0..2 {
                        let first = 8 * step + 4 * half;
                        for (byte, sum) in [first, first + 1, first + 2, first + 3].into_iter().enumerate() {
                            let rounded = F8E4M3::from_f64(weight(sum)).to_f64();
                            weights[row][32 * step + 16 * half + 4 * t + byte] = rounded;
                        }
                    }
                }
            }
        }
        let value = |channel: usize, column: usize| {
            F8E4M3::from_bits(described(self.v8, column / 32 * 32, channel, column % 32)).to_f64()
        };
        let product = |row: &[f64; 128], channel: usize| {
            row.iter().enumerate().map(|(column, weight)| weight * value(channel, column)).sum::<f64>()
        };
        let result = |(row, total): (&[f64; 128], &f64)| {
            std::array::from_fn(|c| product(row, c) / total * f64::from(self.v_scale[c]))
        };
        weights.iter().zip(&totals).map(result).collect()
    }

    /// The score of a query of a warpgroup and a key, to base 2.
    fn score(&self, group: usize, row: usize, key: usize) -> f64 {
        let steps = (0..4).flat_map(|step| (0..32).map(move |byte| (step * 32, byte)));
        let sum: i32 = steps
            .map(|(step, byte)| {
                let q = described(self.q8, group * 64 * 128 + step, row, byte).cast_signed();
                i32::from(q) * i32::from(described(self.k8, step, key, byte).cast_signed())
            })
            .sum();
        f64::from(sum) * f64::from(self.q_scale[group * 64 + row] * self.k_scale[key % 8 / 2])
    }
}

#[test]
fn descriptors_and_fragments_read_the_tiles() {
    let inputs = Inputs::random([100, 90, 2, 128], DType::BF16);
    let scale = inputs.scale(2.0);
    let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(Buffer::of);
    let y = Buffer::poisoned(DType::BF16, inputs.dims().iter().product());
    let [qr, kr, vr] = [&q, &k, &v].map(|buffer| rows(buffer, inputs.shape));
    let places = AttentionPlaces { q: qr, k: kr, v: vr, y: y.ptr(), add: false };
    let sage = Sage::new(inputs.shape, SageKernel::Hopper).unwrap();
    let scratch = Buffer::poisoned_bytes(sage.scratch_bytes());
    let mut launches = sage.launches(Float::Bf16, &places, scale, scratch.ptr()).unwrap();
    let attention_launch = launches.pop().unwrap();
    assert_eq!(attention_launch.kernel, "attention_sage_sm90_bf16");
    for launch in &launches {
        run(launch, &[&q, &k, &v, &y, &scratch]);
    }

    let argument = |i: usize, first: usize, bytes: usize| {
        let Arg::Ptr(at) = attention_launch.args[i] else { panic!("argument {i} is no pointer") };
        &scratch.bytes()[(at.0 - scratch.ptr().0) as usize + first..][..bytes]
    };
    let floats = |i: usize, first: usize, count: usize| -> Vec<f32> {
        let words = argument(i, 4 * first, 4 * count).chunks_exact(4);
        words.map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
    };
    let mut found = vec![0f32; inputs.dims().iter().product()];
    for head in 0..2 {
        let tiles = Head {
            q8: argument(0, head * TILE, TILE),
            q_scale: floats(1, head * 128, 128),
            k8: argument(2, head * TILE, TILE),
            k_scale: floats(3, head * 4, 4),
            v8: argument(4, head * TILE, TILE),
            v_scale: floats(5, head * 128, 128),
            keys: 90,
        };
        let result = [tiles.warpgroup(0), tiles.warpgroup(1)].concat();
        for (row, values) in result.iter().take(100).enumerate() {
            for (c, value) in values.iter().enumerate() {
                found[(row * 2 + head) * 128 + c] = *value as f32;
            }
        }
    }
    let found = Tensor::from_vec(found, inputs.dims().as_slice(), inputs.q.device()).unwrap();
    let want = attention(&inputs.q, &inputs.k, &inputs.v, scale, None).unwrap();
    let error = relative_error(&found, &want);
    assert!(error <= 4e-2, "relative error {error}");
}
