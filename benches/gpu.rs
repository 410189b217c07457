//! The engine's timings, those of `wan-run bench`, on the GPU of this machine; `cargo bench -p wan-run --bench gpu
//! --features cuda`. Without a GPU, the same rows of the embedded model on the CPU.
//!
//! WAN_RUN_BENCH_MODEL names the description of a model with the true dimensions; `wan-run synthesize` writes one.

use std::path::PathBuf;

use wan_core::device::DeviceChoice;
use wan_selftest::bench::VIDEOS;
use wan_selftest::{BenchOptions, Row, Selection, bench};

fn main() {
    let opened = DeviceChoice::Auto.open().expect("the CPU at least");
    if let Some(note) = opened.note {
        println!("{note}");
    }
    let model = std::env::var_os("WAN_RUN_BENCH_MODEL").map(PathBuf::from);
    let options = BenchOptions {
        videos: if model.is_some() { VIDEOS.to_vec() } else { vec![[64, 64, 5]] },
        device: opened.device,
        model,
        swapped: vec![0, 10, 40],
        runs: 10,
        seed: 1,
        selection: Selection::default(),
    };
    let rows = bench(&options, &mut |row: &Row| println!("{row}"));
    assert!(rows.iter().all(Row::is_good), "a timing failed");
}
