"""`Forward` gives what diffusers' transformer gives. Run with python."""

import torch
from forward import Forward, padding_bias, stand_in
from models import DIT, build

dit = build("dit", DIT, seed=2)
torch.manual_seed(0)
x, timestep = torch.randn(2, 36, 3, 8, 12), torch.tensor([900.0, 300.0])
text, image = torch.randn(2, 9, DIT["text_dim"]), torch.randn(2, 257, DIT["image_dim"])
mask = torch.tensor([[1] * 8 + [0], [1] * 5 + [0] * 4])
text = text * mask[..., None]
bias = padding_bias(mask, DIT["text_len"])
with torch.no_grad():
    full = torch.nn.functional.pad(text, (0, 0, 0, DIT["text_len"] - 9))
    expected = dit(x, timestep, full, image, return_dict=False)[0]
    got = Forward(dit)(x, timestep, text, bias, image, torch.arange(3), None)
    print("largest difference", (got - expected).abs().max().item(), "of", expected.abs().max().item())
    assert torch.allclose(got, expected, atol=2e-5)
    # A frame that is there once and stands for itself changes nothing.
    assert torch.allclose(Forward(dit)(x, timestep, text, bias, image, torch.arange(3), stand_in(torch.arange(3), 3)), got, atol=1e-5)
