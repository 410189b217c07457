"""Checkpoints as other programs write them: python tests/golden/make_foreign.py  (needs the package gguf)

One set of small random weights per component, as `foreign/<component>.safetensors` in original naming (float32),
and the same weights in the files of each library: diffusers and transformers `save_pretrained` (sharded),
`torch.save` (zip, the older format, and one with code in it), gguf's writer, and ComfyUI's and Kijai's scaled FP8.
"""

import json
import os
import shutil
from pathlib import Path

import numpy
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.torch import save_file

import reference as ref
from golden_models import normal, random_state

ROOT = Path(__file__).parent / "foreign"
CONFIG = {
    "dit": dict(model_type="i2v", dim=32, ffn_dim=64, freq_dim=32, in_dim=36, out_dim=16, text_dim=32, text_len=512,
                image_dim=32, num_heads=2, num_layers=2, eps=1e-6),
    "vae": dict(base_dim=2, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, attn_scales=[], temporal_downsample=[True]),
    "umt5": dict(vocab_size=64, dim=32, dim_attn=32, dim_ffn=48, num_heads=2, num_layers=2, num_buckets=32),
    "clip": dict(image_size=28, patch_size=14, dim=32, mlp_ratio=4, num_heads=2, num_layers=3),
}


def save_pretrained(component, state):
    """The library's own folder, in several shards."""
    folder = ROOT / f"{component}_pretrained"
    shutil.rmtree(folder, ignore_errors=True)
    ref.load(component, CONFIG[component], state).save_pretrained(folder, max_shard_size="60KB")


def f8(tensor):
    return tensor.clamp(-448, 448).to(torch.float8_e4m3fn)


def scaled(state, keep, scale_name, marker, inputs=False, prefix=""):
    """Matrices as codes times a factor; `keep` says which names stay float."""
    out = {prefix + marker: torch.zeros(2, dtype=torch.float8_e4m3fn)} if marker else {}
    for name, tensor in state.items():
        if tensor.dim() != 2 or not name.endswith(".weight") or keep(name):
            out[prefix + name] = tensor
            continue
        scale = tensor.abs().max() / 448
        base = prefix + name.removesuffix("weight")
        out[prefix + name] = f8(tensor / scale)
        out[base + scale_name] = scale if inputs else scale.reshape(1)
        if inputs:
            out[base + "scale_input"] = torch.tensor(1.0)
    return out


def write_gguf(path, state, kind):
    writer = GGUFWriter(path, "wan")
    writer.add_uint32("general.file_type", 0)
    for name, tensor in state.items():
        matrix = tensor.dim() == 2 and name.startswith("blocks.") and name.endswith(".weight")
        array = tensor.contiguous().numpy()
        if not matrix:
            if tensor.dim() > 4:  # ggml has four axes; converters keep the shape aside
                writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in tensor.shape])
                array = array.reshape(tensor.shape[0], -1)
            writer.add_tensor(name, array.astype(numpy.float32))
            continue
        data = quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Code:
    """What a pickle with code in it looks like; loading it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


def main():
    ROOT.mkdir(exist_ok=True)
    state = {c: random_state(c, CONFIG[c], f"foreign-{c}") for c in CONFIG}
    for component, tensors in state.items():
        ref.save_weights(ROOT / f"{component}.safetensors", tensors, CONFIG[component])
        save_pretrained(component, tensors)
    (ROOT / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")

    dit = state["dit"]
    outside = lambda name: not name.startswith("blocks.")
    save_file(scaled(dit, outside, "scale_weight", "scaled_fp8", inputs=True, prefix="model.diffusion_model."),
              ROOT / "dit_comfy_scaled.safetensors")
    save_file(scaled(dit, outside, "scale_weight", "scaled_fp8"), ROOT / "dit_kj_scaled.safetensors")
    for label, kind in (("f32", GGMLQuantizationType.F32), ("f16", GGMLQuantizationType.F16), ("q8_0", GGMLQuantizationType.Q8_0)):
        write_gguf(ROOT / f"dit_{label}.gguf", dit, kind)

    # ComfyUI's text encoder: transformers' names, and the tokenizer (of make_sentencepiece.py) as bytes.
    hub = ref.to_hub("umt5", state["umt5"], CONFIG["umt5"])
    piece = (ROOT.parent / "sentencepiece/plain.model").read_bytes()
    hub["spiece_model"] = torch.frombuffer(bytearray(piece), dtype=torch.uint8)
    save_file({k: v.contiguous() for k, v in hub.items()}, ROOT / "umt5_comfy.safetensors")
    save_file(scaled(hub, lambda n: ".block." not in n or "relative" in n, "scale_weight", "scaled_fp8", inputs=True),
              ROOT / "umt5_comfy_scaled.safetensors")
    save_file(ref.to_hub("clip", state["clip"], CONFIG["clip"]), ROOT / "clip_comfy.safetensors")

    for component in ("umt5", "clip", "vae"):
        torch.save(state[component], ROOT / f"{component}.pth")
    small = {"w": normal("legacy", "w", (2, 3)), "b": normal("legacy", "b", (3,))}
    torch.save(small, ROOT / "before_1_6.pth", _use_new_zipfile_serialization=False)
    torch.save({**small, "code": Code()}, ROOT / "code.pth")
    torch.save({"state_dict": torch.nn.Linear(3, 2).state_dict(), "step": 7}, ROOT / "nested.pth")

    inputs = {
        "dit.latents": normal("f", "latents", (1, 16, 2, 4, 4)),
        "dit.condition": normal("f", "condition", (1, 20, 2, 4, 4)),
        "dit.text_embeds": normal("f", "text", (1, 5, 32)),
        "dit.image_embeds": normal("f", "image", (1, 257, 32)),
        "vae.latents": normal("f", "vae", (1, 4, 2, 4, 4)),
        "clip.pixel_values": normal("f", "pixels", (1, 3, 28, 28)),
    }
    ids = torch.tensor([[5, 7, 33, 60, 9, 1]])
    out = {
        "expected.dit": ref.run_dit(ref.load("dit", CONFIG["dit"], dit), timestep=torch.tensor([437.0]),
                                    **{k[4:]: v for k, v in inputs.items() if k.startswith("dit.")}),
        "expected.umt5": ref.run_umt5(ref.load("umt5", CONFIG["umt5"], state["umt5"]), ids, torch.ones_like(ids)),
        "expected.vae": ref.vae_decode(ref.load("vae", CONFIG["vae"], state["vae"]), inputs["vae.latents"]),
        "expected.clip": ref.run_clip(ref.load("clip", CONFIG["clip"], state["clip"]), inputs["clip.pixel_values"]),
    }
    ref.save_tensors(ROOT / "io.safetensors", inputs | {"umt5.input_ids": ids} | out)


if __name__ == "__main__":
    main()
