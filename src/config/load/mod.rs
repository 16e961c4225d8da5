//! Loads a whole configuration, at the start and again while it is in use. One bad customer file harms nobody else: its
//! last good copy stays in use, or that customer alone is deferred.

mod candidates;
mod conflicts;
mod file_owners;
mod files;
mod hints;
mod join;
mod last_good;
mod locate;
mod on_disk;
mod restart;
mod unread;

use super::customer_file::CustomerContext;
use super::main_file::{MainFile, Settings, read_main};
use super::reading::{Diagnostic, Location, MAX_MAIN_FILE, Problems, Source, describe_file, quoted};
use super::values::absolute;
use crate::directory::Directory;
use candidates::{Candidate, Choice, KnownFile, Reader, read_all};
use conflicts::warn_of_overlaps;
use files::{FileStamp, Listing, list_folder};
use hashbrown::{HashMap, HashSet};
pub use hints::{MainFileHints, main_file_hints};
use join::join;
pub use last_good::{LastGoodCopies, Unsaved};
pub use locate::key_location;
pub use on_disk::LoadedFiles;
use restart::keys_that_need_a_restart;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use unread::warn_of_unread;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Configuration {
    pub settings: Arc<Settings>,
    pub directory: Arc<Directory>,
    /// Errors of customer files, and warnings.
    pub problems: Problems,
    /// The customer files that could not be used as they are.
    pub bad_files: Vec<BadFile>,
    /// How many customer files were read; the others had not changed.
    pub files_read: usize,
    /// What it was loaded from.
    pub files: Arc<LoadedFiles>,
    context: CustomerContext,
    /// Whether copies of what is in use are saved.
    saves: bool,
    unsaved: Unsaved,
    /// All customer files were gone at the start, and nobody has said yet that this is right.
    is_emptied: bool,
}

/// A customer file with an error, or the folder of customer files where all are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    pub file: Arc<Path>,
    /// What is in use in its place.
    pub in_use: InUse,
}

/// What is in use in place of a bad file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InUse {
    /// The last good copy of this customer.
    LastGood(Arc<str>),
    /// Nothing: mail of the file's domains is deferred.
    Nothing,
    /// There were customers, and there is no file now: all mail is deferred.
    NoCustomers,
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.to_string_lossy();
        match &self.in_use {
            InUse::LastGood(name) => write!(f, "{file}: the last good copy of customer {} stays in use", quoted(name)),
            InUse::Nothing => write!(f, "{file}: there is no good copy, so mail of its customer is deferred"),
            InUse::NoCustomers => write!(
                f,
                "{file}: all customer files are gone, so mail is deferred; put them back, or run \
                 relaykeeper reload --allow-no-customers"
            ),
        }
    }
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys of the main file that changed, but take effect only at the next start.
    pub need_restart: Vec<&'static str>,
    /// Names of customers, in the order of the files.
    pub added: Vec<Arc<str>>,
    pub changed: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
}
impl Configuration {
    /// All customer files.
    pub fn customer_files(&self) -> impl Iterator<Item = &Path> {
        self.files.customers.iter().map(|record| &*record.file)
    }

    /// What is to be saved of it, once it is in use. Only those that [`load_with_copies`] began have anything.
    pub fn take_unsaved(&mut self) -> Unsaved {
        std::mem::take(&mut self.unsaved)
    }

    /// The customer files in use as they are that differ from `previous`, or may differ.
    pub fn changed_files(&self, previous: Option<&Configuration>) -> Vec<&Path> {
        let before: HashMap<&Path, &KnownFile> = previous
            .iter()
            .flat_map(|previous| &previous.files.customers)
            .map(|record| (&*record.file, record))
            .collect();
        let bad: HashSet<&Path> = self.bad_files.iter().map(|bad| &*bad.file).collect();
        let is_changed = |record: &&KnownFile| match (&record.customer, before.get(&*record.file)) {
            (Some(new), Some(KnownFile { customer: Some(old), .. })) => !Arc::ptr_eq(new, old),
            _ => true,
        };
        let good = self.files.customers.iter().filter(|record| !bad.contains(&*record.file));
        good.filter(is_changed).map(|record| &*record.file).collect()
    }
}

/// Loads a configuration for the first time. Customers whose files have errors are unusable, all others work.
///
/// # Errors
/// If the main file has errors, or the folder of customers cannot be read.
pub fn load(path: &Path) -> Result<Configuration, Problems> {
    load_after(path, Before::Nothing)
}

/// As [`load`], after an earlier daemon: customers whose files have errors keep the copy that it left. Copies of what is
/// in use are to be saved, see [`Configuration::take_unsaved`].
///
/// # Errors
/// As [`load`].
pub fn load_with_copies(path: &Path, copies: &LastGoodCopies) -> Result<Configuration, Problems> {
    load_after(path, Before::Copies(copies))
}

