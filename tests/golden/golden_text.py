"""Fixtures of the text path: cleaning (ftfy, HTML entities, whitespace) and token ids."""

import html
import json
import random
import re
from pathlib import Path

import ftfy
from tokenizers import Tokenizer

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"
MAX_TOKENS = 512

PLAIN = [
    "", " ", "\n", "\t \n", "a", "A cat.", "  leading and trailing  ", "two  spaces", "tab\tand\nnewline", "a\r\nb\rc",
    "A red balloon drifts over green hills.", "MixedCASE stays MixedCASE", "16 fps, 81 frames, 512x512",
    "ends with newline\n", "multi\n\n\nline\n\tprompt", "50% off!", "C:\\path\\file", "100 °C", "50 €", "naïve café résumé",
    "Ünïcödé", "Łódź", "Привет, мир", "Γειά σου", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "안녕하세요 세계",
    "こんにちは世界", "カタカナ", "a_b-c+d=e", "<b>bold</b>", "5 < 6 && 7 > 3", "\"double\" 'single'", "#hashtag @user", "(parens) [brackets] {braces}",
    "f(x) = x^2", "~tilde~ `code`", "email@example.com", "https://example.com/?a=1&b=2",
]
CHINESE = [
    "一只猫，坐在窗边。", "你好，世界！", "镜头向左平移；人物微笑。", "（括号）", "【方括号】", "「引号」", "《书名》", "“引号”‘单引号’", "价格：１００元", "ＡＢＣ ａｂｃ １２３",
    "全角　空格", "什么？真的！", "春、夏、秋、冬", "百分之五十％", "＠用户 ＃话题 ＆ ＊", "～波浪～", "一……二", "—破折号—", "·间隔·", "￥１００", "￡１００",
    "！＂＃＄％＆＇（）＊＋，－．／", "：；＜＝＞？＠", "［＼］＾＿｀｛｜｝～", "ｱｲｳｴｵ", "ﾊﾟﾋﾟ", "ｶﾞｷﾞ", "色调艳丽，过曝，静态，细节模糊不清，字幕", "镜头晃动，", "測試繁體，中文！", "日本語、テスト。",
    "㈱会社", "①②③", "㎏ ㎡ ㎝", "Ⅳ ⅳ", "ﾞ", "￠￢￣￤￥￦", "｟｠｡｢｣､･", "한글，테스트！", "ﾡﾢﾣ", "ＦＵＬＬ　ＷＩＤＴＨ　ｔｅｘｔ",
]
QUOTES = [
    "“curly” and ‘single’", "it’s", "don´t", "„German“", "«French»", "‹single›", "‚low’", "‛reversed‟", "5′ 10″", "``tex''", "ʼmodifier", "ʻokina", "“unclosed", "rock ’n’ roll",
    "“a”“b”", "'‘mixed’'", "“她说：‘你好’”", "‟odd‟", "“”", "‘’",
]
LIGATURES = [
    "ﬁne ﬂow", "oﬃce", "eﬀect", "waﬄe", "ﬅ ﬆ", "Ĳsselmeer ĳs", "ŉ", "Ǆ ǅ ǆ", "Ǉ ǈ ǉ", "Ǌ ǋ ǌ", "Ǳ ǲ ǳ", "æ œ Æ Œ ß", "ﬓ ﬔ ﬕ", "ﬀﬁﬂﬃﬄ", "Ǳemo", "sﬁncter ﬁ ﬁ",
]
MOJIBAKE = [
    "schÃ¶n", "âœ” No problems", "l’humanitÃ©", "cafÃ©", "naÃ¯ve", "â€œquotedâ€\x9d", "itâ€™s", "itâ€s", "â€” dash â€“", "â€¦", "Ã¼ber", "Ã\xa0 la carte", "Ã la carte", "cafÃ\xa9",
    "Ã¡rbol Ã©l Ã\xadndice Ã³ Ãº", "ä½\xa0å¥½", "ä¸\xadæ–‡", "æ—¥æœ¬èªž", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "ðŸ˜€ smile", "ðŸŽˆ", "ÎµÎ»Î»Î·Î½Î¹ÎºÎ¬", "The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.",
    "voilÃ  le travail", "P.S. â™¥", "Â£100 Â©2025 Â®", "Â«texteÂ»", "Â½ Â°C", "¿QuÃ©?", "broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "ï»¿bom", "ï¬‚ow", "Ãœbung", "Ã‰cole", "Ã€ bientÃ´t",
    "ÃƒÂ©", "IL Y MARQUÉ…", "SÃO PAULO", "Â", "Ã", "â", "Ñandú", "RÃ©sumÃ© â€“ CV", "å", "Å›wiat", "Ĺ›", "ÐœÐ¾Ñ�ÐºÐ²Ð°", "doesnâ\x80\x99t", "\x93quoted\x94", "caf\x82",
    "\x85 next", "\x80 euro", "â\x80\x9cx\x80\x9d", "Ã¢â‚¬â„¢", "AHÅ™, the new sofa from IKEA®", "(1 ¬Ω)", "HUHLÃ", "ÙˆØ±Ø¯", "×©×œ×•×", "Vâ€™s", "ãƒ†ã‚¹ãƒˆ", "ì•ˆë…•", "êµ", "Nicole Kidman â\x80\x93 star",
]
HTML = [
    "&amp;", "&amp;amp;", "&lt;b&gt;", "&amp;lt;b&amp;gt;", "&quot;quoted&quot;", "&amp;quot;x&amp;quot;", "it&#39;s", "it&#x27;s", "&nbsp;", "a&nbsp;b", "a&amp;nbsp;b", "&hearts; &copy; &reg;", "&eacute;&Eacute;",
    "&notanentity;", "&amp without semicolon", "AT&T", "fish & chips", "&#128512;", "&#x1F388;", "&#0;", "&#x80;", "&#150;", "&hellip;", "&ldquo;hi&rdquo;", "&lsquo;hi&rsquo;", "&amp;ldquo;hi&amp;rdquo;", "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&lt;p>mixed<p>", "<a href=\"?x=1&amp;y=2\">", "&amp;amp;amp;amp;", "&EACUTE;", "&HEARTS;", "&alpha;&beta;", "&#xFF0C;", "&#65281;", "&ensp;x&emsp;y", "&shy;", "&zwnj;&zwj;", "&rarr; up", "&frac12;", "&not; &notin; &notit;",
    "&ampx", "&ltx", "&copyx", "&#", "&#x", "&#x;", "&;", "&", "&&amp;&", "&#1234567890;", "&#xD800;", "&#13;", "x&#10;y", "x&#9;y", "&amp;#39;", "&Uuml;ber &szlig;", "<&eacute;>", "&lt;&eacute;&gt;", "&trade; &#8482;",
]
CONTROL = [
    "null\x00byte", "bell\x07", "back\x08space", "esc\x1b[31mred\x1b[0m", "\x1b[1;32mgreen\x1b[m text", "\x7fdel", "vt\x0bff\x0c", "\x1cfs\x1dgs\x1ers\x1fus", "zero\u200bwidth", "zwj\u200dx", "zwnj\u200cx", "\ufeffbom", "in\ufeffside",
    "lrm\u200e rlm\u200f", "\u202aembed\u202c", "\u2066iso\u2069", "soft\u00adhyphen", "word\u2060joiner", "line\u2028sep", "para\u2029sep", "nel\u0085x", "nbsp\u00a0x", "nnbsp\u202fx", "figure\u2007x", "thin\u2009x hair\u200ax", "em\u2003x en\u2002x",
    "ogham\u1680x", "ideo\u3000graphic", "mvs\u180ex", "\u206a\u206f", "\ufff9anchor\ufffa\ufffb", "\ufffd replacement", "\ue000 private", "tag\U000e0041", "\x1b]0;title\x07x", "\x1b", "\x1b[", "a\u0301 combining", "e\u0301\u0323", "n\u0303", "\u1112\u1161\u11ab",
    "\u212b angstrom", "\u2126 ohm", "\u0344", "\u0958", "\u2011 nbhyphen", "x\u00a0\u00a0y", "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008x", "\x01\x02\x03", "tail\x00", "\r", "\r\n\r\n", "\u061c", "\u115f\u1160",
]
SYMBOLS = [
    "…", "wait... what…", "—", "–", "a—b–c-d", "½ ¼ ¾", "² ³ ¹", "™ ® ©", "→ ← ↑ ↓", "★☆", "♥ ♦", "• bullet", "× ÷ ±", "≤ ≥ ≠", "∞ √", "° ′ ″", "№ 5", "§ 1", "¿? ¡!", "€ £ ¥", "𝓕𝓪𝓷𝓬𝔂", "𝐁𝐨𝐥𝐝", "ⓐⓑⓒ", "🄰🄱", "ᴴᴰ",
    "🎈", "👍🏽", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "❤️", "1️⃣", "😀😃😄", "🏳️‍🌈", "☀️ sun", "✔ ✔️", "a🎈b", "🎥 camera pans 📷", "𠮷野家", "｡◕‿◕｡", "¯\\_(ツ)_/¯", "( ͡° ͜ʖ ͡°)", "Z̷a̷l̷g̷o̷", "ﷺ", "﷼", "٪", "１２３٤٥", "㍿", "℃ ℉", "ﬀ™", "ſ long s",
]


