//! The character map of a SentencePiece model: a trie from what is written to where its replacement begins.
//!
//! The `tokenizers` crate trusts it: it allocates what the map says and indexes with what it holds. So it is
//! checked before it gets there.
//!
//! Source: sentencepiece `src/normalizer.cc`, `Normalizer::DecodePrecompiledCharsMap`; Darts-clone
//! `include/darts.h`, `DoubleArrayUnit` (bits of a unit).

/// Checks that no text leads a search out of the trie or to a replacement that is none.
///
/// `map` is the length of the trie in bytes (u32, little-endian), the trie's units (u32 each), and the replacements,
/// each ended by a NUL.
///
/// Errors: what was found and expected.
pub(crate) fn check(map: &[u8]) -> Result<(), String> {
    let (length, rest) = map.split_first_chunk::<4>().ok_or("a character map without a length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || !length.is_multiple_of(4) || length > rest.len() {
        return Err(format!(
            "a character map whose trie has {length} bytes, expected units of 4 in the {} there are",
            rest.len()
        ));
    }
    let (trie, replacements) = rest.split_at(length);
    let replacements =
        std::str::from_utf8(replacements).map_err(|e| format!("a character map's replacements: {e}"))?;
    let (units, _) = trie.as_chunks::<4>();
    let unit = |id: usize| u32::from_le_bytes(units[id]);
    for id in 0..units.len() {
        // The root is entered without a look at its label; a unit with the top bit set holds a value, no children.
        if id != 0 && unit(id) >> 31 == 1 {
            continue;
        }
        let children = id ^ offset(unit(id));
        if children | 0xff >= units.len() {
            return Err(format!(
                "a character map whose unit {id} has its children at {children}, expected them among its {} units",
                units.len()
            ));
        }
        let at = (unit(children) & !(1 << 31)) as usize;
        if has_value(unit(id)) && !replacements.is_char_boundary(at) {
            return Err(format!(
                "a character map whose unit {id} leads to byte {at}, expected the start of one of its replacements"
            ));
        }
    }
    Ok(())
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & (1 << 9)) >> 6)
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with one block of units, of which `first` come first, and the replacement `é`.
    fn map(first: &[u32]) -> Vec<u8> {
        let mut units = [0u32; 256];
        units[..first.len()].copy_from_slice(first);
        let mut map = 1024u32.to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|u| u.to_le_bytes()));
        map.extend("é\0".as_bytes());
        map
    }

    #[test]
    fn a_search_stays_inside() {
        const VALUE: u32 = 1 << 31;
        assert_eq!(check(&map(&[])), Ok(()));
        // Unit 0 has its value in unit 1.
        let leads_to = |at: u32| check(&map(&[1 << 10 | 1 << 8, VALUE | at]));
        assert_eq!(leads_to(0), Ok(()));
        assert_eq!(leads_to(3), Ok(()));
        for at in [1, 4, 1 << 30] {
            assert!(leads_to(at).unwrap_err().contains(&format!("leads to byte {at}")), "{at}");
        }
        for (offset, children) in [(256 << 10, 256), (1 << 10 | 1 << 9, 256), (u32::MAX >> 1, 0x1f_ffff00)] {
            let error = check(&map(&[offset])).unwrap_err();
            assert!(error.contains("unit 0 has its children at "), "{children}: {error}");
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        for bytes in [&b""[..], b"abc", b"\0\0\0\0", b"\x06\0\0\0abcdef", b"\xfc\xff\xff\xffabcd"] {
            assert!(check(bytes).unwrap_err().starts_with("a character map w"), "{bytes:?}");
        }
        let mut wrong = map(&[]);
        wrong.push(0xff);
        assert!(check(&wrong).unwrap_err().contains("utf-8"));
    }
}
