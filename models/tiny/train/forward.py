"""The transformer's forward pass, written for training on little: diffusers' weights and arithmetic, but

- the rows that pad a sentence to 512 are one row. All are zero when they enter the text embedding, so all have one key and
  one value, and attending to n of them is attending to one whose logit has log n added;
- only some of the latent frames need to be there: each that is stands for several, by the same means;
- image cross attention is left out as long as its values are zero;
- block weights may be rounded to e4m3, the gradient passing unchanged.

`test_forward.py` compares it with diffusers'.
"""

import math

import torch
from torch.nn.functional import gelu, layer_norm, linear, rms_norm


def rounded(weight):
    """`weight` as e4m3 holds it; the gradient passes unchanged."""
    return weight + (weight.to(torch.float8_e4m3fn).to(weight.dtype) - weight).detach()


def rotary(dit, frames, rows, columns):
    """(cos, sin) [N, 1, head_dim / 2] of tokens at latent `frames`, an index tensor."""
    rope = dit.rope
    parts = []
    for table, take in ((rope.freqs_cos, 0), (rope.freqs_sin, 1)):
        t, y, x = table.split([rope.t_dim, rope.h_dim, rope.w_dim], 1)
        t, y, x = t[frames], y[:rows], x[:columns]
        grid = [t[:, None, None].expand(-1, rows, columns, -1), y[None, :, None].expand(len(frames), -1, columns, -1),
                x[None, None].expand(len(frames), rows, -1, -1)]
        parts.append(torch.cat(grid, -1).flatten(0, 2)[:, None, take::2].float())
    return parts


def turned(x, cos, sin):
    """Rotary embedding of [B, N, heads, head_dim]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def attend(query, key, value, bias=None):
    """[B, N, heads, head_dim] each. Written out: compiled, that is faster forwards and backwards than CPUs' fused kernel."""
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    return (torch.softmax(logits, -1, dtype=torch.float32).to(value.dtype) @ value).transpose(1, 2).flatten(2)


class Forward:
    def __init__(self, dit, rounding=False, image=True):
        self.dit, self.rounding, self.image = dit, rounding, image

    def linear(self, layer, x):
        return linear(x, rounded(layer.weight) if self.rounding else layer.weight, layer.bias)

    def __call__(self, x, timestep, text, text_bias, image, frames, frame_bias):
        """Velocity [B, 16, T, H, W] of `x` [B, 36, T, H, W], whose frames are those of index `frames` [T] in the clip.

        `text` [B, L, text_dim] goes with `text_bias` [B, 1, 1, L]; `frame_bias` [T] goes onto the logits of the frames'
        keys, or is None."""
        dit = self.dit
        b, _, t, h, w = x.shape
        rows, columns = h // 2, w // 2
        patches = x.unflatten(4, (columns, 2)).unflatten(3, (rows, 2)).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        hidden = linear(patches, dit.patch_embedding.weight.flatten(1), dit.patch_embedding.bias).float()
        heads = dit.blocks[0].attn1.heads
        rope = rotary(dit, frames, rows, columns)
        bias = None if frame_bias is None else frame_bias.repeat_interleave(rows * columns).view(1, 1, 1, -1)

        embed = dit.condition_embedder
        time = embed.time_embedder(embed.timesteps_proj(timestep)).float()
        six = embed.time_proj(embed.act_fn(time)).float().unflatten(1, (6, -1))
        text = self.linear(embed.text_embedder.linear_2, gelu(self.linear(embed.text_embedder.linear_1, text), approximate="tanh"))
        image = embed.image_embedder(image) if self.image else None
        for block in dit.blocks:
            hidden = self.block(block, hidden, six, heads, rope, bias, text, text_bias, image)
        shift, scale = (dit.scale_shift_table + time[:, None]).chunk(2, 1)
        out = linear(layer_norm(hidden, hidden.shape[-1:], eps=1e-6) * (1 + scale) + shift, dit.proj_out.weight, dit.proj_out.bias)
        return out.view(b, t, rows, columns, 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)

    def block(self, block, hidden, six, heads, rope, bias, text, text_bias, image):
        shift, scale, gate, shift_f, scale_f, gate_f = (block.scale_shift_table + six).chunk(6, 1)
        norm = lambda x: layer_norm(x, x.shape[-1:], eps=1e-6)
        split = lambda x: x.unflatten(2, (heads, -1))
        rms = lambda module, x: rms_norm(x.float(), x.shape[-1:], module.weight, 1e-6)

        a = block.attn1
        x = norm(hidden) * (1 + scale) + shift
        query = split(rms(a.norm_q, self.linear(a.to_q, x)))
        key = split(rms(a.norm_k, self.linear(a.to_k, x)))
        value = self.linear(a.to_v, x)
        low = value.dtype
        x = attend(turned(query, *rope).to(low), turned(key, *rope).to(low), split(value), bias)
        hidden = hidden + self.linear(a.to_out[0], x) * gate

        a = block.attn2
        x = layer_norm(hidden, hidden.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
        query = split(rms(a.norm_q, self.linear(a.to_q, x))).to(low)
        key = split(rms(a.norm_k, self.linear(a.to_k, text))).to(low)
        x = attend(query, key, split(self.linear(a.to_v, text)), text_bias)
        if image is not None:
            key = split(rms(a.norm_added_k, self.linear(a.add_k_proj, image))).to(low)
            x = x + attend(query, key, split(self.linear(a.add_v_proj, image)))
        hidden = hidden + self.linear(a.to_out[0], x)

        x = norm(hidden) * (1 + scale_f) + shift_f
        x = self.linear(block.ffn.net[2], gelu(self.linear(block.ffn.net[0].proj, x), approximate="tanh"))
        return hidden + x * gate_f


def stand_in(frames, count):
    """What the keys of `frames`, which begin with the first, have to have on their logits to stand for `count`."""
    bias = torch.full((len(frames),), math.log((count - 1) / (len(frames) - 1)) if len(frames) > 1 else 0.0)
    bias[0] = 0
    return bias


def padding_bias(mask, rows):
    """[B, 1, 1, L] from `mask` [B, L], one where there is a token and zero on at least one row of each sentence:
    what makes the zero rows weigh as much as `rows` - tokens of them do."""
    tokens = mask.sum(1, keepdim=True)
    weight = (rows - tokens).clamp(min=1) / (mask.shape[1] - tokens)
    return torch.where(mask.bool(), 0.0, weight.log())[:, None, None]
