//! Shortcuts that trade exactness for time: TeaCache, and guidance in a part of the steps.

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use wan_core::progress::{CancelToken, Event, Observer, Silent};
use wan_core::testkit::{assert_close, distance, repo_path};
use wan_media::{Alpha, RgbImage, load_image};
use wan_models::{Places, Registry};
use wan_pipeline::{
    ContextWindows, GuidanceInterval, Job, Pipeline, Request, SavedJob, TeaCache, TeaCacheMode,
};
use wan_sampler::SchedulerKind;

use crate::support::{Sandbox, assert_fails, stderr, stdout, tensor, tiny_args};

const STEPS: usize = 8;

/// The embedded model with the sample image.
struct Maker {
    pipeline: Pipeline,
    image: RgbImage,
}

impl Maker {
    fn new() -> Self {
        let registry = Registry::builtin().unwrap();
        let files = registry.resolve(&registry.find("tiny").unwrap(), &Places::default()).unwrap();
        Self {
            pipeline: Pipeline::open(files, Device::Cpu, DType::F32).unwrap(),
            image: load_image(&repo_path("models/tiny/sample.png"), Alpha::Drop).unwrap(),
        }
    }

    fn request(&self) -> Request {
        Request {
            prompt: "the red circle moves right".into(),
            negative_prompt: "static".into(),
            width: 64,
            height: 64,
            frames: 17,
            steps: STEPS,
            seed: 3,
            ..Request::with_defaults(&self.pipeline.model().defaults).unwrap()
        }
    }

    fn job(&self, request: Request) -> Job {
        let plan = self.pipeline.plan(request, Some(&self.image)).unwrap();
        self.pipeline.prepare(plan, Some(&self.image), None, &Silent, &CancelToken::new()).unwrap()
    }

    /// The final latents, and the passes that were announced.
    fn denoised(&self, mut job: Job) -> (Tensor, Option<Vec<usize>>) {
        let passes = Passes::default();
        self.pipeline.denoise(&mut job, &passes, &CancelToken::new()).unwrap();
        (job.state.latents, passes.0.into_inner().unwrap())
    }

    fn latents(&self, request: Request) -> Tensor {
        self.denoised(self.job(request)).0
    }
}

#[derive(Default)]
struct Passes(Mutex<Option<Vec<usize>>>);

impl Observer for Passes {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Passes { per_step } = event {
            *self.0.lock().unwrap() = Some(per_step.to_vec());
        }
    }
}

fn raw(threshold: f64) -> Option<TeaCache> {
    Some(TeaCache { threshold, mode: TeaCacheMode::Raw, start: None, end: None })
}

/// A threshold that leaves out some steps of tiny, not all.
const SOME: f64 = 0.2;

#[test]
fn what_leaves_nothing_out_changes_no_bit() {
    let maker = Maker::new();
    let exact = maker.latents(maker.request());
    let whole = GuidanceInterval { start: 0.0, end: 1.0 };
    for request in [
        Request { teacache: raw(0.0), ..maker.request() },
        Request { teacache: raw(1e-9), ..maker.request() },
        Request { guidance_interval: whole, ..maker.request() },
    ] {
        assert_close("latents", &maker.latents(request), &exact, 0.0);
    }
}

#[test]
fn teacache_runs_fewer_passes_and_stays_near() {
    let maker = Maker::new();
    let exact = maker.latents(maker.request());
    let (near, passes) = maker.denoised(maker.job(Request { teacache: raw(SOME), ..maker.request() }));
    let passes = passes.expect("the passes are announced");
    assert_eq!(passes.len(), STEPS);
    assert!(passes.contains(&0) && passes.iter().filter(|p| **p == 2).count() >= 3, "{passes:?}");
    let apart = distance(&near, &exact).unwrap().relative_l2;
    assert!(apart > 1e-4 && apart < 0.5, "{apart}");
    // The first steps and the last may be kept from it.
    let (start, end) = (Some(4), Some(5));
    let bounded = TeaCache { threshold: 1.0, mode: TeaCacheMode::Raw, start, end };
    let (_, passes) = maker.denoised(maker.job(Request { teacache: Some(bounded), ..maker.request() }));
    assert_eq!(passes.unwrap(), [2, 2, 2, 2, 2, 0, 2, 2]);
}

/// Part of the run with guidance is that part of a guided run, and the rest that of one without.
#[test]
fn guidance_in_a_part_of_the_steps_is_two_runs_in_a_row() {
    let maker = Maker::new();
    let guided = || maker.request();
    let unguided = || Request { cfg: 1.0, ..maker.request() };
    for (interval, first, second) in [("0:0.5", guided(), unguided()), ("0.5:1", unguided(), guided())] {
        let mut begun = maker.job(first);
        let mut half = None;
        let mut keep = |state: &wan_pipeline::DenoiseState| {
            if state.sampler.step == STEPS / 2 {
                half = Some(state.clone());
            }
        };
        maker.pipeline.denoise_keeping(&mut begun, &mut keep, &Silent, &CancelToken::new()).unwrap();
        let (expected, none) = maker.denoised(Job { state: half.unwrap(), ..maker.job(second) });
        assert_eq!(none, None, "nothing is left out");
        let request = Request { guidance_interval: interval.parse().unwrap(), ..maker.request() };
        let (found, passes) = maker.denoised(maker.job(request));
        let passes = passes.unwrap();
        assert_eq!(passes.iter().sum::<usize>(), STEPS + STEPS / 2, "{passes:?}");
        assert_close(interval, &found, &expected, 0.0);
    }
    // Where no step is guided there is no negative prompt.
    let never = Request { guidance_interval: "0:0.01".parse().unwrap(), ..maker.request() };
    assert_close("cfg 1", &maker.latents(never), &maker.latents(unguided()), 0.0);
}

