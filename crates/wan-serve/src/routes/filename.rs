//! Names of uploaded files outside of ASCII.

use axum::http::HeaderValue;
use percent_encoding::percent_decode;

/// The file's name in `filename*=utf-8'LANGUAGE'PERCENT-ENCODED` of a content disposition, which wins over `filename`;
/// `None` if there is none, or none in UTF-8 (RFC 5987, RFC 6266).
pub(super) fn extended_filename(disposition: &HeaderValue) -> Option<String> {
    let pairs = parameters(disposition.as_bytes()).into_iter().filter_map(|parameter| {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        Some((parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii()))
    });
    let (_, value) = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(b"filename*"))?;
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let name = percent_decode(encoded).decode_utf8().ok()?;
    charset.eq_ignore_ascii_case(b"utf-8").then(|| name.into_owned())
}

/// The parts between semicolons; those in quotes separate nothing.
fn parameters(disposition: &[u8]) -> Vec<&[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = disposition.split(|byte| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => escaped = quoted,
            b';' => return !quoted,
            _ => {}
        }
        false
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extended_name_is_found_and_decoded() {
        let rows = [
            ("form-data; name=\"image\"; filename*=utf-8''%E5%A5%B3.png", Some("女.png")),
            ("form-data; filename=\"x.png\"; FileName* = UTF-8'zh'%E5%A5%B3.png; name=image", Some("女.png")),
            ("form-data; name=\"image\"; filename=\"x.png\"", None),
            ("form-data; filename=\"a; filename*=utf-8''b\\\"; filename*=utf-8''c\"", None),
            ("form-data; filename*=latin-1''%FC.png", None),
            ("form-data; filename*=utf-8''%FC.png", None),
            ("form-data; filename*=x.png", None),
        ];
        for (disposition, expected) in rows {
            let found = extended_filename(&HeaderValue::from_str(disposition).expect("a header"));
            assert_eq!(found.as_deref(), expected, "{disposition}");
        }
    }
}