def clean(text):
    """ftfy, entities twice, then runs of whitespace to one space: Wan2.1's tokenizers.py, `whitespace`."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def composed(count):
    """Several kinds in one string, as prompts pasted from web pages have them."""
    rng = random.Random(7)
    kinds = [PLAIN, CHINESE, QUOTES, LIGATURES, MOJIBAKE, HTML, CONTROL, SYMBOLS]
    gaps = [" ", "  ", "\n", "\t", "\u3000", "\u00a0", ", ", "，", "&nbsp;", ""]
    out = []
    while len(out) < count:
        parts = [rng.choice(rng.choice(kinds)) for _ in range(rng.randint(2, 4))]
        out.append("".join(p + rng.choice(gaps) for p in parts))
    return out


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="ascii")


def encode(tokenizer, text):
    """Ids with `</s>`, cut to 512 including it."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return ids[: MAX_TOKENS - 1] + [1]


def make_text(root):
    single = [s for kind in (PLAIN, CHINESE, QUOTES, LIGATURES, MOJIBAKE, HTML, CONTROL, SYMBOLS) for s in kind]
    rows = [{"in": s, "out": clean(s)} for s in dict.fromkeys(single + composed(90))]
    jsonl(root / "text" / "clean.jsonl", rows)

    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    corpus = [line for line in (TINY / "corpus.txt").read_text(encoding="utf-8").splitlines() if line]
    texts = corpus[::3] + [r["out"] for r in rows[::7]] + ["", " ", "<pad>", "</s>", "a <extra_id_0> b", "▁", "a ▁b", "x" * 700,
        "word " * 600, "猫" * 520, "🎈" * 140, " ".join(corpus), "A|B", "Ａ，ｂ", "two  spaces   three", "tail  "]
    rows = [{"text": t, "ids": encode(tokenizer, t)} for t in dict.fromkeys(texts)]
    jsonl(root / "text" / "tokens.jsonl", rows)
