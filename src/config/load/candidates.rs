//! Customer files on their way into the directory, read on all processors; those that did not change are left alone.

use super::file_owners::hide_passwords;
use super::files::FileStamp;
use super::last_good::{Copy, CopyDigest, LastGoodCopies, UnsavedCopy};
use crate::config::customer_file::{CustomerContext, NamedFile, NamedFilesFrom, ParsedFile, Salvage, read_customer};
use crate::config::reading::{MAX_CUSTOMER_FILE, Problems, Source, describe_file};
use crate::config::values::absolute;
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
    /// Of the copy in use.
    digest: Option<CopyDigest>,
}

impl KnownFile {
    /// The file itself, and those that it names.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.stamps.iter().map(FileStamp::path)
    }

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
    /// Of `new`.
    digest: Option<CopyDigest>,
    /// Of `previous`.
    digest_before: Option<CopyDigest>,
    /// What `new` was read from, if that is not on disk yet.
    unsaved: Option<Copy>,
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

    /// What is to be saved of the copy in use.
    pub fn take_unsaved(&mut self) -> Option<UnsavedCopy> {
        let copy = self.unsaved.take().filter(|_| self.is_current())?;
        Some(UnsavedCopy { file: absolute(&self.file).into(), digest: self.digest?, copy })
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
        let digest = if candidate.is_current() { candidate.digest } else { candidate.digest_before };
        KnownFile { file: candidate.file, stamps: candidate.stamps, is_clean, customer, named_files, digest }
    }
}
/// What reading the customer files goes by.
pub(super) struct Reader<'s> {
    pub context: &'s CustomerContext,
    /// What was in use before.
    pub previous: &'s [KnownFile],
    /// Whether a file that did not change means what it meant before.
    pub may_skip: bool,
    /// At a start: what an earlier daemon left.
    pub copies: Option<&'s LastGoodCopies>,
    /// Whether copies are saved afterwards.
    pub saves: bool,
    pub now: SystemTime,
}

/// Reads the customer files.
pub(super) fn read_all(files: &[Arc<Path>], reader: &Reader<'_>, problems: &mut Problems) -> Vec<Candidate> {
    const AT_ONCE: usize = 64;
    let records: HashMap<&Path, &KnownFile> = reader.previous.iter().map(|record| (&*record.file, record)).collect();
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
                digest: record.digest,
                digest_before: record.digest,
                unsaved: None,
            };
            return (candidate, Problems::default());
        }
        let mut stamps = vec![FileStamp::of(file.clone(), self.now)];
        let (parsed, text) = match Source::read(file.clone(), MAX_CUSTOMER_FILE) {
            Ok(source) => (read_customer(&source, self.context, NamedFilesFrom::Disk), source.text),
            Err(error) => {
                let problem = describe_file(error, file.clone(), "customer file");
                (ParsedFile::unreadable(problem), String::new())
            }
        };
        // They were read a moment ago: one that changed since has not settled.
        stamps.extend(parsed.named_files.iter().map(|named| FileStamp::of(named.path.clone(), self.now)));
        // What is said anew but means the same is kept, so that nobody has to look at it again.
        let new = parsed.customer.map(|customer| match &previous {
            Some(previous) if **previous == customer => previous.clone(),
            _ => Arc::new(customer),
        });
        let digest = (self.saves && new.is_some()).then(|| Copy::digest(&text, parsed.users_text.as_deref()));
        let mut before = Before {
            customer: previous,
            named_files: record.map_or_else(Vec::new, |record| record.named_files.clone()),
            digest: record.and_then(|record| record.digest),
        };
        if let Some(copies) = self.copies {
            before = self.left_by_another(file, copies, new.as_ref(), digest, &parsed.named_files);
        }
        let choice = match (&new, &before.customer) {
            (Some(_), _) => Choice::New,
            (None, Some(_)) => Choice::Previous,
            (None, None) => Choice::Unusable,
        };
        let is_unsaved = digest.is_some() && digest != before.digest;
        let candidate = Candidate {
            file: file.clone(),
            new,
            previous: before.customer,
            choice,
            salvage: parsed.salvage,
            named_files: parsed.named_files,
            named_before: before.named_files,
            stamps,
            is_clean: parsed.problems.is_empty(),
            was_read: true,
            digest,
            digest_before: before.digest,
            unsaved: is_unsaved.then_some(Copy { text, users: parsed.users_text }),
        };
        (candidate, parsed.problems)
    }

    /// What an earlier daemon had in use of this file: what it still says, or the copy that was saved of it.
    fn left_by_another(
        &self,
        file: &Arc<Path>,
        copies: &LastGoodCopies,
        new: Option<&Arc<Customer>>,
        digest: Option<CopyDigest>,
        named_files: &[NamedFile],
    ) -> Before {
        let Some(&saved) = copies.digest_of(file) else { return Before::default() };
        if digest == Some(saved) {
            return Before { customer: new.cloned(), named_files: named_files.to_vec(), digest };
        }
        let Some(copy) = copies.copy_of(file) else { return Before::default() };
        let source = Source::new(file.clone(), copy.text);
        let parsed = read_customer(&source, self.context, NamedFilesFrom::Copy(copy.users.as_deref()));
        Before { customer: parsed.customer.map(Arc::new), named_files: parsed.named_files, digest: Some(saved) }
    }
}

/// What was in use before.
#[derive(Default)]
struct Before {
    customer: Option<Arc<Customer>>,
    named_files: Vec<NamedFile>,
    digest: Option<CopyDigest>,
}
