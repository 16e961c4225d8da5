//! Messages that are known to the last byte, messages that lie, and noise.

use super::*;
use proptest::prelude::*;

/// Header and body of a message as text, LF for CRLF.
fn measure(message: &str) -> AttachmentSizes {
    let message = message.replace('\n', "\r\n");
    let whole = measure_in(message.as_bytes(), usize::MAX);
    assert_eq!(measure_in(message.as_bytes(), 1), whole, "byte by byte: {message}");
    whole
}

fn measure_in(message: &[u8], piece: usize) -> AttachmentSizes {
    let (header, body) = split_header(message);
    let mut meter = AttachmentMeter::new();
    for field in fields(header) {
        let colon = field.iter().position(|&byte| byte == b':').unwrap_or(0);
        meter.header(&field[..colon], &field[(colon + 1).min(field.len())..]);
    }
    body.chunks(piece.min(body.len().max(1))).for_each(|piece| meter.body(piece));
    meter.finish()
}

fn split_header(message: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(message, b"\r\n\r\n") {
        Some(end) => (&message[..end + 2], &message[end + 4..]),
        None => (message, b""),
    }
}

/// As an MTA hands them over.
fn fields(header: &[u8]) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|&byte| byte == b'\n') {
        match (line.first(), fields.last_mut()) {
            (Some(b' ' | b'\t'), Some(last)) => last.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    fields
}

fn sizes(each: &[u64]) -> AttachmentSizes {
    AttachmentSizes {
        count: each.len() as u64,
        total: each.iter().sum(),
        largest: each.iter().copied().max().unwrap_or(0),
    }
}

#[test]
fn texts_are_no_attachments() {
    assert_eq!(measure("Subject: x\n\nhello\n"), sizes(&[]));
    assert_eq!(measure("Content-Type: text/html\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n"), sizes(&[]));
    assert_eq!(measure("Subject: no body"), sizes(&[]));
    let alternative = "Content-Type: multipart/alternative; boundary=b\n\npreamble\n--b\n\nplain\n--b\n\
        Content-Type: text/html\n\n<p>\n--b--\nepilogue\n";
    assert_eq!(measure(alternative), sizes(&[]));
}

#[test]
fn attachments_count_without_their_encoding() {
    let message = "Content-Type: multipart/mixed;\n\tboundary=\"b\"\n\n--b\n\ntext\n\
        --b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nQUJD\nQQ==\n\
        --b  \nContent-Type: text/csv;\n name=list.csv\nContent-Transfer-Encoding:\n quoted-printable\n\na=3Db=\nc\n\
        --b\nContent-Disposition: attachment\n\nas it is\n\
        --b--\n";
    assert_eq!(measure(message), sizes(&[4, 4, 8]));
    assert_eq!(measure("Content-Type: application/pdf\nContent-Transfer-Encoding: BASE64\n\nQUJD\n"), sizes(&[3]));
    assert_eq!(measure("Content-Disposition: attachment\n\nabc\n"), sizes(&[5]));
}

#[test]
fn a_second_type_or_encoding_hides_nothing() {
    let part = "\n--b\nContent-Type: image/png\n\nABCD\n--b--";
    let plain_first = format!("Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n{part}");
    assert_eq!(measure(&plain_first), sizes(&[4]));
    let wrong_first = "Content-Type: multipart/mixed; boundary=x\nContent-Type: multipart/mixed; boundary=b\n";
    assert!(measure(&format!("{wrong_first}{part}")).total > 4);
    let encodings = "Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: 8bit\n";
    assert_eq!(measure(&format!("Content-Type: image/png\n{encodings}\nQUJD")), sizes(&[4]));
}

#[test]
fn multiparts_within_multiparts() {
    let message = "Content-Type: multipart/mixed; boundary=abc\n\n\
        --abc\nContent-Type: multipart/related; boundary=abcde\n\n\
        --abcde\nContent-Type: text/html\n\n<img>\n--abcde\nContent-Type: image/gif\n\n12345\n--abcde--\nignored\n\
        --abc\nContent-Type: multipart/mixed; boundary=x\nContent-Disposition: attachment\n\n--x\n\n1234\n\
        --abc\nContent-Type: application/zip\n\n12\n--abc--\n";
    assert_eq!(measure(message), sizes(&[5, 4, 2]));
}

#[test]
fn an_attached_message_is_one_attachment() {
    let inner = "Subject: in\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nhello\n\
        --i\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nQUJD\n--i--\n";
    let header_of_inner = "Subject: in\nContent-Type: multipart/mixed; boundary=i\n\n";
    let headers_of_parts = "\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n";
    let lines = header_of_inner.matches('\n').count() + headers_of_parts.matches('\n').count();
    let size = (header_of_inner.len() + headers_of_parts.len() + lines + 5 + 3) as u64;
    let message = format!(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n\n{inner}\n\
         --o\nContent-Type: message/rfc822\n\n{inner}\n--o\nContent-Type: image/png\n\n1\n--o--\n"
    );
    assert_eq!(measure(&message), sizes(&[size, size, 1]));
    let digest = "Content-Type: multipart/digest; boundary=d\n\n--d\n\nA: b\n\ntext\n--d--\n";
    assert_eq!(measure(digest), sizes(&[12]));
    let encoded = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nQUJD\n";
    assert_eq!(measure(encoded), sizes(&[3]));
}

#[test]
fn what_cannot_be_taken_apart_counts_as_it_stands() {
    assert_eq!(measure("Content-Type: multipart/mixed\n\n12345\n"), sizes(&[7]), "no boundary");
    assert_eq!(measure("Content-Type: multipart/mixed; boundary=b\n\n--c\n\n12345\n--c--\n"), sizes(&[21]));
    let never_within = "Content-Type: multipart/mixed; boundary=o\n\n\
        --o\nContent-Type: multipart/mixed; boundary=never\n\n12345\n--o\nContent-Type: image/png\n\n1\n--o--\n";
    assert_eq!(measure(never_within), sizes(&[7, 1]));
    let mut deep = String::new();
    for level in 0..40 {
        deep += &format!("Content-Type: multipart/mixed; boundary=b{level}x\n\n--b{level}x\n");
    }
    deep += "Content-Type: image/png\n\n1\n";
    let sizes = measure(&deep);
    assert!(sizes.count == 1 && sizes.total > 100, "{sizes:?}");
}

#[test]
fn lies_are_counted() {
    // Parts after the last one.
    assert_eq!(
        measure("Content-Type: multipart/mixed; boundary=b\n\n--b--\n--b\nContent-Type: image/png\n\n123\n--b--"),
        sizes(&[3])
    );
    // No delimiter at the end, and no line break at all.
    assert_eq!(
        measure("Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n\n123"),
        sizes(&[3])
    );
    // A part of a header alone, and a line in it that is no field.
    let headers = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png\n\
        --b\njunk\nContent-Type: image/png\n\n12\n--b--";
    assert_eq!(measure(headers), sizes(&[2]));
    // A header longer than what is kept.
    let long = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nX: {}\nContent-Type: image/png;\n x={}\n\n12\n--b--",
        "x".repeat(3 * MAX_FIELD),
        "x".repeat(3 * MAX_FIELD)
    );
    assert_eq!(measure(&long), sizes(&[2]));
    // A delimiter longer than any, and lines that only begin like one.
    let long = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n--b{}\nContent-Type: image/png\n\n-\n--\n-b\n--c\n",
        " ".repeat(3 * MAX_DELIMITER)
    );
    assert_eq!(measure(&long), sizes(&[3 + 4 + 4 + 5]));
}

