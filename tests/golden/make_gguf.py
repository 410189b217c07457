"""GGUF files and blocks as gguf-py has them. Needs numpy, safetensors, sentencepiece, protobuf and gguf 0.19.

    python tests/golden/make_gguf.py

Writes foreign/gguf_blocks.safetensors (a few blocks of each format and their values), foreign/umt5_llama_cpp.gguf (the text
encoder of make_foreign.py, which is run first, under llama.cpp's names), and sentencepiece/<name>.gguf, which has as its only
contents the vocabulary of <name>.model, as llama.cpp's conversion of a T5 model writes it.
"""

from pathlib import Path

import gguf
import numpy
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2

ROOT = Path(__file__).parent / "foreign"
VOCABULARIES = Path(__file__).parent / "sentencepiece"
# Rows of an embedding beyond the pieces; a conversion gives them names of its own.
SPARE_ROWS = 7
LAYERS = 64
# Where a block has its f16 factors.
FACTORS = {
    Kind.Q4_0: [0], Kind.Q4_1: [0, 2], Kind.Q5_0: [0], Kind.Q5_1: [0, 2], Kind.Q8_0: [0],
    Kind.Q2_K: [80, 82], Kind.Q3_K: [108], Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [208],
}


def blocks():
    """Blocks of random codes, all of which a format can have, and factors that are numbers."""
    random = numpy.random.default_rng(21)
    out = {}
    for kind, factors in FACTORS.items():
        values, size = gguf.GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, (2, 512 // values, size), dtype=numpy.uint8)
        for at in factors:
            numbers = random.normal(0, 0.05, stored.shape[:2]).astype(numpy.float16)
            stored[:, :, at:at + 2] = numbers[..., None].view(numpy.uint8)
        stored = stored.reshape(2, -1)
        out[f"{kind.name}.blocks"] = stored
        out[f"{kind.name}.values"] = gguf.quants.dequantize(stored, kind).astype(numpy.float32)
    save_file(out, ROOT / "gguf_blocks.safetensors")


def add_vocabulary(writer, name):
    model = sentencepiece_model_pb2.ModelProto.FromString((VOCABULARIES / f"{name}.model").read_bytes())
    # A conversion does not ask which pieces users defined.
    types = [gguf.TokenType.NORMAL if p.type == p.USER_DEFINED else p.type for p in model.pieces]
    spare = range(SPARE_ROWS)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.piece.encode() for p in model.pieces] + [f"[PAD{i}]".encode() for i in spare])
    writer.add_token_scores([p.score for p in model.pieces] + [-10000.0 for _ in spare])
    writer.add_token_types(types + [gguf.TokenType.UNUSED for _ in spare])
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    if model.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def text_encoder():
    writer = gguf.GGUFWriter(ROOT / "umt5_llama_cpp.gguf", "t5encoder")
    add_vocabulary(writer, "plain")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, LAYERS)
    for name, tensor in load_file(ROOT / "umt5_comfy.safetensors").items():
        if name == "spiece_model":
            continue
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    write(writer)


def vocabulary(name):
    writer = gguf.GGUFWriter(VOCABULARIES / f"{name}.gguf", "t5encoder")
    add_vocabulary(writer, name)
    write(writer)


blocks()
text_encoder()
vocabulary("umt5")
vocabulary("plain")
