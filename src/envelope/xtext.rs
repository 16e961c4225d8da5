//! xtext (RFC 3461, 4): `+2B` stands for `+`.

/// Decodes xtext. `None` where the text is not xtext.
pub fn decode_xtext(text: &[u8]) -> Option<Vec<u8>> {
    if memchr::memchr(b'+', text).is_none() {
        return Some(text.to_vec());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'+' {
            decoded.push(byte);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk::<2>()?;
        decoded.push(digit(high)? << 4 | digit(low)?);
        rest = after;
    }
    Some(decoded)
}

/// RFC 3461 allows upper case only.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_decoded_and_nothing_else_is_xtext() {
        let decoded = |text: &str| decode_xtext(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded("kim@acme.example").as_deref(), Some("kim@acme.example"));
        assert_eq!(decoded("car+2Bol@acme.example").as_deref(), Some("car+ol@acme.example"));
        assert_eq!(decoded("j+C3+BCrgen+3D").as_deref(), Some("jürgen="));
        assert_eq!(decoded("+2B2B").as_deref(), Some("+2B"), "decoded once");
        for raw in ["car+ol", "kim+", "kim+2", "kim+2b"] {
            assert_eq!(decoded(raw), None, "{raw}");
        }
    }
}
