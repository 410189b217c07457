"""The whole pipeline on models/tiny, by diffusers and transformers modules: every intermediate a tensor."""

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from PIL import Image
from tokenizers import Tokenizer

import golden_image
import golden_models
import golden_solvers
import golden_text
import reference as ref

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"
SCHEDULERS = ("dpm++", "dpm++_sde", "unipc", "euler")
REQUEST = dict(
    prompt="A red balloon drifts slowly over green hills，the camera pans left.",
    negative_prompt="色调艳丽，过曝，静态，细节模糊不清，blurry",
    image="models/tiny/sample.png",
    width=64,
    height=64,
    frames=9,
    steps=4,
    cfg=6.0,
    shift=5.0,
    seed=42,
)


class Tiny:
    """The four modules holding models/tiny, FP8 weights widened to float32, and its tokenizer."""

    def __init__(self, folder=TINY):
        for component in ("dit", "vae", "umt5", "clip"):
            setattr(self, component, ref.load(component, *ref.read_weights(folder / f"{component}.safetensors")))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def text(self, prompt):
        ids = torch.tensor([golden_text.encode(self.tokenizer, golden_text.clean(prompt))])
        return ids, ref.run_umt5(self.umt5, ids, torch.ones_like(ids))

    def prepare(self, request, image):
        """Everything the denoising loop starts from; `image` is a PIL image."""
        r, t = request, {}
        t["input_ids"], t["text_embeds"] = self.text(r["prompt"])
        t["negative_input_ids"], t["negative_embeds"] = self.text(r["negative_prompt"])
        image = image.convert("RGB")
        levels, pixels = golden_image.clip_input(np.asarray(image), self.clip.config.image_size)
        t["pixel_levels"] = levels.to(torch.uint8)  # CLIP's input before normalisation
        t["image_embeds"] = ref.run_clip(self.clip, pixels)
        w, h = golden_image.adjust(*image.size, r["width"], r["height"])
        resized = np.asarray(image.resize((w, h), Image.LANCZOS))
        t["image"] = torch.from_numpy(resized.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255 * 2 - 1
        video = torch.zeros(1, 3, r["frames"], h, w)
        video[:, :, 0] = t["image"]
        latents = ref.vae_encode(self.vae, video)
        mask = torch.zeros(1, 4, *latents.shape[2:])
        mask[:, :, 0] = 1
        t["condition"] = torch.cat([mask, latents], 1)
        t["noise"] = torch.randn(latents.shape, generator=torch.Generator().manual_seed(r["seed"]))
        return t

    def velocity(self, x, timestep, t, cfg):
        condition = dict(condition=t["condition"], image_embeds=t["image_embeds"])
        timestep = timestep.reshape(1).float()
        v = [ref.run_dit(self.dit, x, timestep, t[text], **condition) for text in ("text_embeds", "negative_embeds")]
        return v[1] + cfg * (v[0] - v[1]), v

    def denoise(self, name, request, t, wan_repo):
        """Samples after each step, and the first step's two velocities."""
        scheduler, _, timesteps = golden_solvers.prepare(name, request["steps"], request["shift"], 1.0, wan_repo)
        generator = torch.Generator().manual_seed(request["seed"])
        torch.randn(t["noise"].shape, generator=generator)  # the stochastic solver draws on after the initial noise
        x, samples, first = t["noise"], [], None
        for step in timesteps:
            v, both = self.velocity(x, step, t, request["cfg"])
            first = first or both
            extra = {"generator": generator} if name == "dpm++_sde" else {}
            x = scheduler.step(v, step, x, return_dict=False, **extra)[0]
            samples.append(x)
        return torch.stack(samples), first


def make_e2e(root, wan_repo):
    """The request is in the header. `expected.latents.S` is the last of `samples.S` for scheduler S."""
    tiny = Tiny()
    with torch.no_grad():
        out = tiny.prepare(REQUEST, Image.open(TINY / "sample.png"))
        t = dict(out)
        for name in SCHEDULERS:
            samples, (positive, negative) = tiny.denoise(name, REQUEST, t, wan_repo)
            out[f"samples.{name}"] = samples
            out[f"expected.latents.{name}"] = samples[-1]
            if name == "dpm++":
                out["velocity.first_step"], out["negative_velocity.first_step"] = positive, negative
                out["expected.video"] = ref.vae_decode(tiny.vae, samples[-1])
    metadata = {k: str(v) for k, v in REQUEST.items()}
    ref.save_tensors(root / "e2e" / "tiny.io.safetensors", out, metadata)


class CapturedCondition(WanImageToVideoPipeline):
    """The pipeline, with CLIP's input made as wan-run makes it, and its condition kept."""

    def encode_image(self, image, device):
        size = self.image_encoder.config.image_size
        pixels = [golden_image.clip_input(np.asarray(i.convert("RGB")), size)[1] for i in image]
        self.embeds = ref.run_clip(self.image_encoder, torch.cat(pixels))
        return self.embeds

    def prepare_latents(self, *args, **kwargs):
        latents, self.condition = super().prepare_latents(*args, **kwargs)
        return latents, self.condition


def make_flf2v(root):
    """diffusers' pipeline between two images, on models/tiny with random positions for the tokens of both. The end
    image is the sample image upside down."""
    config, state = ref.read_weights(TINY / "dit.safetensors")
    tiny = Tiny()
    tokens = (tiny.clip.config.image_size // tiny.clip.config.patch_size) ** 2 + 1
    positions = golden_models.normal("flf2v", "img_emb.emb_pos", (1, 2 * tokens, config["image_dim"]))
    dit = ref.load("dit", config | {"image_positions": 2 * tokens}, state | {"img_emb.emb_pos": positions})
    pipeline = CapturedCondition(
        tokenizer=None,
        text_encoder=None,
        vae=tiny.vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=REQUEST["shift"]),
        image_processor=None,
        image_encoder=tiny.clip,
        transformer=dit,
    )
    pipeline.set_progress_bar_config(disable=True)
    first = Image.open(TINY / "sample.png").convert("RGB")
    request = REQUEST | dict(steps=3, scheduler="euler")
    latent = (1, 16, (request["frames"] - 1) // 4 + 1, request["height"] // 8, request["width"] // 8)
    texts = [torch.nn.functional.pad(e, (0, 0, 0, 512 - e.shape[1])) for e in
             (tiny.text(request[k])[1] for k in ("prompt", "negative_prompt"))]
    with torch.no_grad():
        latents = pipeline(
            image=first,
            last_image=first.transpose(Image.ROTATE_180),
            prompt_embeds=texts[0],
            negative_prompt_embeds=texts[1],
            height=request["height"],
            width=request["width"],
            num_frames=request["frames"],
            num_inference_steps=request["steps"],
            guidance_scale=request["cfg"],
            latents=torch.randn(latent, generator=torch.Generator().manual_seed(request["seed"])),
            output_type="latent",
            return_dict=False,
        )[0]
    out = {
        "emb_pos": positions,
        "image_embeds": pipeline.embeds.reshape(1, 2 * tokens, -1),
        "condition": pipeline.condition,
        "expected.latents": latents,
    }
    ref.save_tensors(root / "e2e" / "flf2v.io.safetensors", out, {k: str(v) for k, v in request.items()})
