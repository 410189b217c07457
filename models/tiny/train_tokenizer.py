#!/usr/bin/env python3
"""The tokenizer of `tiny`: SentencePiece Unigram pieces of a small corpus, in the form of tokenizer.json.

    python models/tiny/train_tokenizer.py
"""

import io
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

EXTRA_IDS = 8


def protobuf_field(data, wanted):
    """The first length-delimited field `wanted` of a serialised protocol buffer message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 2:
            length = varint()
            if key >> 3 == wanted:
                return data[at : at + length]
            at += length
        elif key & 7 == 0:
            varint()
        else:
            at += {1: 8, 5: 4}[key & 7]
    raise ValueError(f"no field {wanted}")


def charsmap(model):
    """ModelProto.normalizer_spec (3).precompiled_charsmap (2) of sentencepiece_model.proto"""
    return protobuf_field(protobuf_field(model, 3), 2)


def make_tokenizer(corpus):
    """A Unigram tokenizer.json built as that of google/umt5-xxl: pad 0, </s> 1, <s> 2, <unk> 3, NFKC
    charsmap, Metaspace, and `<extra_id_N>` at the end in falling order."""
    model = io.BytesIO()
    lines = [line for line in corpus.read_text(encoding="utf-8").splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=1600,
        hard_vocab_limit=False, character_coverage=1.0, byte_fallback=True, split_digits=True, pad_id=0,
        eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", normalization_rule_name="nmt_nfkc", num_threads=1,
        minloglevel=2)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = [(pieces.id_to_piece(i), round(pieces.get_score(i), 5)) for i in range(pieces.get_piece_size())]
    extra = [f"<extra_id_{i}>" for i in reversed(range(EXTRA_IDS))]
    vocab += [(token, 0.0) for token in extra]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=True))
    special = ["<pad>", "</s>", "<s>", "<unk>", *extra]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(charsmap(model.getvalue())),
        normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁"),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    for i, token in enumerate(["<pad>", "</s>", "<s>", "<unk>"]):
        assert tokenizer.token_to_id(token) == i
    return tokenizer


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    make_tokenizer(here / "corpus.txt").save(str(here / "tokenizer.json"), pretty=False)