/// Stopped behind any step: what the next ones reuse is made again.
#[test]
fn a_job_with_shortcuts_can_be_resumed() {
    let maker = Maker::new();
    let folder = Sandbox::new();
    let request = Request {
        teacache: raw(SOME),
        guidance_interval: "0.25:1".parse().unwrap(),
        scheduler: SchedulerKind::UniPc,
        ..maker.request()
    };
    let mut job = maker.job(request);
    let start = job.clone();
    let mut files = Vec::new();
    let mut keep = |state: &wan_pipeline::DenoiseState| {
        let path = folder.path(&format!("{}.safetensors", files.len()));
        let job = Job { state: state.clone(), ..start.clone() };
        SavedJob { job, model: "tiny".into(), extra: serde_json::Value::Null }.save(&path).unwrap();
        files.push(path);
    };
    maker.pipeline.denoise_keeping(&mut job, &mut keep, &Silent, &CancelToken::new()).unwrap();
    assert_eq!(files.len(), STEPS);
    let mut reusing = 0;
    for path in &files {
        let saved = SavedJob::open(path).unwrap().job;
        reusing += usize::from(saved.state.reused_from.is_some());
        let (latents, _) = maker.denoised(saved);
        assert_close(&path.display().to_string(), &latents, &job.state.latents, 0.0);
    }
    assert!(reusing > 0, "no stop lies before a step that reuses another");
}

#[test]
fn shortcuts_are_options_and_are_told() {
    let sandbox = Sandbox::new();
    let small = ["--steps", "4", "--save-latents", "l", "--overwrite"];
    let run = |more: &[&str]| {
        let output = sandbox.tiny(&[&small, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let latents = tensor(&sandbox.path("l"), "latents").flatten_all().unwrap();
        (latents.to_vec1::<f32>().unwrap(), stderr(&output))
    };
    let (exact, said) = run(&[]);
    assert!(!said.contains("passes of the model"), "{said}");
    let options =
        ["--teacache", "1", "--teacache-mode", "raw", "--teacache-start", "1", "--teacache-end", "2"];
    let options = [&options[..], &["--guidance-interval", "0:0.75"]].concat();
    let (near, said) = run(&options);
    assert!(said.contains("5 of 8 passes of the model, in each step: 2 2 0 1"), "{said}");
    assert_ne!(near, exact);
    // The video knows how it was made, and what is typed counts more.
    std::fs::rename(sandbox.path("out.mp4"), sandbox.path("first.mp4")).unwrap();
    let from = ["--from-video", "first.mp4", "--save-latents", "l", "--output", "out.mp4", "--overwrite"];
    let again = |more: &[&str]| {
        let image = repo_path("models/tiny/sample.png");
        let image = ["--image", image.to_str().unwrap()];
        sandbox.ok(&[&from[..], &image, more].concat());
        tensor(&sandbox.path("l"), "latents").flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(again(&[]), near);
    assert_eq!(again(&["--teacache", "0", "--guidance-interval", "0:1"]), exact);
    let json = stdout(&sandbox.ok(&tiny_args(&[&small, &options[..], &["--progress", "json"]].concat())));
    assert!(json.contains(r#"{"event":"passes","per_step":[2,2,0,1]}"#), "{json}");
}

#[test]
fn shortcuts_that_make_no_sense_are_refused() {
    let sandbox = Sandbox::new();
    let rows: [(&[&str], &str); 8] = [
        (&["--teacache", "1.5"], "teacache: found 1.5, expected a threshold of 0 to 1"),
        (&["--teacache", "nan"], "teacache: found NaN"),
        (&["--teacache", "-0.1"], "teacache: found -0.1"),
        (&["--teacache-mode", "raw"], "expected a threshold beside --teacache-mode"),
        // tiny's coefficients are nobody's.
        (&["--teacache", "0.2"], "--teacache-mode raw"),
        (&["--guidance-interval", "0.5"], "`0.5`"),
        (&["--guidance-interval", "0.6:0.4"], "`0.6:0.4`"),
        (&["--guidance-interval", "-1:1"], "`-1:1`"),
    ];
    for (args, message) in rows {
        assert_fails(&sandbox.tiny(args), 2, message);
    }
    assert_eq!(sandbox.names(), Vec::<String>::new());
    let maker = Maker::new();
    let context = Some(ContextWindows::default());
    let windows = Request { teacache: raw(SOME), context, ..maker.request() };
    let error = maker.pipeline.plan(windows, Some(&maker.image)).unwrap_err().to_string();
    assert!(error.starts_with("teacache: found context windows"), "{error}");
}
