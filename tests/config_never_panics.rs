//! Whatever stands in configuration files: an answer, no panic, and not without bounds.

use proptest::prelude::*;
use relaykeeper::config::{self, MAX_SHOWN, NoCustomers, Style};
use std::fs;

const MAIN: &str = include_str!("../contrib/relaykeeper.toml");
const CUSTOMER: &str = include_str!("../contrib/customers.d/acme.toml");
const USERS: &str = include_str!("../contrib/customers.d/acme.users");

/// Reads a configuration with these three files, and writes out what it says.
fn read(main: &[u8], customer: &[u8], users: &[u8]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("customers.d")).unwrap();
    fs::write(path("relaykeeper.toml"), main).unwrap();
    fs::write(path("customers.d/acme.toml"), customer).unwrap();
    fs::write(path("customers.d/acme.users"), users).unwrap();
    let (problems, _) = config::check(&path("relaykeeper.toml"));
    let text = problems.render(Style::Plain);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let text = text + &problems.render(Style::Terminal);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
    assert!(lines.len() <= 2 * MAX_SHOWN);
    if let Ok(loaded) = config::load(&path("relaykeeper.toml")) {
        assert!(config::reload(&loaded, &path("relaykeeper.toml"), NoCustomers::Refuse).is_ok());
    }
    text.len()
}

/// A change to a text: at a place, so many bytes are replaced.
fn change() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        Just(b"\"".to_vec()),
        Just(b"[[".to_vec()),
        Just(b"]]".to_vec()),
        Just(b"\n[".to_vec()),
        Just(b" = ".to_vec()),
        Just(b"{".to_vec()),
        Just(b".".to_vec()),
        Just(b"'''".to_vec()),
        Just("\u{fc}\u{202e}".as_bytes().to_vec()),
        Just(b"-9223372036854775809".to_vec()),
        Just(b"1e999".to_vec()),
        Just(b"\\u0000".to_vec()),
        Just(b"\r".to_vec()),
    ];
    (any::<prop::sample::Index>(), 0..12usize, piece)
}

fn garble(text: &str, changes: &[(prop::sample::Index, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, length, piece) in changes {
        let start = place.index(bytes.len());
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, piece.iter().copied());
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes, &bytes, &bytes);
        read(MAIN.as_bytes(), &bytes, &bytes);
    }

    #[test]
    fn garbled_files(
        main in prop::collection::vec(change(), 0..3),
        customer in prop::collection::vec(change(), 0..8),
        users in prop::collection::vec(change(), 0..8),
    ) {
        read(&garble(MAIN, &main), &garble(CUSTOMER, &customer), &garble(USERS, &users));
    }
}

#[test]
fn control_characters_in_values_stay_out_of_messages() {
    read(b"[listen]\ncontrol = \"un\\u0000\\u001b[31m:/run\"\n[relay]\ncustomers = \"a\\u001b\"\n", b"", b"");
    read(MAIN.as_bytes(), b"name = \"\\u0007\"\n\"\\u001b\" = 1\nusers_file = \"\\u001b\"\n", b"\x1b\x7f@\r\x08\n");
}

#[test]
fn very_deep_and_very_long_files() {
    let deep = "a = ".to_string() + &"[".repeat(100_000);
    read(deep.as_bytes(), deep.as_bytes(), b"");
    let dotted = "a.".repeat(100_000) + "a = 1";
    read(dotted.as_bytes(), dotted.as_bytes(), b"");
    let headers = "[[setting]]\n[[setting.ip]]\n".repeat(20_000);
    read(MAIN.as_bytes(), headers.as_bytes(), b"");
    let users = "a@b.example a a a a a\n".repeat(50_000);
    assert!(read(MAIN.as_bytes(), CUSTOMER.as_bytes(), users.as_bytes()) < 2_000_000);
    let domains = format!("domains = [{}]", "\"x\",".repeat(100_000));
    assert!(read(MAIN.as_bytes(), domains.as_bytes(), b"") < 2_000_000);
}
