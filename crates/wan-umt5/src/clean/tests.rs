use super::*;

fn check(rows: &[(&str, &str)]) {
    for (input, expected) in rows {
        assert_eq!(clean_prompt(input), *expected, "{input:?}");
    }
}

#[test]
fn full_width_forms_and_punctuation() {
    check(&[
        ("一只猫，坐在窗边。", "一只猫,坐在窗边。"),
        ("Ａ！？：（ｂ）％", "A!?:(b)%"),
        ("全角　空格", "全角 空格"),
        ("ｱｲｳ、ﾊﾟ", "アイウ、パ"),
        ("“a” ‘b’ … — ½", "\"a\" 'b' … — ½"),
        ("ﬁne oﬃce Ĳ ŉ", "fine office IJ 'n"),
    ]);
}

#[test]
fn white_space_and_controls() {
    check(&[
        ("", ""),
        (" \t\n\u{3000} ", ""),
        ("a\r\nb\rc\u{2028}d\u{85}e", "a b c d…e"),
        ("x\u{1b}[1;31mred\u{1b}[0m\u{feff}\u{7f}", "xred"),
        ("a\u{a0}\u{2003}b\u{200b}c", "a b\u{200b}c"),
        ("e\u{301}", "é"),
    ]);
}

#[test]
fn entities_are_resolved_as_in_python() {
    let rows = [
        ("&amp;amp;", "&amp;"),
        ("&ampx &copy2 &notit; &notin;", "&x ©2 ¬it; ∉"),
        ("&#0;&#x80;&#150;&#13;", "\u{fffd}€–\r"),
        ("[&#1;&#xb;&#xFFFE;&#x1FFFF;&#xFDD0;]", "[]"),
        ("&#xD800;&#x110000;&#99999999999999999999;", "\u{fffd}\u{fffd}\u{fffd}"),
        ("&#; &#x; &; & &EACUTE; &nosuch;", "&#; &#x; &; & &EACUTE; &nosuch;"),
        ("&fjlig;&NotEqualTilde;", "fj≂̸"),
    ];
    for (input, expected) in rows {
        assert_eq!(unescape_html(input), expected, "{input:?}");
    }
}

#[test]
fn a_tag_switches_the_first_round_of_entities_off() {
    // Outside of HTML names in capitals are understood as well; the two later rounds do not know them.
    check(&[("P&EACUTE;REZ", "PÉREZ"), ("<b>P&EACUTE;REZ", "<b>P&EACUTE;REZ")]);
    assert_eq!(fix_text("&lt;\n<\n&lt;"), "<\n<\n&lt;");
}

#[test]
fn mojibake_is_repaired() {
    check(&[
        ("schÃ¶n", "schön"),
        ("Ãœbung", "Übung"),
        ("Å“uvre", "œuvre"),
        ("â€œquotedâ€\u{9d}", "\"quoted\""),
        ("ÃƒÂ©", "é"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("voilÃ  le travail", "voilà le travail"),
        ("ZĆ¼rich ā‚¬50", "Zürich €50"),
        ("α╗çt Γ€", "α╗çt Γ€"),
        // Surrogate pairs and a two-byte zero, which only variants of UTF-8 have
        ("\u{ed}\u{a0}\u{bd}\u{ed}\u{b8}\u{80}", "😀"),
        ("SÃO PAULO", "SÃO PAULO"),
        ("IL Y MARQUÉ…", "IL Y MARQUÉ…"),
    ]);
}

#[test]
fn cleaning_twice_changes_nothing_more_in_plain_text() {
    for text in ["A red balloon, over green hills.", "一只猫，坐在窗边。", "“it’s” ﬁne", "naïve café"]
    {
        let once = clean_prompt(text);
        assert_eq!(clean_prompt(&once), once);
    }
}

#[test]
fn long_prompts_are_cleaned_whole() {
    let text = "café Ã© ".repeat(20_000);
    assert_eq!(clean_prompt(&text), "café é ".repeat(20_000).trim_end());
}
