use super::*;
use proptest::prelude::*;

#[test]
fn a_transaction_starts_with_its_queue_id() {
    let line = LogLine::transaction(Some("3F2A1C0"))
        .field("verdict", "defer")
        .field("recipients", 3)
        .optional("user", None::<&str>)
        .optional("helo", Some("mx.acme.example"));
    assert_eq!(line.finish(), "3F2A1C0: verdict=defer recipients=3 helo=mx.acme.example");
    assert_eq!(LogLine::transaction(None).field("verdict", "reject").finish(), "NOQUEUE: verdict=reject");
    assert_eq!(LogLine::transaction(Some("")).finish(), "NOQUEUE:");
}

#[test]
fn a_strange_queue_id_is_only_a_value() {
    let line = LogLine::transaction(Some("A: verdict=accept\n")).finish();
    assert_eq!(line, r#"NOQUEUE: queue_id="A: verdict\x3daccept\n""#);
}

#[test]
fn an_event_is_a_field_too() {
    assert_eq!(LogLine::event("reload").field("customers", 12).finish(), "event=reload customers=12");
}

#[test]
fn values_are_quoted_only_when_they_must_be() {
    let shown = |value: &str| LogLine::event("x").field("v", value).finish()["event=x v=".len()..].to_owned();
    assert_eq!(shown("<ann+tag@acme.example>"), "<ann+tag@acme.example>");
    assert_eq!(shown(""), r#""""#);
    assert_eq!(shown("two words"), r#""two words""#);
    assert_eq!(shown(r#"say "hi""#), r#""say \"hi\"""#);
    assert_eq!(shown(r"back\slash"), r#""back\\slash""#);
    assert_eq!(shown("x verdict=accept"), r#""x verdict\x3daccept""#);
    assert_eq!(shown("a\r\nb\tc\0"), r#""a\r\nb\tc\x00""#);
    assert_eq!(shown("bücher"), r#""b\u{fc}cher""#);
}

#[test]
fn long_values_are_cut_and_say_so() {
    let line = LogLine::event("x").field("helo", "a".repeat(1000)).finish();
    assert_eq!(line, format!("event=x helo=\"{}\"+744", "a".repeat(256)));
    let line = LogLine::event("x").field("helo", format_args!("{}é{}", "a".repeat(255), "b")).finish();
    assert_eq!(line, format!("event=x helo=\"{}\"+3", "a".repeat(255)));
}

#[test]
fn a_line_is_bounded_and_small_fields_still_fit() {
    let mut line = LogLine::transaction(Some("3F2A1C0"));
    for _ in 0..100 {
        line = line.field("helo", "\u{1}".repeat(256));
    }
    let text = line.field("ref", "K7Q2-9FTM-XW").finish();
    assert!(text.len() <= MAX_LINE, "{}", text.len());
    assert!(text.ends_with(" ref=K7Q2-9FTM-XW omitted_fields=93"), "{}", &text[text.len() - 80..]);
}

#[test]
fn text_keeps_its_words_and_loses_its_line_breaks() {
    let line = LogLine::text("cannot read \"a b\": x = 1\nNOQUEUE: verdict=accept").finish();
    assert_eq!(line, r#"cannot read "a b": x = 1\nNOQUEUE: verdict=accept"#);
    assert_eq!(LogLine::text("x".repeat(3000)).finish(), format!("{}+952", "x".repeat(2048)));
}

proptest! {
    #[test]
    fn whatever_a_client_said_reads_back_and_forges_nothing(
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        words in prop::collection::vec("\\PC{0,40}[ =\"\\\\\n]?(verdict=accept)?", 0..6),
    ) {
        let mut line = LogLine::transaction(None);
        for value in &values {
            line = line.bytes("b", value);
        }
        for word in &words {
            line = line.field("w", word);
        }
        let text = line.finish();
        prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
        prop_assert_eq!(text.matches('=').count(), values.len() + words.len(), "{}", &text);
        let read = read_fields(text.strip_prefix("NOQUEUE:").unwrap());
        let expected: Vec<(&str, &[u8])> = (values.iter().map(|value| ("b", &value[..])))
            .chain(words.iter().map(|word| ("w", word.as_bytes())))
            .collect();
        prop_assert_eq!(read.len(), expected.len());
        for (field, (key, value)) in read.iter().zip(expected) {
            prop_assert_eq!(&field.key, key);
            prop_assert!(value.starts_with(&field.value));
            prop_assert_eq!(field.value.len() + field.left_out, value.len());
            prop_assert!(field.left_out == 0 || field.value.len() > MAX_VALUE - 4);
        }
    }
}

struct Field {
    key: String,
    value: Vec<u8>,
    left_out: usize,
}

/// The reference reader, written from the description at the head of this file.
fn read_fields(mut text: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    while let Some(field) = text.strip_prefix(' ') {
        let (key, mut rest) = field.split_once('=').unwrap();
        let mut value = Vec::new();
        let mut left_out = 0;
        if let Some(mut quoted) = rest.strip_prefix('"') {
            while !quoted.starts_with('"') {
                quoted = read_character(quoted, &mut value);
            }
            rest = &quoted[1..];
            if let Some(cut) = rest.strip_prefix('+') {
                let end = cut.find(' ').unwrap_or(cut.len());
                left_out = cut[..end].parse().unwrap();
                rest = &cut[end..];
            }
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            value.extend_from_slice(&rest.as_bytes()[..end]);
            rest = &rest[end..];
        }
        fields.push(Field { key: key.to_owned(), value, left_out });
        text = rest;
    }
    assert_eq!(text, "");
    fields
}

fn read_character<'a>(text: &'a str, value: &mut Vec<u8>) -> &'a str {
    let Some(escape) = text.strip_prefix('\\') else {
        value.push(text.as_bytes()[0]);
        return &text[1..];
    };
    let (byte, rest) = match escape.as_bytes()[0] {
        b'n' => (b'\n', &escape[1..]),
        b'r' => (b'\r', &escape[1..]),
        b't' => (b'\t', &escape[1..]),
        b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), &escape[3..]),
        b'u' => {
            let (digits, rest) = escape[2..].split_once('}').unwrap();
            let character = char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap();
            value.extend_from_slice(character.to_string().as_bytes());
            return rest;
        }
        itself => (itself, &escape[1..]),
    };
    value.push(byte);
    rest
}
