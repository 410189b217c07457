#!/usr/bin/env python3
"""The jobs of tests/gpu/run.sh in PyTorch on the same GPU, for ratios side by side.

    python tests/gpu/peer_torch.py PHASE ... --out FILE.jsonl [--dit FILE] [--vae FILE] [--size WxHxFRAMES ...]

Phases:
    roofline   matrix products at the DiT's shapes: bf16, FP8 tensor-wise and row-wise; copies, host link
    attention  scaled_dot_product_attention at the DiT's shapes, cuDNN and flash backends
    dit        a denoising step (two forwards) of diffusers' WanTransformer3DModel on the weights of --dit:
               eager, torch.compile of the repeated block, eager with flash attention at the first size, and FP8
               linears (torch._scaled_mm, row-wise dynamic activations) compiled; attention is otherwise what PyTorch
               chooses by itself, which is told first
    warm       compiles what `dit` will compile, on the first block: for the caches alone
    blocks     reference values: the first blocks of --dit in float32 (FP8 weights widened), inputs and outputs of
               each block and the velocity, to --reference FILE.safetensors
    convolution  the VAE decoder's 3x3x3 convolutions, cuDNN's choice for bf16 channels last
    vae        decode and encode of AutoencoderKLWan on --vae, bf16 channels last, whole and in tiles

One JSON line a figure, written as soon as it is known; a phase that fails writes its error and the next one runs.
Times are CUDA events, median of --runs after warm-up. Needs torch, safetensors and diffusers. `--device cpu` with
small files runs the same code without a GPU, untimed figures and all, to try the script.
"""

import argparse
import contextlib
import gc
import json
import statistics
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
import reference  # noqa: E402

DIM, FFN, HEADS, HEAD_DIM = 5120, 13824, 40, 128
TEXT, IMAGE = (512, 4096), (257, 1280)
TILE = dict(tile_sample_min_height=272, tile_sample_min_width=272, tile_sample_stride_height=144,
            tile_sample_stride_width=128)
HOST_COPY = 300 << 20  # bytes, as in wan-run bench


