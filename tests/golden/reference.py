"""Reference modules for the fixtures: diffusers and transformers classes built from wan-run's
configuration keys, and the tensor names of the original Wan2.1 checkpoints.

`build(component, config)` returns a randomly initialised module, `load(component, config, state)` one
that holds `state` (original naming, any dtype, widened to float32); loading is strict.
`to_original` and `to_hub` rename a whole state dict and are inverse to each other.
"""

import json
import re
import struct

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import save
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

# ---------------------------------------------------------------------------------------------------
# modules


def build_dit(c):
    i2v = c["model_type"] == "i2v"
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=c["num_heads"],
        attention_head_dim=c["dim"] // c["num_heads"],
        in_channels=c["in_dim"],
        out_channels=c["out_dim"],
        text_dim=c["text_dim"],
        freq_dim=c["freq_dim"],
        ffn_dim=c["ffn_dim"],
        num_layers=c["num_layers"],
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        eps=c.get("eps", 1e-6),
        image_dim=c["image_dim"] if i2v else None,
        added_kv_proj_dim=c["dim"] if i2v else None,
        pos_embed_seq_len=c.get("image_positions"),
    )


def build_vae(c):
    return AutoencoderKLWan(
        base_dim=c["base_dim"],
        z_dim=c["z_dim"],
        dim_mult=c["dim_mult"],
        num_res_blocks=c["num_res_blocks"],
        attn_scales=c["attn_scales"],
        temperal_downsample=c["temporal_downsample"],  # spelt so in diffusers
    )


def build_umt5(c):
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=c["vocab_size"],
            d_model=c["dim"],
            d_kv=c["dim_attn"] // c["num_heads"],
            d_ff=c["dim_ffn"],
            num_layers=c["num_layers"],
            num_heads=c["num_heads"],
            relative_attention_num_buckets=c["num_buckets"],
            relative_attention_max_distance=128,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )


def build_clip(c):
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=c["dim"],
            intermediate_size=int(c["dim"] * c["mlp_ratio"]),
            projection_dim=c["dim"],
            num_hidden_layers=c["num_layers"],
            num_attention_heads=c["num_heads"],
            image_size=c["image_size"],
            patch_size=c["patch_size"],
            hidden_act="gelu",
            layer_norm_eps=1e-5,
        )
    )


BUILDERS = {"dit": build_dit, "vae": build_vae, "umt5": build_umt5, "clip": build_clip}


def build(component, config):
    return BUILDERS[component](config).float().eval()


# ---------------------------------------------------------------------------------------------------
# names: hub (diffusers, transformers) -> original Wan2.1

