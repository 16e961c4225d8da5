//! Whether the files on disk are still those that were loaded: an edit has no effect before a reload.

use super::candidates::KnownFile;
use super::files::{FileStamp, customer_files};
use hashbrown::HashSet;
use std::path::Path;
use std::sync::Arc;

/// The most differences that are named.
const MAX_NAMED: usize = 20;

/// The files that a configuration was loaded from.
#[derive(Debug)]
pub struct LoadedFiles {
    pub(super) main: FileStamp,
    /// The folder of customer files.
    pub(super) folder: Arc<Path>,
    pub(super) customers: Vec<KnownFile>,
}

impl LoadedFiles {
    /// Every file and folder that was read: the main file, the folder of customer files, these, and what they name.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let customers = self.customers.iter().flat_map(KnownFile::paths);
        [self.main.path(), &*self.folder].into_iter().chain(customers)
    }

    /// What has changed since, a line each; empty if nothing has. Looks at every file, so it takes a while for many.
    pub fn differences(&self) -> Vec<String> {
        let mut differences = Vec::new();
        if self.main.has_changed() {
            differences.push(format!("{} has changed since it was read", self.main.path().display()));
        }
        let mut known = HashSet::new();
        for file in &self.customers {
            known.insert(&*file.file);
            differences.extend(file.changed().map(|path| match path.exists() {
                true => format!("{} has changed since it was read", path.display()),
                false => format!("{} is gone", path.display()),
            }));
        }
        match customer_files(&self.folder) {
            Ok(files) => {
                let new = files.iter().filter(|file| !known.contains(&***file));
                differences.extend(new.map(|file| format!("{} is new", file.display())));
            }
            Err(_) => differences.push(format!("{} cannot be read", self.folder.display())),
        }
        let more = differences.len().saturating_sub(MAX_NAMED);
        differences.truncate(MAX_NAMED);
        if more > 0 {
            differences.push(format!("{more} more"));
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{NoCustomers, load, reload};

    #[test]
    fn edits_show_until_they_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let customer = |name: &str, rest: &str| {
            let setting = "[[setting]]\nname = \"s\"\nallowed_senders = \"any\"\nrequire_auth = true\n";
            let text = format!("name = \"{name}\"\ndomains = [\"{name}.example\"]\nlicenses = 1\n{rest}\n{setting}");
            write(&format!("customers.d/{name}.toml"), &text);
        };
        std::fs::create_dir(path("customers.d")).unwrap();
        write("relaykeeper.toml", "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n");
        customer("a", "users_file = \"a.users\"");
        customer("b", "");
        write("customers.d/a.users", "ann@a.example\n");
        let main = path("relaykeeper.toml");
        let loaded = load(&main).unwrap();
        assert!(loaded.files.differences().is_empty(), "also of files that were written a moment ago");

        write("relaykeeper.toml", "[listen]\npolicy = [\"inet:127.0.0.1:10024\"]\n# edited\n");
        write("customers.d/a.users", "ann@a.example\nbob@a.example\n");
        std::fs::remove_file(path("customers.d/b.toml")).unwrap();
        customer("c", "");
        let prefix = format!("{}/", folder.path().display());
        let differences: Vec<_> = loaded.files.differences().iter().map(|line| line.replace(&prefix, "")).collect();
        let expected = [
            "relaykeeper.toml has changed since it was read",
            "customers.d/a.users has changed since it was read",
            "customers.d/b.toml is gone",
            "customers.d/c.toml is new",
        ];
        assert_eq!(differences, expected);
        let (loaded, _) = reload(&loaded, &main, NoCustomers::Refuse).unwrap();
        assert!(loaded.files.differences().is_empty());
        for n in 0..30 {
            write(&format!("customers.d/n{n}.toml"), "");
        }
        let differences = loaded.files.differences();
        assert_eq!((differences.len(), differences.last().map(String::as_str)), (21, Some("10 more")));
    }
}