class Bench:
    """Times functions on the device and writes what it measures."""

    def __init__(self, args):
        self.device = torch.device(args.device)
        self.runs = args.runs
        self.out = open(args.out, "a", buffering=1)
        self.stamp = {"torch": torch.__version__, "device": args.device}
        if self.cuda:
            self.stamp |= {"device": torch.cuda.get_device_name(), "cudnn": torch.backends.cudnn.version(),
                           "cuda": torch.version.cuda}

    @property
    def cuda(self):
        return self.device.type == "cuda"

    def write(self, name, **figures):
        line = json.dumps({"peer": "torch", "name": name, **figures, **self.stamp})
        print(line, flush=True)
        self.out.write(line + "\n")

    def time(self, name, run, flops=None, moved=None, runs=None, warm=2, first=None):
        """Median milliseconds of `run`, after `first` or itself as warm-up; with its operations or bytes, the rate."""
        try:
            for _ in range(warm):
                (first or run)()
            times = [self._once(run) for _ in range(runs or self.runs)]
        except Exception as error:  # one figure that cannot be had must not cost the others
            self.write(name, error=f"{type(error).__name__}: {error}"[:400])
            return None
        median = statistics.median(times)
        rates = {}
        if flops:
            rates["tflops"] = round(flops / median / 1e9, 1)
        if moved:
            rates["gb_s"] = round(moved / median / 1e6, 1)
        self.write(name, median_ms=round(median, 4), min_ms=round(min(times), 4), max_ms=round(max(times), 4), **rates)
        return median

    def _once(self, run):
        if not self.cuda:
            began = time.perf_counter()
            run()
            return (time.perf_counter() - began) * 1e3
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def randn(self, *shape, dtype=torch.bfloat16, seed=0):
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32).to(dtype)

    @contextlib.contextmanager
    def peak(self, name):
        """Writes the peak of allocated memory inside."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        yield
        if self.cuda:
            self.write(f"{name} peak", gb=round(torch.cuda.max_memory_allocated() / 1e9, 2))


def tokens(size):
    width, height, frames = size
    return ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)


def label(size):
    return "x".join(map(str, size))


# ---------------------------------------------------------------------------------------------------
# products and attention


def quantise_rows(x):
    """e4m3 with one scale a row."""
    scale = (x.abs().amax(-1, keepdim=True).float() / 448.0).clamp(min=1e-12)
    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def scaled_mm(quantised, weight, ones, bias=None):
    x, scale = quantised
    return torch._scaled_mm(x, weight.t(), scale_a=scale, scale_b=ones, bias=bias, out_dtype=torch.bfloat16,
                            use_fast_accum=True)


def roofline(bench, args):
    compiled_quantise = torch.compile(quantise_rows, dynamic=False)
    for size in args.size:
        m = tokens(size)
        for n, k in [(3 * DIM, DIM), (DIM, DIM), (FFN, DIM), (DIM, FFN)]:
            flops, name = 2 * m * n * k, f"{m}x{n}x{k}"
            x, w = bench.randn(m, k), bench.randn(n, k, seed=1) * 0.02
            bench.time(f"gemm bf16 {name}", lambda: F.linear(x, w), flops)
            (xq, xs), wq = quantise_rows(x), bench.randn(n, k, seed=1).to(torch.float8_e4m3fn)
            stored = w.to(torch.float8_e4m3fn)
            one = torch.ones((), device=bench.device)
            ones = torch.ones(1, n, device=bench.device)
            for fast in (True, False):
                mode = "fast" if fast else "exact"
                product = dict(out_dtype=torch.bfloat16, use_fast_accum=fast)
                bench.time(f"gemm fp8 tensor-wise {mode} {name}",
                           lambda: torch._scaled_mm(xq, wq.t(), scale_a=one, scale_b=one, **product), flops)
                bench.time(f"gemm fp8 row-wise {mode} {name}",
                           lambda: torch._scaled_mm(xq, wq.t(), scale_a=xs, scale_b=ones, **product), flops)
            bench.time(f"quantise rows {m}x{k}", lambda: quantise_rows(x), moved=m * k * 3)
            # As a layer does it: its input is rounded every time.
            bench.time(f"linear fp8 compiled {name}",
                       lambda: scaled_mm(compiled_quantise(x), stored, ones), flops)
            del x, w, xq, xs, wq, stored
    count = 1 << (30 if bench.cuda else 20)
    a = torch.empty(count, dtype=torch.float32, device=bench.device).normal_()
    b = torch.empty_like(a)
    bench.time("copy on the device", lambda: b.copy_(a), moved=8 * count)
    few = min(HOST_COPY // 4, count)
    host, part = torch.ones(few, dtype=torch.float32, pin_memory=bench.cuda), b[:few]
    bench.time("host to device, pinned", lambda: part.copy_(host, non_blocking=True), moved=4 * few)
    bench.time("device to host, pinned", lambda: host.copy_(part, non_blocking=True), moved=4 * few)


def attention(bench, args):
    backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
    attend = F.scaled_dot_product_attention
    for size in args.size:
        length = tokens(size)
        # A token's heads behind each other, as a model's products leave them.
        rows = lambda count, seed: bench.randn(1, count, HEADS, HEAD_DIM, seed=seed).transpose(1, 2)
        q, k, v = (rows(length, seed) for seed in (0, 1, 2))
        text, image = ([rows(count, seed) for seed in (3, 4)] for count in (TEXT[0], IMAGE[0]))
        flops = lambda keys: 4 * length * keys * HEADS * HEAD_DIM
        scale = HEAD_DIM**-0.5
        for name, backend in backends.items():
            with sdpa_kernel(backend):
                # Scaled as in wan-run bench.
                bench.time(f"attention {name} {length}x{length}", lambda: attend(q, k, v, scale=3 * scale), flops(length))
                keys = TEXT[0] + IMAGE[0]
                bench.time(f"attention {name} {length}x{keys}",
                           lambda: attend(q, *text, scale=scale) + attend(q, *image, scale=scale), flops(keys))


# ---------------------------------------------------------------------------------------------------
# the transformer


def read(path):
    """Every tensor of a safetensors file, and its metadata."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def dit_config(state, metadata):
    """wan-run's configuration keys: from the header, or from the shapes of a checkpoint in original naming."""
    if "config" in metadata:
        return json.loads(metadata["config"])
    dim = state["patch_embedding.weight"].shape[0]
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    return dict(model_type="i2v" if "img_emb.proj.1.weight" in state else "t2v", dim=dim, num_layers=layers,
                ffn_dim=state["blocks.0.ffn.0.weight"].shape[0], freq_dim=state["time_embedding.0.weight"].shape[1],
                in_dim=state["patch_embedding.weight"].shape[1], out_dim=16, num_heads=dim // HEAD_DIM,
                text_dim=state["text_embedding.0.weight"].shape[1], text_len=TEXT[0], image_dim=IMAGE[1])


