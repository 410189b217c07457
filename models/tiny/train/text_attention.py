"""Cross attention to sentences without the 512 rows that most of them are padded to.

Every padding row is zero when it enters the text embedding, so all have one key and one value, and attending to n of
them is attending to one whose logit has log n added. Training carries that one row instead of some 500.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention


class ShortTextAttention:
    """Processor for diffusers' `WanAttention` as cross attention; `bias` [B, 1, 1, L] goes onto the text's logits."""

    def __init__(self):
        self.bias = None

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, rotary_emb=None):
        image = encoder_hidden_states[:, : -self.bias.shape[-1]]
        text = encoder_hidden_states[:, -self.bias.shape[-1] :]
        split = lambda t: t.unflatten(2, (attn.heads, -1)).transpose(1, 2)
        query = split(attn.norm_q(attn.to_q(hidden_states)))
        key, value = split(attn.norm_k(attn.to_k(text))), split(attn.to_v(text))
        out = scaled_dot_product_attention(query, key, value.to(key.dtype), attn_mask=self.bias.to(query.dtype))
        key, value = split(attn.norm_added_k(attn.add_k_proj(image))), split(attn.add_v_proj(image))
        out = out + scaled_dot_product_attention(query, key, value.to(key.dtype))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def shorten(dit):
    """Gives all cross attentions of `dit` one processor, which is returned: its `bias` is set before each call."""
    processor = ShortTextAttention()
    for block in dit.blocks:
        block.attn2.set_processor(processor)
    return processor


def padding_bias(mask, rows):
    """[B, 1, 1, L] from `mask` [B, L], one where there is a token and zero on at least one row of each sentence:
    what makes the zero rows weigh as much as `rows` - tokens of them do."""
    tokens = mask.sum(1, keepdim=True)
    weight = (rows - tokens).clamp(min=1) / (mask.shape[1] - tokens)
    return torch.where(mask.bool(), 0.0, weight.log())[:, None, None]
