//! The emulation of blocks and threads itself.

use candle_core::{DType, Tensor};
use float8::F8E4M3;
use half::{bf16, f16};
use wan_cuda::{Arg, Launch, shim};

use crate::host::{Buffer, run};
use crate::testing::{assert_close, random};

#[path = "../../../wan-cuda/build/sources.rs"]
#[allow(dead_code)]
mod sources;

/// A build that is not redone after a kernel or a header changed would test what is no longer there.
#[test]
fn the_kernels_linked_are_those_of_the_sources() {
    assert_eq!(
        shim::digest(),
        sources::Sources::find().digest(),
        "linked from other sources: touch crates/wan-cuda/build/main.rs and build again"
    );
}

fn launch(kernel: &'static str, blocks: usize, threads: u32, args: Vec<Arg>) -> Launch {
    Launch::new(kernel, blocks, threads, args)
}

fn floats(buffer: &Buffer) -> Vec<f32> {
    buffer.bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn formats_round_as_the_reference_crates() {
    // Every half, the values between neighbours that tie, and arbitrary bit patterns.
    let mut values: Vec<f32> = (0..=u16::MAX).map(|code| f16::from_bits(code).to_f32()).collect();
    values.extend((0..=u16::MAX).map(|code| f32::from_bits(u32::from(code) << 16 | 0x8000)));
    for code in 0..0x7eu8 {
        let (a, b) = (F8E4M3::from_bits(code).to_f32(), F8E4M3::from_bits(code + 1).to_f32());
        values.extend([(a + b) / 2.0, -(a + b) / 2.0, (a + b) / 2.0 + a / 1e4]);
    }
    let mut state = 1u64;
    values.extend((0..200_000).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        f32::from_bits((state >> 32) as u32)
    }));
    let count = values.len();
    let x = Buffer::of(&Tensor::new(values.as_slice(), &candle_core::Device::Cpu).unwrap());
    let codes = [2, 2, 1].map(|bytes| Buffer::poisoned_bytes(bytes * count));
    let back = Buffer::poisoned(DType::F32, 3 * count);
    let args = vec![
        x.ptr().into(),
        codes[0].ptr().into(),
        codes[1].ptr().into(),
        codes[2].ptr().into(),
        back.ptr().into(),
        Arg::I32(count as i32),
    ];
    run(
        &launch("selftest_formats", count.div_ceil(256), 256, args),
        &[&x, &codes[0], &codes[1], &codes[2], &back],
    );
    let back = floats(&back);
    let word =
        |buffer: &Buffer, i: usize| u16::from_le_bytes(buffer.bytes()[2 * i..2 * i + 2].try_into().unwrap());
    for (i, &value) in values.iter().enumerate() {
        let (b, h, e) = (word(&codes[0], i), word(&codes[1], i), codes[2].bytes()[i]);
        if value.is_nan() {
            assert!(bf16::from_bits(b).is_nan() && f16::from_bits(h).is_nan() && e & 0x7f == 0x7f, "{value}");
            continue;
        }
        assert_eq!(b, bf16::from_f32(value).to_bits(), "bf16 of {value}");
        assert_eq!(h, f16::from_f32(value).to_bits(), "f16 of {value}");
        assert_eq!(e, F8E4M3::from_f32(value.clamp(-448.0, 448.0)).to_bits(), "e4m3 of {value}");
        assert_eq!(back[3 * i], bf16::from_bits(b).to_f32());
        assert_eq!(back[3 * i + 1], f16::from_bits(h).to_f32());
        assert_eq!(back[3 * i + 2], F8E4M3::from_bits(e).to_f32());
    }
}

/// Runs a product kernel over `a` `[16, depth]`, `b` `[8, depth]` and returns what it made of `d` `[16, 8]`.
fn product(kernel: &'static str, a: &[u8], b: &[u8], d: &[u8]) -> Buffer {
    let (a, b, d) = (Buffer::of_bytes(a), Buffer::of_bytes(b), Buffer::of_bytes(d));
    run(&launch(kernel, 1, 32, vec![a.ptr().into(), b.ptr().into(), d.ptr().into()]), &[&a, &b, &d]);
    d
}

