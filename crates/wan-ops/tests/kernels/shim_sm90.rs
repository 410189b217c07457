//! The emulation of what compute capability 9.0 has alone: barriers with phases, bulk copies, products of warpgroups.

use candle_core::DType;
use float8::F8E4M3;
use wan_cuda::{Arg, Launch, shim};

use crate::host::{Buffer, run};
use crate::testing::random;

/// Both matrices and a barrier.
const SHARED: usize = (64 + 128) * 128 + 8;

/// Rows of 128 or 64 bytes in the swizzle of as many: bits 4 to 6 of an address are exclusive-ored with bits 7 to 9, or bits 4
/// and 5 with bits 7 and 8.
fn swizzled(rows: &[u8], row_bytes: usize) -> Vec<u8> {
    let mut tile = vec![0; rows.len()];
    for (address, byte) in rows.iter().enumerate() {
        tile[address ^ (address >> 7 & (row_bytes / 16 - 1)) << 4] = *byte;
    }
    tile
}

fn codes(count: usize, seed: usize) -> Vec<u8> {
    (0..count).map(|i| ((i * i * 31 + i * 37 + seed * 11) >> 3) as u8).collect()
}

fn launch(kernel: &'static str, threads: u32, args: Vec<Arg>) -> Launch {
    Launch::new(kernel, 1, threads, args).with_shared(SHARED)
}

#[test]
fn warpgroups_multiply_integers() {
    let (a, b) = (codes(64 * 128, 1), codes(128 * 128, 5));
    let (a_tile, b_tile) = (Buffer::of_bytes(&swizzled(&a, 128)), Buffer::of_bytes(&swizzled(&b, 128)));
    let y = Buffer::poisoned(DType::U32, 64 * 128);
    let args = vec![a_tile.ptr().into(), b_tile.ptr().into(), y.ptr().into()];
    run(&launch("selftest_wgmma_s8", 128, args), &[&a_tile, &b_tile, &y]);
    for (i, found) in y.bytes().as_chunks::<4>().0.iter().enumerate() {
        let (row, column) = (&a[i / 128 * 128..][..128], &b[i % 128 * 128..][..128]);
        let products =
            row.iter().zip(column).map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b.cast_signed()));
        assert_eq!(i32::from_le_bytes(*found), 1000 + products.sum::<i32>(), "sum {i}");
    }
}

#[test]
fn warpgroups_multiply_floats_in_registers() {
    let bytes =
        |count, seed| Buffer::of(&random(&[count], seed).to_dtype(DType::F8E4M3).unwrap()).bytes().to_vec();
    let (a, b) = (bytes(64 * 128, 1), bytes(128 * 128, 2));
    let (a_rows, b_tile) = (Buffer::of_bytes(&a), Buffer::of_bytes(&swizzled(&b, 128)));
    let value = |code: u8| F8E4M3::from_bits(code).to_f32();
    for add in [false, true] {
        let y = Buffer::poisoned(DType::F32, 64 * 128);
        let args = vec![a_rows.ptr().into(), b_tile.ptr().into(), y.ptr().into(), Arg::I32(i32::from(add))];
        run(&launch("selftest_wgmma_e4m3", 128, args), &[&a_rows, &b_tile, &y]);
        for (i, found) in y.bytes().as_chunks::<4>().0.iter().enumerate() {
            let (row, column) = (&a[i / 128 * 32..][..32], &b[i % 128 * 128..][..32]);
            let sum: f32 = row.iter().zip(column).map(|(a, b)| value(*a) * value(*b)).sum();
            let (found, want) = (f32::from_le_bytes(*found), sum + if add { 0.5 } else { 0.0 });
            assert!((found - want).abs() <= 1e-5 * (1.0 + want.abs()), "sum {i}: {found}, expected {want}");
        }
    }
}

/// bf16 values as bytes, and as numbers.
fn halves(count: usize, seed: u64) -> (Vec<u8>, Vec<f32>) {
    let tensor = random(&[count], seed).to_dtype(DType::BF16).unwrap();
    let values = tensor.to_dtype(DType::F32).unwrap().to_vec1().unwrap();
    (Buffer::of(&tensor).bytes().to_vec(), values)
}

#[track_caller]
fn assert_products(y: &Buffer, columns: usize, want: impl Fn(usize, usize) -> f32) {
    for (i, found) in y.bytes().as_chunks::<4>().0.iter().enumerate() {
        let (found, want) = (f32::from_le_bytes(*found), want(i / columns, i % columns));
        assert!((found - want).abs() <= 1e-5 * (1.0 + want.abs()), "sum {i}: {found}, expected {want}");
    }
}

#[test]
fn warpgroups_multiply_halves_by_columns() {
    let ((a_bytes, a), (b_bytes, b)) = (halves(64 * 64, 1), halves(128 * 64, 2));
    let tiles = [&a_bytes, &b_bytes].map(|bytes| Buffer::of_bytes(&swizzled(bytes, 128)));
    let y = Buffer::poisoned(DType::F32, 64 * 128);
    let args = vec![tiles[0].ptr().into(), tiles[1].ptr().into(), y.ptr().into()];
    run(&launch("selftest_wgmma_scores", 128, args), &[&tiles[0], &tiles[1], &y]);
    assert_products(&y, 128, |row, column| (0..64).map(|k| a[row * 64 + k] * b[column * 64 + k]).sum());
}