_DIT = [
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^condition_embedder\.image_embedder\.pos_embed$", "img_emb.emb_pos"),
    (r"^proj_out\.", "head.head."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
]

_VAE = [
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.(\d+)\.", r".downsamples.\1."),
]

_VAE_RESIDUAL = [
    (r"\.norm1\.gamma$", ".residual.0.gamma"),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.gamma$", ".residual.3.gamma"),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
]

_UMT5 = [
    (r"^shared\.weight$", "token_embedding.weight"),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.", "blocks."),
    (r"\.layer\.0\.layer_norm\.", ".norm1."),
    (r"\.layer\.1\.layer_norm\.", ".norm2."),
    (r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".pos_embedding.embedding."),
    (r"\.layer\.0\.SelfAttention\.", ".attn."),
    (r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn.gate.0."),
    (r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn.fc1."),
    (r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn.fc2."),
]

_CLIP = [
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.patch_embedding."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.cls_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.pos_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.pre_norm."),  # spelt so in transformers
    (r"^vision_model\.post_layernorm\.", "visual.post_norm."),
    (r"^visual_projection\.weight$", "visual.head"),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
]


def _apply(rules, name):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _vae_name(name, config):
    """diffusers groups the decoder's blocks by level, Wan2.1 numbers them through."""
    per_level = config["num_res_blocks"] + 2
    m = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.*)", name)
    if m:
        index = int(m[1]) * per_level + (int(m[3]) if m[2] == "resnets" else per_level - 1)
        name = f"decoder.upsamples.{index}.{m[4]}"
    inside_block = re.match(r"(encoder|decoder)\.(\w+_block|\w+_blocks|upsamples)\.", name)
    name = _apply(_VAE_RESIDUAL, name) if inside_block else name
    return _apply(_VAE, name)


def _rename(component, name, config):
    if component == "vae":
        return _vae_name(name, config)
    return _apply({"dit": _DIT, "umt5": _UMT5, "clip": _CLIP}[component], name)


def hub_state(component, module):
    """The module's tensors under the names its checkpoints have on the hub."""
    state = dict(module.state_dict())
    if component == "umt5":
        state.pop("encoder.embed_tokens.weight", None)  # tied to `shared.weight`
    if component == "clip":
        state = {k if k.startswith("vision_model.") else "vision_model." + k: v for k, v in state.items()}
        state = {k: v for k, v in state.items() if not k.endswith("position_ids")}
    return state


def to_original(component, state, config):
    """hub naming -> original naming."""
    out = {}
    for name, tensor in state.items():
        m = re.match(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$", name)
        if component == "clip" and re.search(r"\.self_attn\.[qkv]_proj\.", name):
            if m:  # q, k and v are one linear in the original, stacked by rows
                parts = [state[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
                out[f"visual.transformer.{m[1]}.attn.to_qkv.{m[2]}"] = torch.cat(parts, 0)
            continue
        new = _rename(component, name, config)
        if new == "visual.cls_embedding":
            tensor = tensor.reshape(1, 1, -1)
        elif new == "visual.pos_embedding":
            tensor = tensor.unsqueeze(0)
        elif new == "visual.head":
            tensor = tensor.t()
        assert new not in out, f"two tensors map to {new}"
        out[new] = tensor.contiguous()
    return out


def to_hub(component, state, config):
    """original naming -> hub naming, by inverting `to_original` on the module's own names."""
    with torch.device("meta"):
        names = list(hub_state(component, build(component, config)))
    out, used = {}, set()
    for name in names:
        m = re.match(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$", name)
        if component == "clip" and m:
            source = f"visual.transformer.{m[1]}.attn.to_qkv.{m[3]}"
            tensor = state[source].chunk(3, 0)["qkv".index(m[2])]
        else:
            source = _rename(component, name, config)
            tensor = state[source]
            if source in ("visual.cls_embedding", "visual.pos_embedding"):
                tensor = tensor.reshape(tensor.shape[-1:] if "cls" in source else tensor.shape[-2:])
        used.add(source)
        out[name] = tensor.contiguous()
    if "visual.head" in state:
        used |= {"visual.head", "log_scale"}
        out["visual_projection.weight"] = state["visual.head"].t().contiguous()
    left = set(state) - used
    assert not left, f"{component}: tensors without a hub name: {sorted(left)[:4]}"
    return out


def load(component, config, state):
    """A float32 module holding `state` (original naming)."""
    module = build(component, config)
    hub = {k: v.float() for k, v in to_hub(component, state, config).items()}
    if component == "umt5":
        hub["encoder.embed_tokens.weight"] = hub["shared.weight"]
    if component == "clip":
        hub.pop("visual_projection.weight", None)  # unused by the vision tower
        own = module.state_dict()
        if not any(k.startswith("vision_model.") for k in own):
            hub = {k.removeprefix("vision_model."): v for k, v in hub.items()}
        hub |= {k: v for k, v in own.items() if k.endswith("position_ids")}
    module.load_state_dict(hub, strict=True)
    return module.float().eval()


# ---------------------------------------------------------------------------------------------------
# files


def save_tensors(path, tensors, metadata=None):
    """Options of a case (`options.steps`, ...) are written twice, as tensors and as text in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {k.removeprefix("options."): str(v.item()) for k, v in tensors.items() if k.startswith("options.")}
    metadata = (metadata or {}) | options or None
    data = save({k: v.detach().contiguous().clone() for k, v in tensors.items()}, metadata=metadata)
    # the library writes metadata in no fixed order; sort it, so that equal input gives equal files
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    if metadata:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= length
    path.write_bytes(data[:8] + text.ljust(length) + data[8 + length :])


def save_weights(path, state, config):
    save_tensors(path, state, {"format": "pt", "config": json.dumps(config)})


def read_weights(path):
    """(config, state in the file's own dtypes)"""
    with safe_open(str(path), "pt") as f:
        config = json.loads(f.metadata()["config"])
        return config, {k: f.get_tensor(k) for k in f.keys()}


# ---------------------------------------------------------------------------------------------------
# forwards with the tensors of `wan-run probe`


@torch.no_grad()
def run_dit(model, latents, timestep, text_embeds, condition=None, image_embeds=None, text_len=512):
    x = latents if condition is None else torch.cat([latents, condition], 1)
    pad = text_len - text_embeds.shape[1]
    text = torch.nn.functional.pad(text_embeds, (0, 0, 0, pad))
    return model(x, timestep, text, image_embeds, return_dict=False)[0]


def latent_constants(vae):
    mean = torch.tensor(vae.config.latents_mean[: vae.config.z_dim]).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std[: vae.config.z_dim]).view(1, -1, 1, 1, 1)
    return mean, std


@torch.no_grad()
def vae_encode(vae, video):
    mean, std = latent_constants(vae)
    return (vae.encode(video).latent_dist.mode() - mean) / std


@torch.no_grad()
def vae_decode_unclamped(vae, latents):
    """diffusers clamps inside `decode`; the decoder's last convolution gives the values before that."""
    mean, std = latent_constants(vae)
    chunks = []
    hook = vae.decoder.conv_out.register_forward_hook(lambda module, args, out: chunks.append(out))
    vae.decode(latents * std + mean, return_dict=False)
    hook.remove()
    return torch.cat(chunks, 2)


def vae_decode(vae, latents):
    return vae_decode_unclamped(vae, latents).clamp(-1, 1)


@torch.no_grad()
def run_umt5(model, input_ids, attention_mask):
    out = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return out * attention_mask.unsqueeze(-1)


@torch.no_grad()
def run_clip(model, pixel_values):
    return model(pixel_values=pixel_values, output_hidden_states=True).hidden_states[-2]