#[test]
fn matrix_instructions_multiply() {
    let f32_of = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
    let start = random(&[16, 8], 3);
    for (kernel, half_sums, dtype, depth) in [
        ("selftest_mma_bf16", None, DType::BF16, 16),
        ("selftest_mma_f16", None, DType::F16, 16),
        ("selftest_mma_f16_f16", Some(()), DType::F16, 16),
        ("selftest_mma_e4m3_f16", Some(()), DType::F8E4M3, 32),
    ] {
        let a = random(&[16, depth], 1).to_dtype(dtype).unwrap();
        let b = random(&[8, depth], 2).to_dtype(dtype).unwrap();
        let sums = if half_sums.is_some() { DType::F16 } else { DType::F32 };
        let start = start.to_dtype(sums).unwrap();
        let want = (f32_of(&a).matmul(&f32_of(&b).t().unwrap()).unwrap() + f32_of(&start)).unwrap();
        let bytes = |t: &Tensor| Buffer::of(t).bytes().to_vec();
        let found = product(kernel, &bytes(&a), &bytes(&b), &bytes(&start)).tensor(sums, &[16, 8]);
        assert_close(&f32_of(&found), &want, if half_sums.is_some() { 1e-3 } else { 1e-6 });
    }
    let code = |i: usize, seed: usize| (i * 37 + seed * 11) as u8;
    let (a, b): (Vec<u8>, Vec<u8>) =
        ((0..512).map(|i| code(i, 1)).collect(), (0..256).map(|i| code(i, 5)).collect());
    let d = product("selftest_mma_s8", &a, &b, &100i32.to_le_bytes().repeat(128));
    for (i, sum) in d.bytes().as_chunks::<4>().0.iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let want: i32 =
            (0..32).map(|k| i32::from(a[row * 32 + k] as i8) * i32::from(b[column * 32 + k] as i8)).sum();
        assert_eq!(i32::from_le_bytes(*sum), want + 100);
    }
}

/// PTX ISA, ldmatrix: lane l holds row l / 4, columns 2 (l % 4) and the next; the other way round if transposed.
#[test]
fn matrices_are_loaded_by_their_definition() {
    let x: Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
    let (x, y) = (Buffer::of_bytes(&x), Buffer::poisoned_bytes(4 * 12 * 32));
    run(&launch("selftest_ldmatrix", 1, 32, vec![x.ptr().into(), y.ptr().into()]), &[&x, &y]);
    let found: Vec<u32> = y.bytes().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let value = |matrix: u32, row: u32, column: u32| matrix * 64 + row * 8 + column;
    for lane in 0..32u32 {
        let (g, t) = (lane / 4, lane % 4);
        for matrix in 0..4 {
            let plain = value(matrix, g, 2 * t) | value(matrix, g, 2 * t + 1) << 16;
            let turned = value(matrix, 2 * t, g) | value(matrix, 2 * t + 1, g) << 16;
            let at = |start: u32| found[(lane * 12 + start + matrix) as usize];
            assert_eq!((at(0), at(4)), (plain, turned), "x4, lane {lane}, matrix {matrix}");
            if matrix < 2 {
                assert_eq!((at(8), at(10)), (plain, turned), "x2, lane {lane}, matrix {matrix}");
            }
        }
    }
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let (x, y) = (Buffer::of(&random(&[8], 1)), Buffer::poisoned(DType::F32, 20));
    run(&launch("selftest_copy", 1, 1, vec![x.ptr().into(), y.ptr().into()]), &[&x, &y]);
    let (x, y) = (floats(&x), floats(&y));
    assert!(y[0..4].iter().all(|v| v.is_nan()), "read before it was waited for: {:?}", &y[0..4]);
    assert_eq!(y[4..8], x[0..4]);
    assert!(y[8..12].iter().all(|v| v.is_nan()), "the second group came with the first");
    assert_eq!((&y[12..16], &y[16..20]), (&x[4..8], &[0.0; 4][..]));
}

