//! Loads the database into the books: several loaders, each counting for its own customers.
//!
//! Each account's messages must be counted in their order. So loading goes in rounds: each loader reads a range of ids and
//! sorts the rows by the loader that counts them; then each counts the rows that all loaders have read for it, range by range.

use super::store_file::StoreFile;
use crate::clock::Moment;
use crate::directory::SubjectKind;
use crate::ledger::RecipientKey;
use crate::ledger::local::book::{Book, Loaded, Place};
use crate::ledger::local::journal::LoadProgress;
use hashbrown::HashMap;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ids that a loader reads in a round: what is read is buffered until the other loaders have read theirs.
const RANGE: i64 = 2_048;

/// More would only wait for the disk.
const MAX_LOADERS: usize = 4;

/// Loads everything, or only some of it if the store is being closed meanwhile.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub(in crate::ledger::local) fn load(
    file: &StoreFile,
    book: &Book,
    now: Moment,
    progress: &LoadProgress,
) -> rusqlite::Result<()> {
    let connection = file.reader()?;
    let (first, last) = ids(&connection)?;
    progress.of.store((last - first + 1).max(0) as u64, Ordering::Relaxed);
    let accounts = StoredAccounts { places: read_accounts(&connection, book)?, resets: read_resets(&connection)? };
    if first > last {
        return Ok(());
    }
    let rounds = (last - first) / RANGE + 1;
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LOADERS).min(rounds as usize);
    let loaders = Loaders {
        accounts: &accounts,
        book,
        now,
        progress,
        count,
        rows: (0..count).map(|_| (0..count).map(|_| Mutex::default()).collect()).collect(),
        barrier: Barrier::new(count),
        stopped: AtomicBool::new(false),
    };
    let connections: Vec<Connection> = (0..count).map(|_| file.reader()).collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(loader, connection)| {
                let loaders = &loaders;
                scope.spawn(move || loaders.work(loader, &connection, first, last))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Messages of a hundred recipients each, as many as all loaders buffer, take less than 8 MB.
const _: () = assert!(MAX_LOADERS * RANGE as usize * (size_of::<Row>() + 100 * size_of::<RecipientKey>()) < 8 << 20);

/// What the rows refer to.
struct StoredAccounts {
    places: Places,
    /// The last reset of each account.
    resets: HashMap<i64, i64>,
}

impl StoredAccounts {
    /// The account's place, and whether a message with this id counts for it.
    fn place(&self, account: i64, id: i64) -> Option<(Place, bool)> {
        let place = self.places.get(account)?;
        let counts = self.resets.is_empty() || self.resets.get(&account).is_none_or(|&reset| id > reset);
        Some((place, counts))
    }
}

/// Accounts by number.
enum Places {
    /// From the lowest number on.
    Dense(i64, Vec<Option<Place>>),
    Sparse(HashMap<i64, Place>),
}

impl Places {
    fn get(&self, number: i64) -> Option<Place> {
        match self {
            Places::Dense(first, places) => *places.get(usize::try_from(number.checked_sub(*first)?).ok()?)?,
            Places::Sparse(places) => places.get(&number).copied(),
        }
    }

    fn set(&mut self, number: i64, place: Place) {
        match self {
            Places::Dense(first, places) => {
                let index = (number - *first) as usize;
                if index < places.len() {
                    places[index] = Some(place);
                }
            }
            Places::Sparse(places) => {
                places.insert(number, place);
            }
        }
    }
}

fn ids(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let query = "SELECT coalesce((SELECT min(id) FROM message), 1), coalesce((SELECT max(id) FROM message), 0)";
    connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn read_accounts(connection: &Connection, book: &Book) -> rusqlite::Result<Places> {
    let query = "SELECT count(*), coalesce(min(number), 0), coalesce(max(number), 0) FROM account";
    let (count, first, last): (i64, i64, i64) =
        connection.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut places = match last - first < 4 * count + 1024 {
        true => Places::Dense(first, vec![None; (last - first + 1) as usize]),
        false => Places::Sparse(HashMap::with_capacity(count as usize)),
    };
    book.number_from(last as u64 + 1);
    // Customers first: the places of their users and logins refer to theirs.
    for kind in [SubjectKind::Customer, SubjectKind::User, SubjectKind::Login] {
        let mut rows = connection.prepare("SELECT number, customer, name FROM account WHERE kind = ?1")?;
        let mut rows = rows.query([kind.key()])?;
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
            places.set(number, book.open_stored(kind, text(1)?, text(2)?, number as u64));
        }
    }
    Ok(places)
}

fn read_resets(connection: &Connection) -> rusqlite::Result<HashMap<i64, i64>> {
    let query = "SELECT account, max(id) FROM reset WHERE account IS NOT NULL GROUP BY account";
    connection.prepare(query)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The count.
struct Loaders<'a> {
    accounts: &'a StoredAccounts,
    book: &'a Book,
    now: Moment,
    progress: &'a LoadProgress,
    count: usize,
    /// What each loader (first index) has read for each (second).
    rows: Vec<Vec<Mutex<Rows>>>,
    barrier: Barrier,
    /// One of them failed, or the store is being closed: all of them stop.
    stopped: AtomicBool,
}

/// Rows of one range of ids, and all their keys in the same order.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    keys: Vec<RecipientKey>,
}

