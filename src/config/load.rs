//! Loading all of a configuration, at the start and again while it is in use. One bad customer file harms nobody else:
//! its last good copy stays, or the customer is unusable.

use super::conflicts::{describe_conflict, warn_of_overlaps};
use super::customer_file::{ParsedFile, Salvage, Surroundings, read_customer};
use super::diagnostic::{Diagnostic, Problems, Severity};
use super::files::{Witness, customer_files};
use super::main_file::{MainFile, keys_that_need_a_restart, read_main};
use super::model::Settings;
use super::source::{MAX_CUSTOMER_FILE, MAX_MAIN_FILE, Place, Source, quoted};
use super::unreadable::describe_file;
use crate::directory::{Conflict, Customer, Directory, DirectoryBuilder};
use crate::envelope::Domain;
use hashbrown::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    pub settings: Arc<Settings>,
    pub directory: Arc<Directory>,
    /// Errors of customer files, and warnings.
    pub problems: Problems,
    /// The customer files that could not be used as they are.
    pub bad_files: Vec<BadFile>,
    /// How many customer files were read; the others had not changed.
    pub files_read: usize,
    surroundings: Surroundings,
    files: Vec<Record>,
}

/// A customer file with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFile {
    pub file: Arc<Path>,
    /// The customer whose last good copy stays in use. Without one, mail of the file's domains is deferred.
    pub kept: Option<Arc<str>>,
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.to_string_lossy();
        match &self.kept {
            Some(name) => write!(f, "{file}: the last good copy of customer {} stays in use", quoted(name)),
            None => write!(f, "{file}: there is no good copy, so mail of its customer is deferred"),
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

/// What is remembered of a customer file until the next reload.
#[derive(Debug)]
struct Record {
    file: Arc<Path>,
    witnesses: Vec<Witness>,
    /// Without errors and warnings: if nothing changed, there is no need to read it again.
    is_clean: bool,
    /// The copy in use.
    customer: Option<Arc<Customer>>,
}

/// Loads a configuration for the first time. Customers whose files have errors are unusable, all others work.
///
/// # Errors
/// If the main file has errors, or the folder of customers cannot be read.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let main = usable(main_file(path)?)?;
    let files = customer_files(&main.customers).map_err(alone)?;
    Ok(assemble(main, files, None, SystemTime::now()))
}

/// Loads the main file alone, for commands that need nothing else.
///
/// # Errors
/// If it has errors.
pub fn load_settings(path: &Path) -> Result<Settings, Problems> {
    Ok(usable(main_file(path)?)?.settings)
}

/// Loads a configuration in place of `previous`. Customers whose files did not change keep their `Arc`; those whose
/// files went bad keep their last good copy, with the limits of that time.
///
/// # Errors
/// As [`load`]; then nothing changes at all.
pub fn reload(previous: &Loaded, path: &Path) -> Result<(Loaded, Changes), Problems> {
    reload_at(previous, path, SystemTime::now())
}

fn reload_at(previous: &Loaded, path: &Path, now: SystemTime) -> Result<(Loaded, Changes), Problems> {
    let main = usable(main_file(path)?)?;
    let files = customer_files(&main.customers).map_err(alone)?;
    let loaded = assemble(main, files, Some(previous), now);
    let changes = changes_between(previous, &loaded);
    Ok((loaded, changes))
}

