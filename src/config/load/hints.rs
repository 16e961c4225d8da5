//! What commands need of a main file that has errors: where the daemon answers, and where its store is. They are needed
//! most when something is wrong.

use crate::config::main_file::{MAIN_FILE, listen_address};
use crate::config::reading::{FileReport, MAX_MAIN_FILE, Source};
use crate::config::values::absolute;
use crate::listen::ListenAddress;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where `contrib/relaykeeper.toml` and packages have the control socket.
const USUAL_CONTROL: &str = "unix:/run/relaykeeper/control.sock";

/// What can be made out of a main file, whatever is wrong with it.
#[derive(Debug, Default)]
pub struct MainFileHints {
    /// `listen.control`; if the file does not say, the usual place.
    pub control: Option<ListenAddress>,
    /// `store.path`; `None` where the file does not say.
    pub store: Option<PathBuf>,
}

/// Looks into a main file that [`load`](super::load) rejects.
pub fn main_file_hints(path: &Path) -> MainFileHints {
    let Ok(source) = Source::read(path.into(), MAX_MAIN_FILE) else { return MainFileHints::of_nothing() };
    let (_, root) = FileReport::parse(&source, &MAIN_FILE);
    let root = root.get_ref();
    let control = string(root, "listen", "control").and_then(|text| listen_address(text).ok());
    // Under a broken header, a key seems to belong elsewhere.
    let control = control.or_else(|| strings_of_key(&source.text, "control").find_map(|text| text.parse().ok()));
    let store = string(root, "store", "path").map(|text| absolute(&path.parent().unwrap_or(Path::new("")).join(text)));
    MainFileHints { store, ..MainFileHints { control, store: None }.or_usual() }
}

impl MainFileHints {
    fn of_nothing() -> MainFileHints {
        MainFileHints::default().or_usual()
    }

    fn or_usual(self) -> MainFileHints {
        MainFileHints { control: self.control.or_else(|| USUAL_CONTROL.parse().ok()), ..self }
    }
}

fn string<'t>(root: &'t DeTable<'_>, section: &str, key: &str) -> Option<&'t str> {
    let section = root.get(section)?.get_ref().as_table()?;
    match section.get(key)?.get_ref() {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

/// What lines such as `key = "text"` say.
fn strings_of_key<'t>(text: &'t str, key: &'static str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| {
        let value = line.trim_start().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim_start();
        value.strip_prefix(['"', '\''])?.split(['"', '\'']).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(text: &str) -> (String, Option<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relaykeeper.toml");
        std::fs::write(&path, text).unwrap();
        let hints = main_file_hints(&path);
        (hints.control.unwrap().to_string(), hints.store)
    }

    #[test]
    fn the_control_socket_is_found_whatever_the_rest() {
        let control = "control = \"unix:/run/rk/c.sock\"\n";
        for text in [
            format!("[listen]\n{control}[relay]\nhostname = 5\n[store]\npath = \"/var/lib/rk\"\n"),
            format!("[listen]\nmilter = [\"x\"\n{control}[store\n[relay]\ndrain = \"\n[store]\npath = \"/var/lib/rk\""),
            format!("[listen\n{control}[store]\npath = \"/var/lib/rk\"\n"),
            format!("[lisen]\n{control}[store]\npath = \"/var/lib/rk\"\n"),
        ] {
            let found = hints(&text);
            assert_eq!(found, ("unix:/run/rk/c.sock".into(), Some("/var/lib/rk".into())), "{text}");
        }
    }

    #[test]
    fn without_a_word_of_the_file_it_is_the_usual_place() {
        for text in ["[listen]\ncontrol = 5\n", "[listen]\ncontrol = \"/run/c.sock\"\n", ""] {
            assert_eq!(hints(text), (USUAL_CONTROL.to_owned(), None), "{text}");
        }
        assert!(main_file_hints(Path::new("/nonexistent")).control.is_some());
    }
}