/// A part of a message, and what it is known to come to.
#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    File { content: Vec<u8>, encoding: &'static str },
    Multipart(Vec<Part>),
    Message(Box<Part>),
}

impl Part {
    fn write(&self, depth: usize, out: &mut Vec<u8>) {
        match self {
            Part::Text(text) => {
                out.extend_from_slice(b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n");
                out.extend(base64(text));
            }
            Part::File { content, encoding } => {
                let head = "Content-Type: application/x-file\r\nContent-Disposition: attachment;\r\n filename=f";
                out.extend(format!("{head}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes());
                match *encoding {
                    "base64" => out.extend(base64(content)),
                    "quoted-printable" => out.extend(quoted_printable(content)),
                    _ => out.extend_from_slice(content),
                }
            }
            Part::Multipart(parts) => {
                let boundary = format!("=_{depth}");
                out.extend(format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n").into_bytes());
                for part in parts {
                    out.extend(format!("\r\n--{boundary}\r\n").into_bytes());
                    part.write(depth + 1, out);
                }
                out.extend(format!("\r\n--{boundary}--").into_bytes());
            }
            Part::Message(part) => {
                out.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\n");
                part.write(depth + 1, out);
            }
        }
    }

    /// The sizes of the attachments outside of attached messages, and whether there are such.
    fn files(&self, sizes: &mut Vec<u64>) -> bool {
        match self {
            Part::Text(_) => false,
            Part::File { content, .. } => {
                sizes.push(content.len() as u64);
                false
            }
            Part::Multipart(parts) => parts.iter().fold(false, |any, part| part.files(sizes) | any),
            Part::Message(_) => true,
        }
    }
}

fn base64(content: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for (n, three) in content.chunks(3).enumerate() {
        if n > 0 && n % 19 == 0 {
            out.extend_from_slice(b"\r\n");
        }
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for letter in 0..4 {
            let is_padding = letter > three.len();
            out.push(if is_padding { b'=' } else { LETTERS[(bits >> (18 - 6 * letter) & 63) as usize] });
        }
    }
    out
}

fn quoted_printable(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, &byte) in content.iter().enumerate() {
        if n > 0 && n % 20 == 0 {
            out.extend_from_slice(b"=\r\n");
        }
        match byte {
            b'a'..=b'z' => out.push(byte),
            _ => out.extend(format!("={byte:02X}").into_bytes()),
        }
    }
    out
}

fn part() -> impl Strategy<Value = Part> {
    let content = || prop::collection::vec(any::<u8>(), 0..200);
    // As it stands a file cannot hold a delimiter.
    let plain = prop::collection::vec(prop::sample::select(b"ab -=\t".to_vec()), 1..200);
    let leaf = prop_oneof![
        content().prop_map(Part::Text),
        content().prop_map(|content| Part::File { content, encoding: "base64" }),
        content().prop_map(|content| Part::File { content, encoding: "quoted-printable" }),
        plain.prop_map(|content| Part::File { content, encoding: "binary" }),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..5).prop_map(Part::Multipart),
            1 => inner.prop_map(|part| Part::Message(Box::new(part))),
        ]
    })
}