def load_dit(path, device, dtype, layers=None):
    """diffusers' transformer on the file's weights, widened to `dtype`."""
    state, metadata = read(path)
    config = dit_config(state, metadata)
    if layers:
        config["num_layers"] = min(layers, config["num_layers"])
    wanted = lambda name: not name.startswith("blocks.") or int(name.split(".")[1]) < config["num_layers"]
    state = {name: tensor.to(device).to(dtype) for name, tensor in state.items() if wanted(name)}
    with torch.device("meta"):
        model = reference.build_dit(config)
    # Buffers (rotary tables) are not in the checkpoint: they must not stay without storage.
    rope = type(model.rope)(config["dim"] // config["num_heads"], (1, 2, 2), model.rope.max_seq_len)
    model.load_state_dict(reference.to_hub("dit", state, config), strict=True, assign=True)
    model.rope = rope.to(device)
    return model.to(device).eval(), config


class Fp8Linear(torch.nn.Module):
    """A linear layer that multiplies in FP8: weight as stored with scale 1, activations row-wise and dynamic."""

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        self.register_buffer("weight", weight.to(torch.float8_e4m3fn))
        self.register_buffer("scale", torch.ones(1, weight.shape[0], device=weight.device))
        self.bias = linear.bias

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        q, scale = quantise_rows(rows)
        y = scaled_mm((q, scale), self.weight, self.scale, self.bias)
        return y.reshape(*x.shape[:-1], -1)


def to_fp8(model):
    """Replaces the linears inside the blocks."""
    for block in model.blocks:
        for module in list(block.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(module, name, Fp8Linear(child))


def dit_inputs(bench, config, size, dtype):
    width, height, frames = size
    shape = ((frames - 1) // 4 + 1, height // 8, width // 8)
    image = {}
    if config["model_type"] == "i2v":
        embeds = bench.randn(1, IMAGE[0], config["image_dim"], dtype=dtype, seed=3)
        image = dict(encoder_hidden_states_image=embeds)
    return dict(hidden_states=bench.randn(1, config["in_dim"], *shape, dtype=dtype),
                timestep=torch.tensor([500], device=bench.device), return_dict=False,
                encoder_hidden_states=bench.randn(1, config["text_len"], config["text_dim"], dtype=dtype, seed=2), **image)


def compiled(model):
    # Several sizes are as many graphs, not one of any size.
    model.compile_repeated_blocks(fullgraph=True, dynamic=False)


def dit(bench, args):
    model, config = load_dit(args.dit, bench.device, torch.bfloat16)
    probe = [bench.randn(1, tokens(args.size[0]) if bench.cuda else 64, HEADS, HEAD_DIM).transpose(1, 2) for _ in range(3)]
    bench.write("eager attention", backend=SDPBackend(torch._fused_sdp_choice(*probe)).name)
    del probe

    def step(name, sizes=args.size):
        for size in sizes:
            inputs = dit_inputs(bench, config, size, torch.bfloat16)
            with bench.peak(f"dit step {name} {label(size)}"):
                bench.time(f"dit step {name} {label(size)}", lambda: (model(**inputs), model(**inputs)), runs=args.steps,
                           warm=1, first=lambda: model(**inputs))

    step("eager")
    compiled(model)
    step("compiled")
    if bench.cuda:
        # What PyTorch took by itself when most published figures were made.
        with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            step("eager, flash attention", args.size[:1])
        to_fp8(model)
        step("fp8, compiled")


def warm(bench, args):
    """The compiled graph takes a block's weights as inputs: one block compiles all of them."""
    model, config = load_dit(args.dit, bench.device, torch.bfloat16, layers=1)
    compiled(model)
    for change in (lambda _: None, to_fp8):
        change(model)
        for size in args.size:
            model(**dit_inputs(bench, config, size, torch.bfloat16))


def blocks(bench, args):
    """Float32 values of the first blocks at a small size, on the same FP8-rounded weights."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the latter is on by default
    model, config = load_dit(args.dit, bench.device, torch.float32, layers=args.layers)
    size = args.size[0]
    inputs = dit_inputs(bench, config, size, torch.float32)
    kept = {"latents": inputs["hidden_states"][:, :16], "condition": inputs["hidden_states"][:, 16:],
            "text_embeds": inputs["encoder_hidden_states"], "timestep": inputs["timestep"].float()}
    if "encoder_hidden_states_image" in inputs:
        kept["image_embeds"] = inputs["encoder_hidden_states_image"]
    for index, block in enumerate(model.blocks):
        def keep(_, args, output, index=index):
            kept[f"block.{index}.in"], kept[f"block.{index}.out"] = args[0][0], output[0]
        block.register_forward_hook(keep)
    kept["velocity"] = model(**inputs)[0]
    tensors = {name: tensor.detach().float().cpu().clone().contiguous() for name, tensor in kept.items() if tensor.numel()}
    save_file(tensors, args.reference, {"config": json.dumps(config), "size": label(size)})
    for index in range(config["num_layers"]):
        update = tensors[f"block.{index}.out"] - tensors[f"block.{index}.in"]
        bench.write(f"block {index}", rms_in=tensors[f"block.{index}.in"].pow(2).mean().sqrt().item(),
                    rms_update=update.pow(2).mean().sqrt().item())


# ---------------------------------------------------------------------------------------------------
# the VAE

VAE = dict(base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
           temporal_downsample=[False, True, True])


def convolution(bench, args):
    torch.backends.cudnn.benchmark = True  # the fastest that it has
    for width, height, _ in args.size:
        for channels, frames, scale in [(384, 1, 8), (384, 2, 4), (192, 4, 2), (96, 4, 1)]:
            h, w = height // scale, width // scale
            last = dict(memory_format=torch.channels_last_3d)
            # With two frames of history; edges in space are padded by cuDNN.
            x = bench.randn(1, channels, frames + 2, h, w).contiguous(**last)
            weight = (bench.randn(channels, channels, 3, 3, 3, seed=1) * 0.02).contiguous(**last)
            bias = bench.randn(channels, seed=2)
            bench.time(f"convolution {channels} channels {frames}x{h}x{w}",
                       lambda: F.conv3d(x, weight, bias, padding=(0, 1, 1)),
                       flops=54 * frames * h * w * channels**2)
    torch.backends.cudnn.benchmark = False


def vae(bench, args):
    state, metadata = read(args.vae)
    config = json.loads(metadata["config"]) if "config" in metadata else VAE
    config = {key: config.get(key, VAE[key]) for key in VAE}
    model = reference.load("vae", config, {name: tensor.float() for name, tensor in state.items()})
    model = model.to(bench.device, torch.bfloat16)
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in last:
            parameter.data = parameter.data.contiguous(memory_format=last[parameter.dim()])
    torch.backends.cudnn.benchmark = True  # the fastest that it has
    for size in args.size:
        width, height, frames = size
        latents = bench.randn(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
        video = bench.randn(1, 3, frames, height, width).clamp(-1, 1)
        video[:, :, 1:] = 0
        with bench.peak(f"vae decode {label(size)}"):
            bench.time(f"vae decode {label(size)}", lambda: model.decode(latents, return_dict=False), runs=1, warm=1)
        model.enable_tiling(**TILE)
        with bench.peak(f"vae decode tiled {label(size)}"):
            bench.time(f"vae decode tiled {label(size)}", lambda: model.decode(latents, return_dict=False), runs=1, warm=1)
        model.disable_tiling()
        bench.time(f"vae encode {label(size)}", lambda: model.encode(video, return_dict=False), runs=1, warm=1)
    torch.backends.cudnn.benchmark = False


PHASES = {f.__name__: f for f in (roofline, attention, dit, warm, blocks, convolution, vae)}


def size(text):
    width, height, frames = map(int, text.split("x"))
    return width, height, frames


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="+", choices=PHASES, metavar="PHASE")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dit")
    parser.add_argument("--vae")
    parser.add_argument("--reference", default="reference.safetensors")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--size", type=size, nargs="+", default=[(832, 480, 81)])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1, help="timed steps of `dit`")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    bench, failed = Bench(args), False
    for name in args.phases:
        try:
            with torch.inference_mode():
                PHASES[name](bench, args)
        except Exception as error:
            failed = True
            traceback.print_exc()
            bench.write(name, error=f"{type(error).__name__}: {error}"[:400])
        gc.collect()
        if bench.cuda:
            torch.cuda.empty_cache()
    sys.exit(failed)


if __name__ == "__main__":
    main()