/// b: `[2 halves, 64 rows, 64 columns]`.
#[test]
fn warpgroups_multiply_halves_in_registers_by_rows() {
    let ((a_bytes, a), (b_bytes, b)) = (halves(64 * 64, 3), halves(2 * 64 * 64, 4));
    let (a_rows, b_tile) = (Buffer::of_bytes(&a_bytes), Buffer::of_bytes(&swizzled(&b_bytes, 128)));
    let y = Buffer::poisoned(DType::F32, 64 * 128);
    let args = vec![a_rows.ptr().into(), b_tile.ptr().into(), y.ptr().into()];
    run(&launch("selftest_wgmma_values", 128, args), &[&a_rows, &b_tile, &y]);
    let b_at = |row: usize, column: usize| b[(column / 64 * 64 + row) * 64 + column % 64];
    assert_products(&y, 128, |row, column| {
        0.5 + (0..64).map(|k| a[row * 64 + k] * b_at(k, column)).sum::<f32>()
    });
}

#[test]
fn warpgroups_multiply_96_rows_of_64_bytes() {
    // As many bytes as the kernel copies: only the first rows count.
    let ((a_bytes, a), (b_bytes, b)) = (halves(64 * 64, 5), halves(128 * 64, 6));
    let (a_rows, b_tile) = (Buffer::of_bytes(&a_bytes), Buffer::of_bytes(&swizzled(&b_bytes, 64)));
    let y = Buffer::poisoned(DType::F32, 64 * 96);
    let args = vec![a_rows.ptr().into(), b_tile.ptr().into(), y.ptr().into()];
    run(&launch("selftest_wgmma_outputs", 128, args), &[&a_rows, &b_tile, &y]);
    let want = |row: usize, column: usize| (0..32).map(|k| a[row * 32 + k] * b[column * 32 + k]).sum::<f32>();
    assert_products(&y, 96, |row, column| 0.5 + want(row, column));
}

#[test]
fn warps_take_turns_at_barriers_of_their_own() {
    let y = Buffer::poisoned(DType::U32, 6);
    run(&launch("selftest_parts", 96, vec![y.ptr().into()]), &[&y]);
    let found: Vec<_> = y.bytes().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert_eq!(found, [1, 3, 7, 15, 31, 63]);
}

#[test]
fn a_bulk_copy_is_there_when_its_phase_has_ended() {
    let (x, y) = (Buffer::of(&random(&[8], 1)), Buffer::poisoned(DType::F32, 16));
    run(&launch("selftest_phases", 32, vec![x.ptr().into(), y.ptr().into()]), &[&x, &y]);
    let floats = |b: &Buffer| -> Vec<f32> {
        b.bytes().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let (x, y) = (floats(&x), floats(&y));
    assert!(y[0..4].iter().chain(&y[8..12]).all(|v| v.is_nan()), "read before it was waited for: {y:?}");
    assert_eq!((&y[4..8], &y[12..16]), (&x[0..4], &x[4..8]));
}

fn outcome(kernel: &'static str, threads: u32, args: Vec<Arg>) -> Result<(), String> {
    // SAFETY: the pointers given below are valid for what the kernels do with them.
    #[allow(unsafe_code)]
    unsafe { shim::run(&launch(kernel, threads, args)) }.map_err(|e| e.to_string())
}

/// The numbers are those of the enumerations in `kernels/shim/selftest_sm90.cu`.
#[test]
fn mistakes_are_reported() {
    let (x, y) = (Buffer::of_bytes(&codes(128 * 128, 3)), Buffer::poisoned(DType::U32, 64 * 128));
    let product = |mistake| {
        let args = vec![x.ptr().into(), y.ptr().into(), Arg::I32(mistake)];
        outcome("selftest_product_mistake", 128, args)
    };
    let barrier = |mistake| outcome("selftest_barrier_mistake", 32, vec![x.ptr().into(), Arg::I32(mistake)]);
    let part = |mistake| outcome("selftest_part_mistake", 64, vec![Arg::I32(mistake)]);
    let written = |fenced| {
        let args = vec![x.ptr().into(), y.ptr().into(), Arg::I32(fenced)];
        outcome("selftest_written_tile", 128, args)
    };
    assert_eq!((product(0), part(0), written(1)), (Ok(()), Ok(()), Ok(())));
    let right = y.bytes().to_vec();
    // The second copy is waited for by nobody, but what it overwrites shows in the sums.
    assert!(product(1).is_err());
    assert_ne!(y.bytes(), right);
    for (found, expected) in [
        (product(1), "ended with 2 bulk copies under way"),
        (product(2), "register 17 of the sums was written while a product was under way"),
        (product(3), "without a fence"),
        (product(4), "ended with 1 products under way"),
        (product(5), "first thread of the warpgroup started 1"),
        (written(0), "written without a fence since"),
        (product(6), "reads a tile whose copy is under way"),
        (barrier(0), "(barrier_wait)"),
        (barrier(1), "not initialised"),
        (barrier(2), "no fence since its barrier was initialised"),
        (barrier(3), "more than 1 arrivals"),
        (barrier(4), "ended with 1 bulk copies under way"),
        (part(1), "(part_wait)"),
        (part(2), "ended with 32 of 64 threads at barrier 1"),
        (part(3), "barrier 1: of 96 threads"),
        (part(4), "barrier 0"),
    ] {
        let found = found.unwrap_err();
        assert!(found.contains(expected), "{found}");
    }
}
