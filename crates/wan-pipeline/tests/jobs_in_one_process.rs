//! Ten jobs in one process leave memory where the first left it.

use candle_core::{DType, Device};
use wan_core::memory::anonymous_bytes;
use wan_core::progress::{CancelToken, Silent};
use wan_core::testkit::{PeakMemory, repo_path};
use wan_media::{Alpha, load_image};
use wan_models::{Places, Registry};
use wan_pipeline::{Pipeline, Request};

#[global_allocator]
static MEMORY: PeakMemory = PeakMemory::new();

/// Bytes that are allocated, and those that the system counts as this process's own.
fn memory() -> (usize, u64) {
    (MEMORY.begin(), anonymous_bytes().unwrap())
}

/// One test, since all threads count together.
#[test]
fn the_tenth_job_leaves_what_the_first_left() {
    /// Buffers that a thread keeps for its next work: any of them may be the first to need a larger one.
    const KEPT: usize = 1 << 20;
    /// The same, and pages that the allocator cannot give back between them.
    const RESIDENT: u64 = 4 << 20;
    // Each thread has buffers of its own, which would count on machines with many.
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().unwrap();
    let registry = Registry::builtin().unwrap();
    let files = registry.resolve(&registry.find("tiny").unwrap(), &Places::default()).unwrap();
    let image = load_image(&repo_path("models/tiny/sample.png"), Alpha::Drop).unwrap();
    let pipeline = Pipeline::open(files, Device::Cpu, DType::F32).unwrap();
    let job = |number: usize| {
        let request = Request {
            prompt: "a red balloon rises".repeat(1 + number),
            // Not all alike: what is given back must be of use for other sizes too.
            width: 128 + 16 * (number % 3),
            height: 128,
            frames: 5,
            steps: 2,
            adjust_resolution: false,
            ..Request::with_defaults(&pipeline.model().defaults).unwrap()
        };
        let plan = pipeline.plan(request, Some(&image)).unwrap();
        pipeline.generate(plan, Some(&image), &mut |_| Ok(()), &Silent, &CancelToken::new()).unwrap();
        let (live, resident) = memory();
        println!("job {number}: {live} bytes allocated, {resident} resident");
        (live, resident)
    };
    let (live, resident): (Vec<usize>, Vec<u64>) = (0..10).map(job).unzip();
    assert!(live[9] <= live[0] + KEPT, "bytes allocated after each job: {live:?}");
    // What is resident wavers by some megabytes: the least of the last jobs against the most of the first.
    let (first, last) = (resident[..3].iter().max().unwrap(), resident[7..].iter().min().unwrap());
    assert!(*last <= first + RESIDENT, "bytes resident after each job: {resident:?}");
}
