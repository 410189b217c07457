//! `wan-run probe`: one component alone, tensors in, tensors out. The contract is docs/probe.md.

mod arithmetic;
mod encoders;
mod io;
mod transformer;
mod vae;

use std::path::PathBuf;

use candle_core::{DType, Device};
use clap::{Args, ValueEnum};
use wan_core::WeightSet;
use wan_core::device::{DeviceChoice, parse_dtype};

use crate::error::{Failure, Outcome};
use crate::kernels;
use crate::progress::say;
use crate::scheduler_name::SchedulerName;

/// Options of `probe`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct ProbeArgs {
    /// The component.
    #[arg(value_enum)]
    pub component: Component,
    /// Weights: a .safetensors file, a sharded set's index JSON, or a folder, in any known naming.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Configuration; without it, the `config` entry of the weights' header, else the tensors' shapes.
    #[arg(long, value_name = "FILE.json")]
    pub config: Option<PathBuf>,
    /// Input tensors.
    #[arg(long, value_name = "IN.safetensors")]
    pub input: Option<PathBuf>,
    /// Output tensors; written whole or not at all, an earlier file is replaced.
    #[arg(long, value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Dtype of the activations: f32, bf16 or f16.
    #[arg(long, value_name = "DTYPE", default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    pub dtype: String,

    /// vae-decode, vae-encode: work in tiles.
    #[arg(long)]
    pub tiled: bool,
    /// Tile height in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 272)]
    pub tile_height: usize,
    /// Tile width in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 272)]
    pub tile_width: usize,
    /// Distance of tiles downwards in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 144)]
    pub tile_stride_height: usize,
    /// Distance of tiles across in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    pub tile_stride_width: usize,

    /// scheduler: the solver, as for `wan-run --scheduler`.
    #[arg(long, value_name = "NAME", default_value = "dpm++", value_parser = SchedulerName, hide_possible_values = true)]
    pub scheduler: String,
    /// scheduler: number of steps.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// scheduler: flow shift.
    #[arg(long, value_name = "X", default_value_t = 5.0, allow_negative_numbers = true)]
    pub shift: f64,
    /// scheduler: part of the schedule that is run.
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub denoise_strength: f64,

    /// noise: seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// noise: shape of the tensor.
    #[arg(long, value_name = "A,B,C,D", value_delimiter = ',')]
    pub shape: Vec<usize>,

    /// image: the file.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// image: width of the target area in pixels.
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<usize>,
    /// image: height of the target area in pixels.
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<usize>,
    /// image: stretch to exactly width x height.
    #[arg(long)]
    pub no_adjust_resolution: bool,
}

const HELP: &str = "\
Components and their tensors (batch is always 1):
  umt5        input_ids i64 [1,L], attention_mask i64 [1,L] -> text_embeds f32 [1,L,dim], zero past the mask
  clip        pixel_values f32 [1,3,S,S], normalised -> image_embeds f32 [1,1+(S/patch)^2,dim]
  vae-encode  video f32 [1,3,T,H,W] in [-1,1], T = 4k+1 -> latents f32 [1,z,k+1,H/8,W/8], normalised
  vae-decode  latents f32 [1,z,k+1,h,w], normalised -> video f32 [1,3,4k+1,8h,8w] in [-1,1]
  dit         latents [1,16,F,h,w], condition [1,20,F,h,w] (i2v), timestep [1], text_embeds [1,L,text_dim],
              image_embeds [1,N,image_dim] (i2v), all f32 -> velocity f32 [1,16,F,h,w]
  scheduler   sample [...], model_outputs [N,...], noise [N,...] (where the solver draws it) -> sigmas [N+1],
              timesteps [N], samples [N,...]
  noise       --shape A,B,C,D --seed N -> noise f32, what torch.manual_seed(N); torch.randn(A,B,C,D) gives
  image       --image FILE --width W --height H -> image f32 [3,h,w] in [-1,1]

Exit codes: 2 for a component or option that does not exist or is missing, 1 for files and tensors that do not
fit. See docs/probe.md.";

/// A component that can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Component {
    /// UMT5 text encoder.
    Umt5,
    /// CLIP vision encoder.
    Clip,
    /// VAE, video to latents.
    VaeEncode,
    /// VAE, latents to video.
    VaeDecode,
    /// Diffusion transformer.
    Dit,
    /// Sigma grid and solver.
    Scheduler,
    /// torch's CPU noise.
    Noise,
    /// Loading and resizing of the input image.
    Image,
}

/// Runs the command.
pub fn run(args: &ProbeArgs) -> Outcome {
    let outputs = match args.component {
        Component::Umt5 => encoders::umt5(args),
        Component::Clip => encoders::clip(args),
        Component::VaeEncode => vae::encode(args),
        Component::VaeDecode => vae::decode(args),
        Component::Dit => transformer::dit(args),
        Component::Scheduler => arithmetic::scheduler(args),
        Component::Noise => arithmetic::noise(args),
        Component::Image => arithmetic::image(args),
    }?;
    Ok(wan_pipeline::save_tensors(&args.output, &outputs, Default::default())?)
}

impl ProbeArgs {
    fn weights(&self) -> Outcome<WeightSet> {
        Ok(WeightSet::open(self.required(self.weights.as_ref(), "--weights")?)?)
    }

    fn inputs(&self) -> Outcome<io::Inputs> {
        io::Inputs::open(self.required(self.input.as_ref(), "--input")?)
    }

    fn device(&self) -> Outcome<Device> {
        let choice = self.device.parse::<DeviceChoice>().map_err(Failure::usage)?;
        let device = choice.open()?.device;
        kernels::settle(&device, choice, say)?;
        Ok(device)
    }

    fn dtype(&self) -> Outcome<DType> {
        parse_dtype(&self.dtype).map_err(Failure::usage)
    }

    fn required<'a, T>(&self, value: Option<&'a T>, option: &str) -> Outcome<&'a T> {
        value.ok_or_else(|| {
            let component =
                self.component.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
            Failure::usage(format!("probe {component}: {option} is missing"))
        })
    }
}
