//! What only graphs ask for, on the embedded model: each acts where ComfyUI's node has it act.

use candle_core::{DType, Device, IndexOp, Tensor};
use wan_core::progress::{CancelToken, Silent};
use wan_core::testkit::assert_close;
use wan_media::{Alpha, RgbImage, load_image, resize_lanczos};
use wan_models::Registry;
use wan_pipeline::{Conditioning, ImageFit, Images, NodeOptions, Pipeline, PromptSyntax, Request};

use crate::support::sample_image;

struct Bench {
    pipeline: Pipeline,
    image: RgbImage,
}

impl Bench {
    fn new() -> Self {
        let registry = Registry::builtin().unwrap();
        let model = registry.find("tiny").unwrap();
        let files = registry.resolve(&model, &wan_models::Places::default()).unwrap();
        Self {
            pipeline: Pipeline::open(files, Device::Cpu, DType::F32).unwrap(),
            image: load_image(&sample_image(), Alpha::Drop).unwrap(),
        }
    }

    fn conditioning(&self, prompt: &str, nodes: NodeOptions, seen: Option<&RgbImage>) -> Conditioning {
        let request = Request {
            prompt: prompt.into(),
            width: 64,
            height: 32,
            frames: 9,
            adjust_resolution: false,
            nodes,
            ..Request::with_defaults(&self.pipeline.model().defaults).unwrap()
        };
        let plan = self.pipeline.plan(request, Some(&self.image)).unwrap();
        let images = Images { first: Some(&self.image), seen_first: seen, ..Images::default() };
        self.pipeline.prepare(plan, images, None, &Silent, &CancelToken::new()).unwrap().conditioning
    }
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    a.dims() == b.dims()
        && a.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            == b.flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

#[test]
fn latent_strengths_multiply_the_first_and_the_last_latent_frame() {
    let bench = Bench::new();
    let condition = |first, last| {
        let nodes = NodeOptions {
            first_latent_strength: first,
            last_latent_strength: last,
            ..NodeOptions::default()
        };
        bench.conditioning("", nodes, None).condition.unwrap()
    };
    let (plain, weighed) = (condition(1.0, 1.0), condition(0.5, 0.2));
    assert_eq!(plain.dims()[..3], [1, 20, 3]);
    // Four channels of mask, then the latents.
    assert!(equal(&weighed.i((.., ..4)).unwrap(), &plain.i((.., ..4)).unwrap()));
    for (frame, factor) in [(0, 0.5), (1, 1.0), (2, 0.2)] {
        let of = |tensor: &Tensor| tensor.i((.., 4.., frame)).unwrap();
        assert_close("latent frame", &of(&weighed), &(of(&plain) * factor).unwrap(), 1e-6);
    }
}

#[test]
fn the_image_encoder_sees_its_own_image_cropped_or_stretched() {
    let bench = Bench::new();
    let left = RgbImage::new(96, 32, [[255u8, 0, 0].repeat(48), [0, 0, 255].repeat(48)].concat().repeat(32))
        .unwrap();
    let image = |fit, seen: &RgbImage| {
        let nodes = NodeOptions { image_fit: fit, ..NodeOptions::default() };
        let conditioning = bench.conditioning("", nodes, Some(seen));
        let plain = bench.conditioning("", NodeOptions::default(), None);
        assert!(
            equal(&conditioning.condition.unwrap(), plain.condition.as_ref().unwrap()),
            "the video's frame"
        );
        assert!(!equal(conditioning.image.as_ref().unwrap(), plain.image.as_ref().unwrap()));
        conditioning.image.unwrap()
    };
    assert!(!equal(&image(ImageFit::Stretch, &left), &image(ImageFit::Crop, &left)));
    let square = resize_lanczos(&left, 32, 32).unwrap();
    assert!(equal(&image(ImageFit::Stretch, &square), &image(ImageFit::Crop, &square)));
}

#[test]
fn weights_of_the_positive_prompt_multiply_its_embeddings() {
    let bench = Bench::new();
    let of = |prompt, prompt_syntax| {
        bench.conditioning(prompt, NodeOptions { prompt_syntax, ..NodeOptions::default() }, None)
    };
    let plain = of("a red circle", PromptSyntax::Weighted);
    let weighted = of("a (red:1.5) (circle:2)", PromptSyntax::Weighted);
    assert_close("text", &weighted.text, &(&plain.text * 3.0).unwrap(), 1e-6);
    assert!(equal(&weighted.negative.unwrap(), plain.negative.as_ref().unwrap()));
    // Another syntax encodes the brackets, or what follows a bar.
    let first = of("a red circle | a blue square", PromptSyntax::Parts);
    assert!(equal(&first.text, &plain.text));
    let all = of("a red circle | a blue square", PromptSyntax::Plain);
    assert!(all.text.dims()[0] > plain.text.dims()[0]);
}
