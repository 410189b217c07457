//! Expected values: `torch.randn(n, generator=torch.Generator().manual_seed(seed))` of PyTorch 2.15 on
//! an x86 machine with AVX2.

use sha2::{Digest, Sha256};

use super::*;

fn digest(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seed, count, first 16 digits of the SHA-256 of the little-endian buffer.
const BLOCK_DRAWS: &[(u64, usize, &str)] = &[
    (0, 16, "7648137a31024642"),
    (0, 17, "6d2169852e19b6d1"),
    (0, 20, "77d3233a84c93b6e"),
    (0, 31, "cc1d58695e923901"),
    (0, 32, "7e488a9f00762edc"),
    (0, 64, "e1275a785936ab2f"),
    (0, 100, "438630ac9c044e48"),
    (0, 623, "a58385a7b1d58602"),
    (0, 625, "2619785feb1cf30c"),
    (0, 1000, "43678415636bbad8"),
    (0, 4099, "33baa5baf6ebf25d"),
    (42, 16, "fc34b516db1204ac"),
    (42, 17, "2ae700cddb7c7bef"),
    (42, 20, "69370ba41138fb92"),
    (42, 31, "7f2252163c2b02a8"),
    (42, 32, "772cacc71bc58214"),
    (42, 64, "a0f3181735f59e84"),
    (42, 100, "6cf7236205c5dc8d"),
    (42, 623, "bfa26a2fdbd50e1c"),
    (42, 625, "9030f582b946b759"),
    (42, 1000, "13b35fb427f5f8d7"),
    (42, 4099, "cfe28059a1299e59"),
    (1234567890123, 16, "745a3abef0d8f383"),
    (1234567890123, 17, "7256e9dcd2923171"),
    (1234567890123, 20, "2f8a283e7dfd5704"),
    (1234567890123, 31, "47ef3916f1d99ec4"),
    (1234567890123, 32, "e78be25074026765"),
    (1234567890123, 64, "ec403c332c38390f"),
    (1234567890123, 100, "f970444258db3717"),
    (1234567890123, 623, "4b6eac1f346618b0"),
    (1234567890123, 625, "29a5485069f6b6c9"),
    (1234567890123, 1000, "db81436f12d72588"),
    (1234567890123, 4099, "dd5078a1c889ce73"),
    (4294967295, 16, "5082bfb7c3d4a463"),
    (4294967295, 17, "65d795b9ee9e999e"),
    (4294967295, 20, "20834a63268a24f2"),
    (4294967295, 31, "25ee33208fdedc15"),
    (4294967295, 32, "7b7a93dc49210a84"),
    (4294967295, 64, "21db4d05293093bd"),
    (4294967295, 100, "e508440be3284b2e"),
    (4294967295, 623, "37f2002e1bad96fd"),
    (4294967295, 625, "9562df46d79db435"),
    (4294967295, 1000, "bd567f33f1ae5735"),
    (4294967295, 4099, "03db73061a08c5f7"),
];

#[test]
fn block_draws_equal_torch() {
    for &(seed, n, expected) in BLOCK_DRAWS {
        let found = digest(&TorchRng::seed(seed).randn(n));
        assert_eq!(&found[..16], expected, "seed {seed}, {n} values");
    }
}

#[test]
fn short_draws_equal_torch() {
    let last_three: [(u64, [u32; 3]); 3] = [
        (0, [0xbf5b4f07, 0x3f8ce099, 0xbf891cab]),
        (42, [0x3f8e1dfe, 0xbfd84b55, 0xbf7d2c7a]),
        ((1 << 63) + 5, [0x3e63cc2f, 0xbf2a8dbd, 0x3f2f44b6]),
    ];
    for (seed, expected) in last_three {
        let values = TorchRng::seed(seed).randn(15);
        let found: Vec<u32> = values[12..].iter().map(|v| v.to_bits()).collect();
        assert_eq!(found, expected, "seed {seed}");
    }
    assert_eq!(TorchRng::seed(42).randn(10)[..4], [0.336_690_37, 0.128_809_4, 0.234_462_37, 0.230_333_03]);
}

#[test]
fn first_values_of_seed_42() {
    let bits: Vec<u32> = TorchRng::seed(42).randn(64)[..4].iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0x3ff6a529, 0x3fbe5f53, 0x3f669567, 0xc006c0db]);
}

#[test]
fn latents_of_81_frames_equal_torch() {
    let square = TorchRng::seed(42).randn(16 * 21 * 64 * 64);
    assert_eq!(digest(&square), "e464cb5cccb3676f7bcba9c0d271a5fd4670ed50c10f1dad5eb38ff13064ff9d");
    let wide = TorchRng::seed(42).randn(16 * 21 * 60 * 104);
    assert_eq!(digest(&wide), "d58dda95871619b9a739a5fd138a6a45ecacdfc6329feb27179411e336be985b");
}

/// Short draws leave half a Box-Muller pair behind, which the next short draw takes up, whatever
/// block draws lie between. The order of lengths visits every such transition.
#[test]
fn successive_draws_equal_torch() {
    let mut rng = TorchRng::seed(42);
    let values: Vec<f32> = [3, 16, 5, 20, 1, 7, 33, 2].into_iter().flat_map(|n| rng.randn(n)).collect();
    assert_eq!(digest(&values), "8987935e755574ab3492dade689ba7f0ebd79ad82dbfef7e97f8f2d6c1cbb101");
}

#[test]
fn only_the_low_half_of_the_seed_counts() {
    assert_eq!(TorchRng::seed(42).randn(32), TorchRng::seed(42 + (7 << 32)).randn(32));
    assert_ne!(TorchRng::seed(42).randn(32), TorchRng::seed(43).randn(32));
}

#[test]
fn no_values_draw_nothing() {
    let mut rng = TorchRng::seed(1);
    assert!(rng.randn(0).is_empty());
    assert_eq!(rng, TorchRng::seed(1));
}

#[test]
fn saved_state_continues_the_sequence() {
    let mut rng = TorchRng::seed(9);
    rng.randn(1000);
    rng.randn(3); // leaves a cached value
    let json = serde_json::to_string(&rng.state()).unwrap();
    let mut restored = TorchRng::from_state(&serde_json::from_str(&json).unwrap()).unwrap();
    for n in [2, 40, 700, 5] {
        assert_eq!(restored.randn(n), rng.randn(n));
    }
}

#[test]
fn damaged_state_is_refused() {
    let good = TorchRng::seed(9).state();
    let short = RngState { words: vec![1; 623], ..good.clone() };
    let message = TorchRng::from_state(&short).unwrap_err().to_string();
    assert!(message.contains("623") && message.contains("624"), "{message}");
    assert!(TorchRng::from_state(&RngState { next: 625, ..good }).is_err());
}

#[test]
fn tensor_has_the_shape_and_the_values() {
    let tensor = TorchRng::seed(3).randn_tensor((2, 3, 4, 5), &Device::Cpu).unwrap();
    assert_eq!(tensor.dims(), [2, 3, 4, 5]);
    assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), TorchRng::seed(3).randn(120));
}

#[test]
fn moments_are_those_of_a_standard_normal() {
    let n = 1 << 18;
    let values = TorchRng::seed(11).randn(n);
    let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / n as f64;
    // Five standard errors: sqrt(1/n), sqrt(2/n), sqrt(96/n).
    assert!(moment(1).abs() < 0.01);
    assert!((moment(2) - 1.0).abs() < 0.014);
    assert!((moment(4) - 3.0).abs() < 0.1);
}
