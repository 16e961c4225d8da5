//! Messages of known size.

use std::fmt::Write;

/// A message with a text and attachments of these sizes, alternately in base64 and as they are.
pub fn with_attachments(sizes: &[u64]) -> String {
    let mut message =
        "Subject: files\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"=_b\"\r\n\r\n\
                       --=_b\r\n\r\nSee below.\r\n"
            .to_owned();
    for (n, &size) in sizes.iter().enumerate() {
        let encoding = if n % 2 == 0 { "base64" } else { "7bit" };
        let _ = write!(
            message,
            "--=_b\r\nContent-Type: application/x-file; name=f{n}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        message.push_str(&if n % 2 == 0 { base64_of_zeros(size) } else { lines_of_text(size) });
        message.push_str("\r\n");
    }
    message + "--=_b--\r\n"
}

/// A message of so many bytes (100 at least), most of them text.
pub fn of_bytes(size: u64) -> String {
    let header = "Subject: long\r\n\r\n";
    header.to_owned() + &lines_of_text(size - header.len() as u64)
}

fn base64_of_zeros(size: u64) -> String {
    let mut text = String::new();
    for n in 0..size / 57 {
        text.push_str(if n > 0 { "\r\n" } else { "" });
        text.push_str(&"A".repeat(76));
    }
    let rest = size % 57;
    if rest > 0 {
        text.push_str("\r\n");
        text.push_str(&"AAAA".repeat(rest as usize / 3));
        text.push_str(["", "AA==", "AAA="][rest as usize % 3]);
    }
    text
}

/// So many bytes in lines of 72.
pub fn lines_of_text(size: u64) -> String {
    let line = "x".repeat(70) + "\r\n";
    let (lines, rest) = (size / 72, size % 72);
    line.repeat(lines as usize) + &"y".repeat(rest as usize)
}
