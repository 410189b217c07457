//! Attention takes memory linear in the number of tokens: the scores of all pairs are never held at once.

use candle_core::{Device, Tensor};
use wan_core::testkit::PeakMemory;
use wan_ops::attention;

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

#[test]
fn attention_grows_linearly_with_tokens() {
    // Each thread has buffers of its own, which would count on machines with many.
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    const HEADS: usize = 2;
    const DIM: usize = 32;
    let peak = |tokens: usize| {
        let draw = || Tensor::randn(0f32, 1f32, (tokens, HEADS, DIM), &Device::Cpu).unwrap();
        let (q, k, v) = (draw(), draw(), draw());
        let (peak, out) = MEMORY.of(|| attention(&q, &k, &v, 0.2, None).unwrap());
        assert_eq!(out.dims(), [tokens, HEADS, DIM]);
        peak
    };
    peak(64); // threads and their own buffers, once
    let (short, long) = (peak(1024), peak(4096));
    // Four times the tokens: four times the memory, with a tenth for rounding up to whole tiles; not sixteen.
    assert!(long as f64 <= 4.5 * short as f64, "{short} bytes at 1024 tokens, {long} at 4096");
    // One head's scores alone would be 64 MiB.
    assert!(long < 4096 * 4096 * 4 / 4, "{long} bytes at 4096 tokens");
}
