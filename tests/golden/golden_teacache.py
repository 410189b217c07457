"""TeaCache: the steps in which the blocks run, decided by the published forward itself.

The forward and its coefficients come from TeaCache4Wan2.1/teacache_generate.py of a checkout of
https://github.com/ali-vilab/TeaCache; everything around the decision is replaced by stand-ins.
"""

import ast
import contextlib
import json
import types

import numpy as np
import torch

# in the order in which the script assigns them
MODELS = [
    ("t2v-1.3b", "e0"),
    ("t2v-14b", "e0"),
    ("t2v-1.3b", "e"),
    ("t2v-14b", "e"),
    ("i2v-14b-480p", "e0"),
    ("i2v-14b-720p", "e0"),
    ("i2v-14b-480p", "e"),
    ("i2v-14b-720p", "e"),
]
STEPS = (4, 10, 20)
THRESHOLDS = (0.05, 0.13, 0.26)
VALUES = 6  # of a signal: [1, 6] as an embedding, [1, 6, 1] as a projection


def reference(repo):
    """The forward as a function, and all lists of coefficients."""
    tree = ast.parse((repo / "TeaCache4Wan2.1" / "teacache_generate.py").read_text())
    forward = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "teacache_forward")
    scope = dict(
        torch=torch,
        np=np,
        amp=types.SimpleNamespace(autocast=lambda dtype: contextlib.nullcontext()),
        sinusoidal_embedding_1d=lambda dim, t: t,
    )
    exec(compile(ast.Module([forward], []), "teacache_forward", "exec"), scope)
    assigned = [
        n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "attr", "") == "coefficients"
    ]
    lists = [ast.literal_eval(n.value) for n in sorted(assigned, key=lambda n: n.lineno)]
    assert len(lists) == len(MODELS)
    return scope["teacache_forward"], lists


class Patch:
    weight = torch.zeros(1)

    def __call__(self, x):
        return x


def computed(forward, coefficients, mode, threshold, signals):
    """For each step, whether the blocks ran; the prompts' two passes always agree."""
    steps, runs = len(signals), []
    retained = mode == "e0"
    model = types.SimpleNamespace(
        model_type="t2v",
        patch_embedding=Patch(),
        freqs=torch.zeros(1),
        freq_dim=1,
        dim=1 if retained else VALUES,
        text_len=1,
        text_embedding=lambda t: t,
        # the timestep is the signal itself
        time_embedding=lambda t: t,
        time_projection=lambda t: t if retained else t.repeat(1, 6),
        blocks=[lambda x, **_: runs.append(True) or x + 1],
        head=lambda x, e: x,
        unpatchify=lambda x, sizes: x,
        enable_teacache=True,
        cnt=0,
        num_steps=2 * steps,
        teacache_thresh=threshold,
        accumulated_rel_l1_distance_even=0,
        accumulated_rel_l1_distance_odd=0,
        previous_e0_even=None,
        previous_e0_odd=None,
        previous_residual_even=None,
        previous_residual_odd=None,
        use_ref_steps=retained,
        coefficients=coefficients,
        ret_steps=5 * 2 if retained else 1 * 2,
        cutoff_steps=2 * steps if retained else 2 * steps - 2,
    )
    found = []
    for signal in signals:
        passes = []
        for _ in range(2):
            runs.clear()
            forward(model, [torch.zeros(1, 1, 1, 1)], torch.tensor([signal]), [torch.zeros(1, 1)], 1)
            passes.append(bool(runs))
        assert passes[0] == passes[1]
        found.append(passes[0])
    return found


def make_teacache(root, repo):
    forward, lists = reference(repo)
    folder = root / "teacache"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(9)
    cases = []
    for (model, mode), coefficients in zip(MODELS, lists):
        for steps in STEPS:
            for threshold in THRESHOLDS:
                scale = generator.uniform(0.02, 0.15)
                moves = generator.normal(size=(steps, VALUES)) * scale * generator.uniform(0.3, 1.7, size=(steps, 1))
                moves[0] = generator.normal(size=VALUES)
                signals = np.cumsum(moves, axis=0).astype(np.float32).tolist()
                case = dict(model=model, mode=mode, coefficients=coefficients, threshold=threshold, signals=signals)
                case["computed"] = computed(forward, coefficients, mode, threshold, signals)
                cases.append(case)
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    (folder / "steps.json").write_text(f"[\n{text}\n]\n")
