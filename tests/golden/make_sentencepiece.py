"""SentencePiece models and their token ids: python tests/golden/make_sentencepiece.py  (needs the package protobuf)

`sentencepiece/<name>.model` are trained on models/tiny's corpus; `sentencepiece/<name>.jsonl` has, for each text,
the ids of the sentencepiece library and those of the tokenizer that transformers' T5 conversion makes of the
same file, both with `</s>` appended and nothing added in front.
"""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import sentencepiece
from transformers.convert_slow_tokenizer import T5Converter

ROOT = Path(__file__).parent
CORPUS = ROOT.parent.parent / "models/tiny/corpus.txt"

# As google/umt5-xxl has it: bytes for what the vocabulary lacks, NFKC, these special ids. And the other choices.
MODELS = {
    "umt5": dict(vocab_size=1200, byte_fallback=True, split_digits=True, normalization_rule_name="nmt_nfkc",
                 pad_id=0, eos_id=1, bos_id=2, unk_id=3),
    "plain": dict(vocab_size=900, byte_fallback=False, normalization_rule_name="identity",
                  pad_id=0, eos_id=1, bos_id=-1, unk_id=2),
}

TEXTS = [
    "", " ", "   ", "a", "a red balloon rises", "A Red BALLOON rises, slowly.", "  two  spaces   inside and at both ends  ",
    "tab\tand\nnewline\r\nhere", "no-break\u00a0space, ideographic\u3000space, zero\u200bwidth", "\ufeffbyte order mark",
    "一只猫在草地上奔跑", "镜头缓缓推进，光影柔和。", "a cat 猫 and a dog 狗 in 4K, 超高清", "色调艳丽，过曝，静态，细节模糊不清",
    "full width ＡＢＣ １２３ ！？", "ﬁne ligatures ﬂow", "½ cup, x², ㎏, Ⅳ, ①", "e\u0301 composed é", "ｶﾞ half width", "émigré naïve façade",
    "🎈", "a 🎈 rises 🎉🎉", "family 👨‍👩‍👧‍👦 and flag 🇩🇪", "skin 👍🏽", "𓀀 hieroglyph, 𝔉raktur, 𝟘", "Ω ≈ ç √ ∫ ˜ µ",
    "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดี", "안녕하세요", "Привет, мир", "日本語のテキスト",
    "12345 67.89 1,000", "http://example.com/a?b=c&d=e", "(masterpiece:1.2), [best quality], {detail}", "\"quotes\" 'single' “curly” …",
    "don't can't won't", "snake_case CamelCase kebab-case", "a" * 60, "red " * 40, "\u0001control\u0002", "~`!@#$%^&*()_+-={}|[]\\:;<>?,./",
    "trailing space ", " leading space", "x\u0300\u0301\u0302\u0303", "\U0010ffff", "a\u2028b\u2029c",
]


def train(options):
    lines = [line for line in CORPUS.read_text(encoding="utf-8").splitlines() if line.strip()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", hard_vocab_limit=False,
        character_coverage=1.0, pad_piece="<pad>", num_threads=1, minloglevel=2, **options)
    return model.getvalue()


def converted(path, byte_fallback):
    """transformers' fast tokenizer of a T5 model, with the conversion's own switch for bytes set as in the model."""
    converter = T5Converter(SimpleNamespace(vocab_file=str(path), _extra_ids=0, convert_tokens_to_ids=lambda token: 1))
    converter.handle_byte_fallback = byte_fallback
    return converter.converted()


def main():
    for name, options in MODELS.items():
        path = ROOT / f"sentencepiece/{name}.model"
        path.write_bytes(train(options))
        own = sentencepiece.SentencePieceProcessor(model_file=str(path))
        fast = converted(path, options["byte_fallback"])
        rows = [{"text": t, "sentencepiece": own.encode(t) + [own.eos_id()],
                 "transformers": fast.encode(t).ids} for t in TEXTS]
        differ = [r["text"] for r in rows if r["sentencepiece"] != r["transformers"]]
        print(name, path.stat().st_size, "bytes,", len(rows), "texts; the libraries differ on", differ)
        lines = [json.dumps(r, ensure_ascii=False) for r in rows]
        (ROOT / f"sentencepiece/{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
