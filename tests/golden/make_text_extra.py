"""Writes text/clean_extra.jsonl: random strings for the text cleaning, beyond the chosen ones of clean.jsonl.

Words of many scripts, misread in single-byte encodings once or more; entities of all kinds; characters at
random. The seed is fixed. Needs ftfy 6.3:  python make_text_extra.py
"""

import html
import json
import random
from pathlib import Path

import ftfy.bad_codecs  # noqa: F401  (registers the sloppy encodings)
from golden_text import clean

WORDS = (
    "café naïve señor Zürich über schön œuvre résumé “quoted” ‘it’s’ — – … €50 £3 ½ Привет мир Ελληνικά 你好 世界 "
    "日本語 한글 😀 🎈 Čeština żółw şekil Ünïcödé français à la mode às vezes fàcil São Paulo l’humanité Việt עברית "
    "ورد हिन्दी • ™ ® © « » ª º ¿Qué? ¡Olé! ßtraße Łódź ő ű ț ș ā ē ī ģ hello world & AT&T &amp; x 100% é è ê"
).split()
ENCODINGS = (
    "latin-1 iso-8859-2 macroman cp437 sloppy-windows-1250 sloppy-windows-1251 sloppy-windows-1252 "
    "sloppy-windows-1253 sloppy-windows-1254 sloppy-windows-1257"
).split()
RANGES = [(0x20, 0x7E), (0x80, 0x17F), (0x2000, 0x206F), (0x20A0, 0x20BF), (0x300, 0x36F), (0x3000, 0x3020),
          (0xFF00, 0xFFFD), (0, 0x1F), (0x370, 0x45F), (0x2500, 0x25A0)]  # fmt: skip


def misread(rng, text, times):
    for _ in range(times):
        encoding = "sloppy-windows-1252" if rng.random() < 0.5 else rng.choice(ENCODINGS)
        text = text.encode().decode(encoding, "replace")
    return text


def some(rng, names):
    kind = rng.random()
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 5))]
    if kind < 0.35:
        return misread(rng, " ".join(words), rng.choice([1, 1, 1, 2, 3]))
    if kind < 0.6:
        return " ".join(misread(rng, w, 1) if rng.random() < 0.5 else w for w in words)
    if kind < 0.7:
        return misread(rng, " ".join(words), 1).replace("\xa0", " ")
    if kind < 0.85:
        name = rng.choice(names)
        name = rng.choice([name, name.rstrip(";"), name.upper(), name.lower()])
        number = rng.choice([rng.randint(0, 0x200), rng.randint(0, 0x110010), 0xFDD0, 0xFFFE, 0xD800])
        return rng.choice([f"a&{name}b", f"é&{name} &amp;{name}", f"x&#{number};y", f"&#x{number:x};{name}", f"&#{number}<"])
    return "".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 14)))


def main():
    rng = random.Random(11)
    names = sorted(html.entities.html5)
    texts = dict.fromkeys(some(rng, names) for _ in range(800))
    path = Path(__file__).resolve().parent / "text" / "clean_extra.jsonl"
    path.write_text("".join(json.dumps({"in": t, "out": clean(t)}) + "\n" for t in texts), encoding="ascii")


if __name__ == "__main__":
    main()
