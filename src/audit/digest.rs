//! SHA-256, as it stands in files.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The digest in hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
