"""Where the transformer's training begins: a model that shows the given image as a still, but for what noise it adds.

The residual stream has one part that carries the noisy patch to the head, one for the estimate of the clip, which the
first self-attention fills with the given frame's patch of the same place, and a free one. A second head lets each token
know how late in the clip it is. Only where training begins: every weight is trained afterwards.
"""

import math

import torch

NOISE, IMAGE = slice(0, 64), slice(64, 128)  # patches in the head's order (py, px, channel)
GIVEN, CLOCK = 128, 129
GIVEN_VALUE = 4.0


def lay(dit):
    """Changes the weights of a freshly initialised `dit` of three heads of 64."""
    with torch.no_grad():
        lay_patches(dit)
        for block in dit.blocks:
            lay_text(block)
            block.scale_shift_table[0, [2, 5], 64:] = 0.3  # gates: what blocks add to estimate and free part
        text = dit.condition_embedder.text_embedder
        text.linear_1.bias.zero_()
        text.linear_2.bias.zero_()
        text.linear_2.weight *= 4
        lay_first_attention(dit.blocks[0], dit.rope)


def lay_patches(dit):
    weight, bias = dit.patch_embedding.weight, dit.patch_embedding.bias
    weight[:130], bias[:130] = 0, 0
    head = dit.proj_out
    head.weight.zero_()
    head.bias.zero_()
    eye = torch.eye(64).view(2, 2, 16, 64)
    for py in range(2):
        for px in range(2):
            rows = slice((2 * py + px) * 16, (2 * py + px + 1) * 16)
            weight[NOISE][rows, :16, 0, py, px] = torch.eye(16)
            weight[IMAGE][rows, 20:, 0, py, px] = torch.eye(16)
    weight[GIVEN, 16:20] = GIVEN_VALUE / 16
    stream = 0.85  # RMS of the residual stream, by which the last norm divides
    head.weight[:, NOISE] = stream * eye.view(64, 64)
    head.weight[:, IMAGE] = -stream * eye.view(64, 64)
    dit.scale_shift_table *= 0.1


def lay_text(block):
    """Sentences outweigh the some 500 rows that pad them: a padding row's key is the bias, which queries turn away from."""
    attention = block.attn2
    away = torch.where(torch.arange(len(attention.to_q.bias)) % 2 == 0, 1.0, -1.0)
    attention.to_q.bias.copy_(0.5 * away)
    attention.to_k.bias.copy_(-0.1 * away)
    attention.norm_q.weight.fill_(1.3)
    attention.norm_k.weight.fill_(1.3)
    attention.add_v_proj.weight.zero_()
    attention.add_v_proj.bias.zero_()


def lay_first_attention(block, rope):
    attention = block.attn1
    q, k, v, o = attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]
    t, y, x = 0, rope.t_dim, rope.t_dim + rope.h_dim
    for layer in (q, k):
        layer.weight[:128] = 0
        layer.bias[:128] = 0
    # `logit` is what a pair of channels adds at distance nought; dividing by sqrt(head_dim) is part of attention
    side = lambda logit: math.sqrt(8 * logit)
    # head 0 looks at its own place, at the given frame
    for axis in (y, x):
        for pair, logit in enumerate((6.0, 3.0)):
            q.bias[axis + 2 * pair] = k.bias[axis + 2 * pair] = side(logit)
    given = 1 / (GIVEN_VALUE / 0.85)
    slow = t + rope.t_dim - 2
    q.bias[slow], k.weight[slow, GIVEN] = side(10.0), side(10.0) * given
    # head 1 looks at the given frame the less the later it is
    pair = 64 + t + 6
    q.bias[pair], k.weight[pair, GIVEN] = side(3.5), side(3.5) * given
    q.bias[64 + slow], k.weight[64 + slow, GIVEN] = side(1.0), side(1.0) * given
    attention.norm_q.weight.fill_(1.27)
    attention.norm_k.weight.fill_(1.27)
    v.weight[:128], v.bias[:128] = 0, 0
    v.weight[:64, IMAGE] = 0.85 * torch.eye(64)
    v.weight[64, GIVEN] = given
    o.weight[IMAGE, :128] = 0
    o.weight[IMAGE, :64] = torch.eye(64)
    o.weight[CLOCK] = 0
    o.weight[CLOCK, 64] = 2.0
    block.scale_shift_table[0, 2, IMAGE] = 1
    block.scale_shift_table[0, 2, CLOCK] = 1
