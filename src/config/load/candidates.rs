//! Customer files on their way into the directory, read on all processors; those that did not change are left alone.

use super::file_owners::hide_passwords;
use super::files::FileStamp;
use crate::config::customer_file::{CustomerContext, NamedFile, ParsedFile, Salvage, read_customer};
use crate::config::reading::{MAX_CUSTOMER_FILE, Problems, Source, describe_file};
use crate::directory::Customer;
use crate::envelope::Domain;
use hashbrown::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// What is remembered of a customer file until the next reload.
#[derive(Debug)]
pub(super) struct KnownFile {
    pub file: Arc<Path>,
    stamps: Vec<FileStamp>,
    /// Without errors and warnings: if nothing changed, there is no need to read it again.
    is_clean: bool,
    /// The copy in use.
    pub customer: Option<Arc<Customer>>,
    /// The files that this copy names.
    named_files: Vec<NamedFile>,
}

impl KnownFile {
    /// The files that have certainly changed since: itself, and those that it names.
    pub fn changed(&self) -> impl Iterator<Item = &Path> {
        self.stamps.iter().filter(|stamp| stamp.has_changed()).map(FileStamp::path)
    }
}

/// A customer file on its way into the directory.
pub(super) struct Candidate {
    pub file: Arc<Path>,
    pub new: Option<Arc<Customer>>,
    pub previous: Option<Arc<Customer>>,
    pub choice: Choice,
    pub salvage: Salvage,
    /// The files that `new` names.
    named_files: Vec<NamedFile>,
    /// The files that `previous` names.
    named_before: Vec<NamedFile>,
    stamps: Vec<FileStamp>,
    is_clean: bool,
    pub was_read: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Choice {
    /// What the file says now.
    New,
    /// The last good copy.
    Previous,
    /// No copy can be used.
    Unusable,
}

impl Candidate {
    /// The copy that is to be used.
    pub fn chosen(&self) -> Option<&Arc<Customer>> {
        match self.choice {
            Choice::New => self.new.as_ref(),
            Choice::Previous => self.previous.as_ref(),
            Choice::Unusable => None,
        }
    }

    /// The files that the chosen copy names.
    pub fn named_files(&self) -> &[NamedFile] {
        match self.choice {
            Choice::New => &self.named_files,
            Choice::Previous => &self.named_before,
            Choice::Unusable => &[],
        }
    }

    /// The files that were read with the customer's file.
    pub fn read_files(&self) -> &[NamedFile] {
        &self.named_files
    }

    /// The files that the previous copy names.
    pub fn named_before(&self) -> &[NamedFile] {
        &self.named_before
    }

    /// Whether the file still says what the chosen copy says.
    pub fn is_current(&self) -> bool {
        self.choice == Choice::New
    }

    /// Whether the new copy claims what the previous one did not: a name, domain, login or further address.
    pub fn claims_more(&self) -> bool {
        let (Some(new), Some(old)) = (&self.new, &self.previous) else { return true };
        fn claims(customer: &Customer) -> impl Iterator<Item = &str> {
            let domains = customer.domains.iter().map(Domain::as_str);
            let logins = customer.users.iter().flat_map(|user| user.logins.iter().map(|login| &**login));
            let senders = customer.users.iter().flat_map(|user| user.senders.iter().map(|sender| &*sender.address));
            domains.chain(logins).chain(senders)
        }
        let had: HashSet<&str> = claims(old).collect();
        new.name != old.name || claims(new).any(|claim| !had.contains(claim))
    }

    pub fn is_as_before(&self) -> bool {
        match (self.chosen(), &self.previous) {
            (Some(chosen), Some(previous)) => Arc::ptr_eq(chosen, previous),
            _ => false,
        }
    }
}
impl From<Candidate> for KnownFile {
    fn from(candidate: Candidate) -> KnownFile {
        let customer = candidate.chosen().cloned();
        let is_clean = candidate.is_clean && candidate.choice == Choice::New;
        let named_files = candidate.named_files().to_vec();
        KnownFile { file: candidate.file, stamps: candidate.stamps, is_clean, customer, named_files }
    }
}
/// Reads the customer files. With `may_skip` those that did not change mean what they meant in `previous`.
pub(super) fn read_all(
    files: Vec<Arc<Path>>,
    context: &CustomerContext,
    previous: &[KnownFile],
    may_skip: bool,
    now: SystemTime,
    problems: &mut Problems,
) -> Vec<Candidate> {
    const AT_ONCE: usize = 64;
    let records: HashMap<&Path, &KnownFile> = previous.iter().map(|record| (&*record.file, record)).collect();
    let reader = Reader { context, may_skip, now };
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
    let mut problems_of = Vec::with_capacity(read.len());
    for (_, (candidate, found)) in read {
        problems_of.push(found);
        candidates.push(candidate);
    }
    hide_passwords(&candidates, &mut problems_of);
    problems_of.into_iter().for_each(|found| problems.append(found));
    candidates
}

/// Reads single files.
struct Reader<'s> {
    context: &'s CustomerContext,
    /// Whether a file that did not change means what it meant before.
    may_skip: bool,
    now: SystemTime,
}

impl Reader<'_> {
    fn read(&self, file: &Arc<Path>, record: Option<&KnownFile>) -> (Candidate, Problems) {
        let previous = record.and_then(|record| record.customer.clone());
        if let Some(record) = record.filter(|record| self.may_skip && record.is_clean)
            && record.stamps.iter().all(FileStamp::is_unchanged)
        {
            let candidate = Candidate {
                file: record.file.clone(),
                new: previous.clone(),
                previous,
                choice: Choice::New,
                salvage: Salvage::default(),
                named_files: record.named_files.clone(),
                named_before: record.named_files.clone(),
                stamps: record.stamps.clone(),
                is_clean: true,
                was_read: false,
            };
            return (candidate, Problems::default());
        }
        let mut stamps = vec![FileStamp::of(file.clone(), self.now)];
        let parsed = match Source::read(file.clone(), MAX_CUSTOMER_FILE) {
            Ok(source) => read_customer(&source, self.context),
            Err(error) => ParsedFile::unreadable(describe_file(error, file.clone(), "customer file")),
        };
        // They were read a moment ago: one that changed since has not settled.
        stamps.extend(parsed.named_files.iter().map(|named| FileStamp::of(named.path.clone(), self.now)));
        // What is said anew but means the same is kept, so that nobody has to look at it again.
        let new = parsed.customer.map(|customer| match &previous {
            Some(previous) if **previous == customer => previous.clone(),
            _ => Arc::new(customer),
        });
        let choice = match (&new, &previous) {
            (Some(_), _) => Choice::New,
            (None, Some(_)) => Choice::Previous,
            (None, None) => Choice::Unusable,
        };
        let (file, salvage, is_clean) = (file.clone(), parsed.salvage, parsed.problems.is_empty());
        let named_before = record.map_or_else(Vec::new, |record| record.named_files.clone());
        let named_files = parsed.named_files;
        let candidate = Candidate {
            file,
            new,
            previous,
            choice,
            salvage,
            named_files,
            named_before,
            stamps,
            is_clean,
            was_read: true,
        };
        (candidate, parsed.problems)
    }
}
