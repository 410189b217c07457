#!/usr/bin/env python3
"""The shortened text gives what diffusers' own attention gives on all 512 rows, in values and in gradients."""

import torch
from models import DIT, build
from text_attention import padding_bias, shorten

torch.manual_seed(0)
whole, short = (build("dit", DIT | {"num_layers": 2}, seed=2) for _ in range(2))
processor = shorten(short)
mask = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
text = torch.randn(3, 5, DIT["text_dim"]) * mask.unsqueeze(-1)
processor.bias = padding_bias(mask, DIT["text_len"])
x, image, sigma = torch.randn(3, 36, 3, 4, 6), torch.randn(3, 257, DIT["image_dim"]), torch.tensor([100.0, 500.0, 900.0])
padded = torch.nn.functional.pad(text, (0, 0, 0, DIT["text_len"] - text.shape[1]))
want = whole(x, sigma, padded, image, return_dict=False)[0]
found = short(x, sigma, text, image, return_dict=False)[0]
torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
want.square().mean().backward()
found.square().mean().backward()
for (name, a), b in zip(short.named_parameters(), whole.parameters()):
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6, msg=name)
print("equal")