/// Reads all files, whatever errors there are, to tell all problems at once. The configuration is only good if
/// there are no errors among them.
pub fn check(path: &Path) -> (Problems, Option<Loaded>) {
    let mut main = match main_file(path) {
        Ok(main) => main,
        Err(problems) => return (problems, None),
    };
    match customer_files(&main.customers) {
        Ok(files) => {
            let loaded = assemble(main, files, None, SystemTime::now());
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
        Err(error) => Err(alone(describe_file(error, path, "main file"))),
    }
}

fn usable(main: MainFile) -> Result<MainFile, Problems> {
    if main.problems.errors() > 0 { Err(main.problems) } else { Ok(main) }
}

fn alone(diagnostic: Diagnostic) -> Problems {
    let mut problems = Problems::default();
    problems.push(diagnostic);
    problems
}

/// A customer file on its way into the directory.
pub(super) struct Candidate {
    pub file: Arc<Path>,
    new: Option<Arc<Customer>>,
    previous: Option<Arc<Customer>>,
    choice: Choice,
    salvage: Salvage,
    witnesses: Vec<Witness>,
    is_clean: bool,
    was_read: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    New,
    Previous,
    Neither,
}

impl Candidate {
    /// The copy that is to be used.
    pub fn chosen(&self) -> Option<&Arc<Customer>> {
        match self.choice {
            Choice::New => self.new.as_ref(),
            Choice::Previous => self.previous.as_ref(),
            Choice::Neither => None,
        }
    }

    /// Whether the file still says what the chosen copy says.
    pub fn is_current(&self) -> bool {
        self.choice == Choice::New
    }

    fn is_as_before(&self) -> bool {
        match (self.chosen(), &self.previous) {
            (Some(chosen), Some(previous)) => Arc::ptr_eq(chosen, previous),
            _ => false,
        }
    }
}

fn assemble(main: MainFile, files: Vec<Arc<Path>>, previous: Option<&Loaded>, now: SystemTime) -> Loaded {
    let MainFile { settings, surroundings, customers, mut problems } = main;
    if files.is_empty() {
        let problem = Diagnostic::warning("there are no customer files: no mail will be relayed");
        problems.push(problem.at(Place::file(customers.into(), "no file here ends in .toml")));
    }
    let mut candidates = read_all(files, &surroundings, previous, now, &mut problems);
    let directory = build(&mut candidates, &mut problems);
    warn_of_overlaps(&candidates, &mut problems);
    let is_bad = |candidate: &&Candidate| candidate.choice != Choice::New;
    let bad_files = candidates.iter().filter(is_bad).map(|candidate| BadFile {
        file: candidate.file.clone(),
        kept: candidate.chosen().map(|customer| customer.name.clone()),
    });
    Loaded {
        settings: Arc::new(settings),
        directory: Arc::new(directory),
        problems,
        bad_files: bad_files.collect(),
        files_read: candidates.iter().filter(|candidate| candidate.was_read).count(),
        surroundings,
        files: candidates.into_iter().map(Record::from).collect(),
    }
}

impl From<Candidate> for Record {
    fn from(candidate: Candidate) -> Record {
        let customer = candidate.chosen().cloned();
        let is_clean = candidate.is_clean && candidate.choice == Choice::New;
        Record { file: candidate.file, witnesses: candidate.witnesses, is_clean, customer }
    }
}

/// Reads the customer files on all processors; those that have not changed are left alone.
fn read_all(
    files: Vec<Arc<Path>>,
    surroundings: &Surroundings,
    previous: Option<&Loaded>,
    now: SystemTime,
    problems: &mut Problems,
) -> Vec<Candidate> {
    const AT_ONCE: usize = 64;
    let mut records: HashMap<&Path, &Record> = HashMap::new();
    let mut reader = Reader { surroundings, may_skip: false, now };
    if let Some(previous) = previous {
        records.extend(previous.files.iter().map(|record| (&*record.file, record)));
        reader.may_skip = previous.surroundings == *surroundings;
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut read = Vec::new();
        loop {
            let start = next.fetch_add(AT_ONCE, Ordering::Relaxed);
            if start >= files.len() {
                return read;
            }
            for (n, file) in files.iter().enumerate().skip(start).take(AT_ONCE) {
                read.push((n, reader.read(file, records.get(&**file).copied())));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().div_ceil(AT_ONCE));
    let mut read = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut read = work();
        for thread in others {
            match thread.join() {
                Ok(part) => read.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        read
    });
    read.sort_unstable_by_key(|(n, _)| *n);
    let mut candidates = Vec::with_capacity(read.len());
    for (_, (candidate, found)) in read {
        problems.append(found);
        candidates.push(candidate);
    }
    candidates
}

/// Reads single files.
struct Reader<'s> {
    surroundings: &'s Surroundings,
    /// Whether a file that did not change means what it meant before.
    may_skip: bool,
    now: SystemTime,
}

impl Reader<'_> {
    fn read(&self, file: &Arc<Path>, record: Option<&Record>) -> (Candidate, Problems) {
        let previous = record.and_then(|record| record.customer.clone());
        if let Some(record) = record.filter(|record| self.may_skip && record.is_clean)
            && record.witnesses.iter().all(Witness::is_unchanged)
        {
            let candidate = Candidate {
                file: record.file.clone(),
                new: previous.clone(),
                previous,
                choice: Choice::New,
                salvage: Salvage::default(),
                witnesses: record.witnesses.clone(),
                is_clean: true,
                was_read: false,
            };
            return (candidate, Problems::default());
        }
        let mut witnesses = vec![Witness::of(file.clone(), self.now)];
        let parsed = match Source::read(file.clone(), MAX_CUSTOMER_FILE) {
            Ok(source) => read_customer(&source, self.surroundings),
            Err(error) => ParsedFile::unreadable(describe_file(error, file.clone(), "customer file")),
        };
        // They were read a moment ago: one that changed since has not settled.
        witnesses.extend(parsed.others.into_iter().map(|other| Witness::of(other, self.now)));
        // What is said anew but means the same is kept, so that nobody has to look at it again.
        let new = parsed.customer.map(|customer| match &previous {
            Some(previous) if **previous == customer => previous.clone(),
            _ => Arc::new(customer),
        });
        let choice = match (&new, &previous) {
            (Some(_), _) => Choice::New,
            (None, Some(_)) => Choice::Previous,
            (None, None) => Choice::Neither,
        };
        let (file, salvage, is_clean) = (file.clone(), parsed.salvage, parsed.problems.is_empty());
        (Candidate { file, new, previous, choice, salvage, witnesses, is_clean, was_read: true }, parsed.problems)
    }
}

/// Puts the customers together. What two of them claim stays with the one that had it; among new ones, with the first.
fn build(candidates: &mut [Candidate], problems: &mut Problems) -> Directory {
    let mut builder = loop {
        let mut builder = DirectoryBuilder::new();
        let as_before = candidates.iter().filter(|candidate| candidate.is_as_before());
        for customer in as_before.filter_map(|candidate| candidate.chosen()) {
            // They were together before, so they agree.
            let _ = builder.add(customer.clone());
        }
        let changed = |candidate: &Candidate| candidate.previous.is_some() && !candidate.is_as_before();
        let rejected = add_each(&mut builder, candidates, problems, changed);
        if rejected.is_empty() {
            break builder;
        }
        for n in rejected {
            candidates[n].choice = Choice::Previous;
        }
    };
    for n in add_each(&mut builder, candidates, problems, |candidate| candidate.previous.is_none()) {
        candidates[n].choice = Choice::Neither;
        if let Some(customer) = candidates[n].new.take() {
            let logins = customer.users.iter().flat_map(|user| user.logins.iter().cloned()).collect();
            candidates[n].salvage = Salvage { domains: customer.domains.clone(), is_doubtful: false, logins };
        }
    }
    for candidate in candidates.iter().filter(|candidate| candidate.choice == Choice::Neither) {
        let salvage = &candidate.salvage;
        builder.add_unusable(salvage.domains.iter().map(Domain::as_str));
        if salvage.is_doubtful {
            builder.add_unusable([]);
        }
        builder.add_unusable_logins(salvage.logins.iter().map(|login| &**login));
    }
    builder.build()
}

/// Adds the chosen copies of some candidates. Those that conflict with what is there are told and returned.
fn add_each(
    builder: &mut DirectoryBuilder,
    candidates: &[Candidate],
    problems: &mut Problems,
    which: impl Fn(&Candidate) -> bool,
) -> Vec<usize> {
    let mut rejected = Vec::new();
    for (n, candidate) in candidates.iter().enumerate() {
        let Some(customer) = candidate.chosen().filter(|_| which(candidate)) else { continue };
        let Err(conflicts) = builder.add(customer.clone()) else { continue };
        rejected.push(n);
        for conflict in conflicts {
            report_conflict(&conflict, n, customer, candidates, problems);
        }
    }
    rejected
}

fn report_conflict(
    conflict: &Conflict,
    loser: usize,
    customer: &Customer,
    candidates: &[Candidate],
    problems: &mut Problems,
) {
    if !problems.has_room(Severity::Error) {
        return problems.count(Severity::Error);
    }
    let name = conflict.holder().unwrap_or(&customer.name);
    let holder = candidates
        .iter()
        .enumerate()
        .find(|(n, candidate)| *n != loser && candidate.chosen().is_some_and(|customer| *customer.name == *name));
    let holder = holder.map(|(_, candidate)| (&candidate.file, candidate.is_current()));
    problems.push(describe_conflict(conflict, &candidates[loser].file, holder));
}

fn changes_between(old: &Loaded, new: &Loaded) -> Changes {
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
        let reload = |previous: &Loaded| reload_at(previous, &main, later).unwrap().0;
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
