"""Fixture of LoRA on the DiT: python tests/golden/make_lora.py

`lora/lora.safetensors` holds the tensors of small LoRAs for the weights of `dit/i2v`, and, as
`expected.<case>`, the velocities of the model with those merged into its weights, on the inputs of `dit/i2v`.
`lora/keys.json` says under which names a file of each format has which of the tensors.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

import reference as ref
from golden_models import normal

ROOT = Path(__file__).parent
RANK, ALPHA = 3, 1.2


def modules(state):
    """Linear modules under original names; those of the attentions and the feed-forward, and two outside."""
    inside = [n.removesuffix(".weight") for n, t in state.items() if n.startswith("blocks.") and t.dim() == 2]
    return inside + ["text_embedding.0", "time_projection.1"]


def hub_names(state, config):
    """diffusers' names of the modules, through the map that renames checkpoints: a tensor stays the same object."""
    hub = {id(t): name for name, t in ref.to_hub("dit", state, config).items()}
    return {m: hub[id(state[f"{m}.weight"])].removesuffix(".weight") for m in modules(state)}


def velocity(config, state, io):
    x = {k: v for k, v in io.items() if not k.startswith("expected.")}
    return ref.run_dit(ref.load("dit", config, state), **x)


def main():
    weights = ROOT / "dit/i2v.weights.safetensors"
    config, state = ref.read_weights(weights)
    io = load_file(ROOT / "dit/i2v.io.safetensors")
    out, names = {}, modules(state)
    for which in ("a", "b"):
        for m in names:
            rows, columns = state[f"{m}.weight"].shape
            seed = f"lora {which}"
            out[f"{which}.{m}.down"] = normal(seed, m + "down", (RANK, columns), columns**-0.5)
            out[f"{which}.{m}.up"] = normal(seed, m + "up", (rows, RANK), 0.3 * RANK**-0.5)
    out["alpha"] = torch.tensor(ALPHA)
    up_bias = {m: normal("lora bias", m, state[f"{m}.bias"].shape, 0.2) for m in names if ".ffn." in m}
    out |= {f"bias.{m}": t for m, t in up_bias.items()}
    # Differences: of every kind of small tensor, of two whole matrices, of the modulations.
    diffs = [n for n in state if "norm" in n or n.endswith("modulation")]
    diffs += [n for n in state if n.endswith(".q.bias")]
    diffs += ["head.head.weight", "head.head.bias", "patch_embedding.weight", "patch_embedding.bias"]
    diffs += ["img_emb.proj.0.weight", "img_emb.proj.4.bias"]
    for n in dict.fromkeys(diffs):
        out[f"diff.{n}"] = normal("lora diff", n, state[n].shape, 0.2 * state[n].std().item())

    def merged(*pairs, factor=1.0, only=lambda m: True, extra=()):
        new = {k: v.double() for k, v in state.items()}
        for which, strength in pairs:
            for m in filter(only, names):
                product = out[f"{which}.{m}.up"].double() @ out[f"{which}.{m}.down"].double()
                new[f"{m}.weight"] += strength * factor * product
        for n, change in extra:
            new[n] += change.double()
        return velocity(config, {k: v.float() for k, v in new.items()}, io)

    scaled = ALPHA / RANK
    expected = {
        "plain": merged(("a", 0.8)),
        "alpha": merged(("a", 0.8), factor=scaled),
        "bias": merged(("a", 0.8), factor=scaled, extra=[(f"{m}.bias", 0.8 * scaled * t) for m, t in up_bias.items()]),
        "block1": merged(("a", 0.8), only=lambda m: not m.startswith("blocks.0.")),
        "two": merged(("a", 0.8), ("b", -0.5)),
        "diffs": merged(extra=[(k[5:], 0.8 * t) for k, t in out.items() if k.startswith("diff.")]),
    }
    base = velocity(config, state, io)
    for case, v in expected.items():
        print(case, "changes the velocity by", ((v - base).norm() / base.norm()).item())
        out[f"expected.{case}"] = v

    def keys(rename, down, up, alpha=False, which="a"):
        result = {}
        for m in names:
            result |= {rename(m) + down: f"{which}.{m}.down", rename(m) + up: f"{which}.{m}.up"}
            if alpha:
                result[rename(m) + ".alpha"] = "alpha"
        return result

    hub = hub_names(state, config)
    peft, kohya = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")
    diff_keys = {}
    for n in (k[5:] for k in out if k.startswith("diff.")):
        module, leaf = n.rsplit(".", 1)
        diff_keys["diffusion_model." + module + {"weight": ".diff", "bias": ".diff_b", "modulation": ".diff_m"}[leaf]] = f"diff.{n}"
    formats = {
        "comfy_peft": ("plain", keys(lambda m: f"diffusion_model.{m}", *peft)),
        "comfy_down_up": ("alpha", keys(lambda m: f"diffusion_model.{m}", *kohya, alpha=True)),
        "transformer_original": ("plain", keys(lambda m: f"transformer.{m}", *peft)),
        "diffusers": ("plain", keys(lambda m: f"transformer.{hub[m]}", *peft)),
        "diffusers_default": ("plain", keys(lambda m: f"base_model.model.{hub[m]}", ".lora_A.default.weight", ".lora_B.default.weight")),
        "diffusers_bias": (
            "bias",
            keys(lambda m: f"transformer.{hub[m]}", *peft, alpha=True)
            | {f"transformer.{hub[m]}.lora_B.bias": f"bias.{m}" for m in up_bias},
        ),
        "kohya": ("alpha", keys(lambda m: "lora_unet_" + m.replace(".", "_"), *kohya, alpha=True)),
        "wan_fun": ("alpha", keys(lambda m: "lora_unet__" + m.replace(".", "_"), *kohya, alpha=True)),
        "pipe_dit": ("plain", keys(lambda m: f"pipe.dit.{m}", ".lora_A.default.weight", ".lora_B.default.weight")),
        "bare": ("plain", keys(lambda m: m, *kohya)),
        "differences": ("diffs", diff_keys),
        "second": (None, keys(lambda m: f"diffusion_model.{m}", *peft, which="b")),
    }
    ref.save_tensors(ROOT / "lora/lora.safetensors", out)
    text = {name: {"expected": case, "keys": k} for name, (case, k) in formats.items()}
    (ROOT / "lora/keys.json").write_text(json.dumps(text, indent=0) + "\n")


if __name__ == "__main__":
    main()