/// Pieces of what a message is made of, in any order.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"--a",
        b"--ab",
        b"--",
        b"-",
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\r\n--a\r\n",
        b"\r\n--ab--\r\n",
        b" ",
        b"=",
        b"=3D",
        b"=\r\n",
        b"QUJD",
        b"QQ==",
        b"text",
        b"Content-Type: multipart/mixed; boundary=a\r\n",
        b"Content-Type: multipart/digest;\r\n boundary=\"ab\"\r\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: image/png\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Disposition: attachment\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"(",
        b"\"",
        b";",
        b":",
        b"\0",
        b"\xff",
    ];
    prop::collection::vec(
        prop_oneof![8 => prop::sample::select(words).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..40)],
        0..80,
    )
    .prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn every_attachment_is_found_and_measured(part in part(), piece in 1_usize..300) {
        let mut message = b"MIME-Version: 1.0\r\n".to_vec();
        part.write(0, &mut message);
        let (mut expected, mut found) = (Vec::new(), measure_in(&message, piece));
        let has_messages = part.files(&mut expected);
        expected.retain(|&size| size > 0);
        let expected = sizes(&expected);
        if has_messages {
            prop_assert!(found.count >= expected.count && found.total >= expected.total);
        } else {
            // A message that is one part as it stands has its own last line break.
            found.total -= found.total.saturating_sub(expected.total).min(2);
            prop_assert_eq!(found.count, expected.count);
            prop_assert_eq!(found.total, expected.total);
        }
    }

    #[test]
    fn pieces_never_change_the_result_and_memory_is_bounded(
        message in noise(),
        cuts in prop::collection::vec(1_usize..30, 1..50),
        boundary in prop::sample::select(vec!["a", "ab", ""]),
    ) {
        let mut whole = AttachmentMeter::new();
        let mut cut = AttachmentMeter::new();
        for meter in [&mut whole, &mut cut] {
            meter.header(b"Content-Type", format!("multipart/mixed; boundary={boundary}").as_bytes());
        }
        whole.body(&message);
        let mut rest = &message[..];
        for length in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cut.body(piece);
            rest = after;
            prop_assert!(cut.around.len() <= MAX_DEPTH);
            prop_assert!(cut.line.len() <= MAX_FIELD && cut.field.len() <= MAX_FIELD);
        }
        let sizes = whole.finish();
        prop_assert_eq!(cut.finish(), sizes);
        prop_assert!(sizes.total <= message.len() as u64 && sizes.largest <= sizes.total);
        prop_assert!(sizes.count > 0 || sizes.total == 0);
    }
}