struct Row {
    message: Loaded,
    /// How many of the keys are its own.
    keys: u32,
}

impl Loaders<'_> {
    fn work(&self, loader: usize, connection: &Connection, first: i64, last: i64) -> rusqlite::Result<()> {
        let mut result = Ok(());
        let mut round_starts = first;
        while round_starts <= last {
            let from = round_starts.saturating_add(RANGE * loader as i64);
            if from <= last
                && let Err(error) = self.read(loader, connection, from, from.saturating_add(RANGE - 1))
            {
                self.stopped.store(true, Ordering::Relaxed);
                result = Err(error);
            }
            self.barrier.wait();
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            self.count_rows(loader);
            if loader == 0 && self.progress.is_closing() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            self.barrier.wait();
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            round_starts = round_starts.saturating_add(RANGE * self.count as i64);
        }
        result
    }

    fn read(&self, loader: usize, connection: &Connection, from: i64, to: i64) -> rusqlite::Result<()> {
        let mut read: Vec<_> = self.rows[loader].iter().map(|rows| rows.lock()).collect();
        let query = "SELECT id, at, customer, user, login, recipients, seen FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
        let mut rows = connection.prepare_cached(query)?;
        let mut rows = rows.query([from, to])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let Some((customer, customer_counts)) = self.accounts.place(row.get(2)?, id) else { continue };
            let sender = |column| -> rusqlite::Result<Option<Place>> {
                let Some(number) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
                let place = self.accounts.place(number, id);
                Ok(place.filter(|(place, counts)| *counts && place.shard == customer.shard).map(|(place, _)| place))
            };
            let loaded = Loaded {
                at: row.get::<_, i64>(1)?.clamp(0, u32::MAX.into()) as u32,
                customer,
                customer_counts,
                user: sender(3)?,
                login: sender(4)?,
                recipients: row.get::<_, i64>(5)?.clamp(0, u32::MAX.into()) as u32,
            };
            let read = &mut read[customer.shard as usize % self.count];
            let seen = row.get_ref(6)?.as_blob_or_null()?.unwrap_or_default();
            let keys = seen.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
            read.keys.extend(keys.map(RecipientKey));
            read.rows.push(Row { message: loaded, keys: (seen.len() / 8) as u32 });
        }
        self.progress.done.fetch_add((to - from + 1) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn count_rows(&self, loader: usize) {
        let mut book = self.book.load_shards(|shard| shard % self.count == loader);
        for read in self.rows.iter().map(|rows| &rows[loader]) {
            let mut read = read.lock();
            let mut keys = 0;
            for Row { message, keys: len } in &read.rows {
                let end = keys + *len as usize;
                book.count(message, &read.keys[keys..end], self.now);
                keys = end;
            }
            read.rows.clear();
            read.keys.clear();
        }
    }
}