fn load_after(path: &Path, before: Before<'_>) -> Result<Configuration, Problems> {
    let now = SystemTime::now();
    let stamp = FileStamp::of(path, now);
    let main = usable(main_file(path)?)?;
    let files = list_folder(&main.customers).map_err(only)?;
    Ok(assemble(main, stamp, files, before, now))
}

/// Loads the main file alone, for commands that need nothing else.
///
/// # Errors
/// If it has errors.
pub fn load_settings(path: &Path) -> Result<Settings, Problems> {
    Ok(usable(main_file(path)?)?.settings)
}

/// Whether a reload may leave the relay without any customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCustomers {
    Refuse,
    Allow,
}

/// Loads a configuration in place of `previous`. Customers whose files did not change keep their `Arc`; those whose
/// files went bad keep their last good copy, with the limits of that time.
///
/// # Errors
/// As [`load`], or if no customer would be left; then nothing changes.
pub fn reload(
    previous: &Configuration,
    path: &Path,
    no_customers: NoCustomers,
) -> Result<(Configuration, Changes), Problems> {
    reload_at(previous, path, no_customers, SystemTime::now())
}

fn reload_at(
    previous: &Configuration,
    path: &Path,
    no_customers: NoCustomers,
    now: SystemTime,
) -> Result<(Configuration, Changes), Problems> {
    let stamp = FileStamp::of(path, now);
    let main = usable(main_file(path)?)?;
    let customers: Arc<Path> = main.customers.as_path().into();
    let files = list_folder(&main.customers).map_err(only)?;
    let loaded = assemble(main, stamp, files, Before::Configuration(previous, no_customers), now);
    let has_customers = |configuration: &Configuration| configuration.directory.customers().len() > 0;
    if no_customers == NoCustomers::Refuse && has_customers(previous) && !has_customers(&loaded) {
        let mut problems = loaded.problems;
        let error = Diagnostic::error("no customer would be left").at(Location::file(customers, ""));
        problems.push(error.help("if that is right, run relaykeeper reload --allow-no-customers"));
        return Err(problems);
    }
    let changes = changes_between(previous, &loaded);
    Ok((loaded, changes))
}

/// Reads all files, whatever errors there are, and returns every problem at once. The configuration is good only if no
/// error is among them.
pub fn check(path: &Path) -> (Problems, Option<Configuration>) {
    let stamp = FileStamp::of(path, SystemTime::now());
    let mut main = match main_file(path) {
        Ok(main) => main,
        Err(problems) => return (problems, None),
    };
    match list_folder(&main.customers) {
        Ok(files) => {
            let loaded = assemble(main, stamp, files, Before::Nothing, SystemTime::now());
            (loaded.problems.clone(), Some(loaded))
        }
        Err(problem) => {
            main.problems.push(problem);
            (main.problems, None)
        }
    }
}

fn main_file(path: &Path) -> Result<MainFile, Problems> {
    let path: Arc<Path> = path.into();
    match Source::read(path.clone(), MAX_MAIN_FILE) {
        Ok(source) => Ok(read_main(&source)),
        Err(error) => Err(only(describe_file(error, path, "main file"))),
    }
}

fn usable(main: MainFile) -> Result<MainFile, Problems> {
    if main.problems.errors() > 0 { Err(main.problems) } else { Ok(main) }
}

fn only(diagnostic: Diagnostic) -> Problems {
    let mut problems = Problems::default();
    problems.push(diagnostic);
    problems
}