#[test]
fn collectives_bring_threads_together() {
    let (threads, blocks) = (128usize, 6usize);
    let (sums, votes) = (Buffer::poisoned(DType::F32, 2 * threads), Buffer::poisoned(DType::U32, threads));
    let (total, lanes) = (Buffer::of_bytes(&[0; 4]), Buffer::poisoned(DType::U32, 4 * threads));
    let args = vec![sums.ptr().into(), votes.ptr().into(), total.ptr().into(), lanes.ptr().into()];
    run(&launch("selftest_collectives", 1, threads as u32, args.clone()), &[&sums, &votes, &total, &lanes]);
    let word =
        |buffer: &Buffer, i: usize| u32::from_le_bytes(buffer.bytes()[4 * i..4 * i + 4].try_into().unwrap());
    let most = (0..threads).map(|t| t * 7 % 31).max().unwrap() as f32;
    for thread in 0..threads {
        let lane = thread as u32 % 32;
        assert_eq!(floats(&sums)[2 * thread..2 * thread + 2], [(threads * (threads - 1) / 2) as f32, most]);
        assert_eq!(word(&votes, thread), (0..32).filter(|l| l % 3 == 0).map(|l| 1u32 << l).sum::<u32>());
        let want = [
            if lane < 16 { 5 } else { 20 },
            if lane % 16 >= 3 { lane - 3 } else { lane },
            if lane % 16 + 3 < 16 { lane + 3 } else { lane },
            lane ^ 9,
        ];
        assert_eq!([0, 1, 2, 3].map(|i| word(&lanes, 4 * thread + i)), want, "thread {thread}");
    }
    let once = word(&total, 0) as usize;
    assert_eq!(once, threads * (threads - 1) / 2);
    // Blocks of all host threads add to the same number.
    run(&launch("selftest_collectives", blocks, threads as u32, args), &[&total]);
    assert_eq!(word(&total, 0) as usize, (blocks + 1) * once);
}

fn error(launch: &Launch) -> String {
    // SAFETY: the pointers given below are valid for what the kernels do with them.
    #[allow(unsafe_code)]
    unsafe { shim::run(launch) }.unwrap_err().to_string()
}

#[test]
fn mistakes_are_reported_by_kernel_and_thread() {
    let x = Buffer::poisoned(DType::F32, 64);
    let p = || Arg::from(x.ptr());
    let mistake =
        |kernel: &'static str, threads, args| error(&launch(kernel, 1, threads, args).with_shared(64));
    for (kernel, threads, args, expected) in [
        ("selftest_diverged_barrier", 64, vec![p()], "selftest.cu"),
        ("selftest_left_barrier", 64, vec![p()], "thread 5 has ended"),
        ("selftest_missing_lane", 32, vec![p()], "thread 3 has ended"),
        ("selftest_past_fixed", 32, vec![p(), Arg::I32(8)], "wrote past the shared array of 32 bytes"),
        ("selftest_past_dynamic", 32, vec![p(), Arg::I32(64)], "wrote past its 64 bytes"),
        ("selftest_copy_past", 32, vec![p()], "outside of shared memory"),
        ("selftest_copy_unaligned", 32, vec![p()], "not aligned to 16"),
        ("selftest_left_barrier", 65, vec![p()], "more threads"),
        ("selftest_left_barrier", 64, vec![Arg::I32(1)], "found arguments i, expected p"),
        ("selftest_none", 64, vec![p()], "there is none of that name"),
    ] {
        let found = mistake(kernel, threads, args);
        assert!(found.contains(kernel) && found.contains(expected), "{kernel}: {found}");
    }
}

/// Without a barrier some thread reads before its neighbour has written, whichever way it looks.
#[test]
fn a_missing_barrier_shows() {
    let x = Buffer::poisoned(DType::F32, 4 * 64);
    run(&launch("selftest_race", 4, 64, vec![x.ptr().into()]), &[&x]);
    assert!(floats(&x).iter().filter(|v| v.is_nan()).count() > 64);
}
