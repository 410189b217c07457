use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::f16;
use wan_core::Stored;
use wan_core::weights::{BlockFormat, Bytes, Scale};
use wan_cuda::ops::{self, Blocks, Storage};
use wan_cuda::{DevPtr, Float};

use crate::FLOATS;
use crate::host::{Buffer, run};
use crate::testing::random;

/// Odd sizes, several blocks, and rows that end inside of a group of 8.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [3, 33], [5, 2056], [2, 64]];

/// Runs the kernel on the stored bytes; the result must be `stored` as the CPU widens it, rounded to the format.
#[track_caller]
fn check(stored: &Stored, storage: Storage, scale: Option<&Buffer>, to: (Float, DType)) {
    let [rows, dim] = stored.shape().try_into().unwrap();
    let (codes, y) = (Buffer::of_bytes(stored.bytes()), Buffer::poisoned(to.1, rows * dim));
    let Some(launch) = ops::dequantise(storage, codes.ptr(), (to.0, y.ptr()), rows, dim) else {
        assert_eq!(storage, Storage::Float(to.0), "no kernel");
        return;
    };
    let buffers: Vec<&Buffer> = [&codes, &y].into_iter().chain(scale).collect();
    run(&launch, &buffers);
    let want = stored.to_f32_tensor(&Device::Cpu).unwrap().to_dtype(to.1).unwrap();
    assert_eq!(y.bytes(), Buffer::of(&want).bytes(), "{storage:?} {rows} x {dim} to {to:?}");
}

#[test]
fn floats_are_rounded_once() {
    for shape in SHAPES {
        for (from, from_dtype, _) in FLOATS {
            let values = random(&shape, 1).to_dtype(from_dtype).unwrap();
            let bytes = Bytes::new(Buffer::of(&values).bytes().to_vec());
            let stored = Stored::new("w", from_dtype, shape.to_vec(), bytes).unwrap();
            for (to, dtype, _) in FLOATS {
                check(&stored, Storage::Float(from), None, (to, dtype));
            }
        }
    }
}

#[test]
fn e4m3_codes_are_multiplied_with_their_scale() {
    for shape in SHAPES {
        let [rows, dim] = shape;
        // Every code but the two NaNs, whose payload formats do not share.
        let codes: Vec<u8> = (0..rows * dim)
            .map(|i| (i * 7 % 256) as u8)
            .map(|c| if c & 0x7f == 0x7f { 0 } else { c })
            .collect();
        let plain = Stored::new("w", DType::F8E4M3, shape.to_vec(), Bytes::new(codes)).unwrap();
        let factors: Vec<f32> = (0..rows).map(|i| 0.37 + i as f32).collect();
        let one = Buffer::of(&Tensor::new(&[0.37f32], &Device::Cpu).unwrap());
        let many = Buffer::of(&Tensor::new(&factors[..], &Device::Cpu).unwrap());
        let by_tensor = plain.clone().with_scale(Scale::Tensor(0.37)).unwrap();
        let by_row = plain.clone().with_scale(Scale::Rows(Arc::from(factors))).unwrap();
        for (to, dtype, _) in FLOATS {
            let e4m3 = |scale: DevPtr, stride| Storage::E4m3 { scale, stride };
            check(&plain, e4m3(DevPtr::NULL, 0), None, (to, dtype));
            check(&by_tensor, e4m3(one.ptr(), 0), Some(&one), (to, dtype));
            check(&by_row, e4m3(many.ptr(), 1), Some(&many), (to, dtype));
        }
    }
}

/// Bytes that are any code, and factors that are numbers.
fn random_blocks(format: BlockFormat, count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * format.bytes()).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(format.bytes()).enumerate() {
        for (at, sign) in factors(format).into_iter().zip([1.0, -1.0]) {
            let factor = f16::from_f32(sign * 0.01 * (i as f32 - 5.3));
            block[at..at + 2].copy_from_slice(&factor.to_le_bytes());
        }
    }
    bytes
}

/// Where a block has its f16 factors.
fn factors(format: BlockFormat) -> Vec<usize> {
    use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    match format {
        Q4_0 | Q5_0 | Q8_0 => vec![0],
        Q4_1 | Q5_1 | Q4K | Q5K => vec![0, 2],
        Q2K => vec![80, 82],
        Q3K => vec![108],
        Q6K => vec![208],
    }
}

/// Of every format, several thread blocks and a last one that is not full.
#[test]
fn blocks_are_opened() {
    for format in BlockFormat::ALL {
        let (rows, dim) = (3, if format.values() == 32 { 2112 } else { 2304 });
        let bytes = random_blocks(format, rows * dim / format.values());
        let stored = Stored::blocks("w", format, vec![rows, dim], Bytes::new(bytes)).unwrap();
        let values = stored.to_f32_vec().unwrap();
        assert!(values.iter().all(|v| v.is_finite()), "{format:?}");
        let storage = Storage::Blocks(Blocks::named(format.name()).expect("a kernel of the format"));
        for (to, dtype, _) in FLOATS {
            check(&stored, storage, None, (to, dtype));
        }
    }
}