/// What was there before a configuration is loaded.
#[derive(Clone, Copy)]
enum Before<'b> {
    Nothing,
    Copies(&'b LastGoodCopies),
    Configuration(&'b Configuration, NoCustomers),
}

/// `stamp` is that of the main file, from before it was read.
fn assemble(
    main: MainFile,
    stamp: FileStamp,
    Listing { customers: files, others }: Listing,
    before: Before<'_>,
    now: SystemTime,
) -> Configuration {
    let MainFile { settings, context, customers, mut problems } = main;
    let folder: Arc<Path> = customers.into();
    if files.is_empty() {
        let problem = Diagnostic::warning("there are no customer files: no mail will be relayed");
        problems.push(problem.at(Location::file(folder.clone(), "no file here ends in .toml")));
    }
    let (previous, copies) = match before {
        Before::Nothing => (None, None),
        Before::Copies(copies) => (None, Some(copies)),
        Before::Configuration(previous, _) => (Some(previous), None),
    };
    let saves = copies.is_some() || previous.is_some_and(|previous| previous.saves);
    let reader = Reader {
        context: &context,
        previous: previous.map_or(&[][..], |previous| &previous.files.customers),
        may_skip: previous.is_some_and(|previous| previous.context == context),
        copies,
        saves,
        now,
    };
    let mut candidates = read_all(&files, &reader, &mut problems);
    let is_emptied = files.is_empty()
        && match before {
            Before::Nothing => false,
            Before::Copies(copies) => copies.had_customers,
            Before::Configuration(previous, no_customers) => previous.is_emptied && no_customers == NoCustomers::Refuse,
        };
    let directory = join(&mut candidates, previous.is_none(), is_emptied, &mut problems);
    warn_of_overlaps(&candidates, &mut problems);
    warn_of_unread(&folder, &others, &candidates, &mut problems);
    let is_bad = |candidate: &&Candidate| candidate.choice != Choice::New;
    let mut bad_files: Vec<BadFile> = Vec::new();
    bad_files.extend(candidates.iter().filter(is_bad).map(|candidate| BadFile {
        file: candidate.file.clone(),
        in_use: candidate.chosen().map_or(InUse::Nothing, |customer| InUse::LastGood(customer.name.clone())),
    }));
    bad_files.extend(is_emptied.then(|| BadFile { file: folder.clone(), in_use: InUse::NoCustomers }));
    let unsaved = match saves {
        true => Unsaved {
            copies: candidates.iter_mut().filter_map(Candidate::take_unsaved).collect(),
            had_customers: (!is_emptied).then_some(!files.is_empty()),
            files: files.iter().map(|file| absolute(file).into()).collect(),
        },
        false => Unsaved::default(),
    };
    Configuration {
        settings: Arc::new(settings),
        directory: Arc::new(directory),
        problems,
        bad_files,
        files_read: candidates.iter().filter(|candidate| candidate.was_read).count(),
        files: Arc::new(LoadedFiles {
            main: stamp,
            folder,
            customers: candidates.into_iter().map(KnownFile::from).collect(),
        }),
        context,
        saves,
        unsaved,
        is_emptied,
    }
}
fn changes_between(old: &Configuration, new: &Configuration) -> Changes {
    let mut changes =
        Changes { need_restart: keys_that_need_a_restart(&old.settings, &new.settings), ..Changes::default() };
    for customer in new.directory.customers() {
        match old.directory.customer(&customer.name) {
            None => changes.added.push(customer.name.clone()),
            Some(before) if !Arc::ptr_eq(before, customer) => changes.changed.push(customer.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.directory.customers().filter(|customer| new.directory.customer(&customer.name).is_none());
    changes.removed.extend(gone.map(|customer| customer.name.clone()));
    changes
}
#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_that_did_not_change_are_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("relaykeeper.toml");
        let write = |name: &str, rest: &str| {
            let text = format!("name = \"{name}\"\ndomains = [\"{name}.example\"]\nlicenses = 1\n{rest}\n");
            let setting = "[[setting]]\nname = \"s\"\nallowed_senders = \"any\"\nrequire_auth = true\n";
            std::fs::write(folder.path().join(format!("customers.d/{name}.toml")), text + setting).unwrap();
        };
        std::fs::create_dir(folder.path().join("customers.d")).unwrap();
        std::fs::write(&main, "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n").unwrap();
        write("a", "");
        write("b", "users_file = \"b.users\"");
        write("warned", "billing = \"paid\"\nbilling = \"paid\"");
        std::fs::write(folder.path().join("customers.d/b.users"), "ann@b.example\n").unwrap();

        let later = SystemTime::now() + Duration::from_secs(60);
        let reload = |previous: &Configuration| reload_at(previous, &main, NoCustomers::Refuse, later).unwrap().0;
        let first = load(&main).unwrap();
        assert_eq!(first.files_read, 3);
        let second = reload(&first);
        assert_eq!(second.files_read, 3, "at the first load they had only just changed");
        assert_eq!(reload(&second).files_read, 1, "what has errors is read again, to tell them again");

        std::fs::write(folder.path().join("customers.d/b.users"), "kim@b.example\n").unwrap();
        let third = reload(&second);
        assert_eq!(third.files_read, 2);
        assert!(third.directory.customer("b").unwrap().users.find("kim@b.example").is_some());
        let (before, after) = (second.directory.customer("a"), third.directory.customer("a"));
        assert!(Arc::ptr_eq(before.unwrap(), after.unwrap()));

        std::fs::write(&main, "[listen]\npolicy = [\"inet:127.0.0.1:10023\"]\n[limits]\naction = \"reject\"\n")
            .unwrap();
        assert_eq!(reload(&third).files_read, 3, "limits of the installation are a part of each customer");
    }
}
