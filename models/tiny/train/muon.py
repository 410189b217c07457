"""Muon for matrices and convolutions, AdamW for the rest: a third of the steps, where steps are what is short.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; updates are scaled to the size of
AdamW's as in Liu et al. 2025, "Muon is scalable for LLM training" (arXiv 2502.16982).
"""

import collections
import math

import torch

# The quintic whose iteration drives singular values towards one.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonal(matrices, iterations=5):
    """The nearest matrices with all singular values about one, of a stack [N, rows, columns]."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(iterations):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, rate, momentum=0.9, decay=0.0):
        super().__init__(parameters, dict(lr=rate, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = collections.defaultdict(list)  # those of one shape go through the iteration together
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.flatten(1).shape].append((parameter, self.ahead(parameter, group["momentum"])))
            for shape, stack in alike.items():
                updates = orthogonal(torch.stack([ahead for _, ahead in stack]))
                for (parameter, _), update in zip(stack, updates):
                    parameter.mul_(1 - group["lr"] * group["decay"])
                    parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))

    def ahead(self, parameter, share):
        """Nesterov's momentum, as a matrix."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - share)
        return parameter.grad.lerp(state["momentum"], share).flatten(1)


class Optimiser:
    """Both, with one schedule: `set` takes the part of the full rates that is used."""

    def __init__(self, module, rate, adam_rate, decay=0.0):
        hidden = lambda name, p: p.dim() > 1 and min(p.shape[:2]) > 3 and not any(part in name for part in NOT_HIDDEN)
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if hidden(name, p)]
        rest = [p for name, p in named if not hidden(name, p)]
        self.parts = [Muon(matrices, rate, decay=decay),
                      torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0)]
        self.rates = [rate, adam_rate]

    def set(self, share):
        for part, rate in zip(self.parts, self.rates):
            for group in part.param_groups:
                group["lr"] = rate * share

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self):
        for part in self.parts:
            part.step()

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


# Tables and the first and last layers, whose rows are no directions of a hidden space.
NOT_HIDDEN = ("embedding.weight", "embed_tokens", "shared", "position", "relative_attention_bias", "scale_shift_table",
              "patch_embedding", "proj_out", "conv_in", "conv_out", "quant_conv", "class_embedding")
