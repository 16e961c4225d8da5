//! What the host says beside sendmail.cf: the program and what it was built with, class w, the access map, the running process.

use super::cf::SendmailCf;
use super::{Access, Relaykeeper, Sendmail};
use crate::config::Settings;
use crate::directory::Directory;
use crate::doctor::program;
use crate::export;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where Sendmail's own configuration lies.
const USUAL: [&str; 2] = ["/etc/mail/sendmail.cf", "/etc/sendmail.cf"];

/// Where the program may be. Where Postfix is installed, `sendmail` in PATH is Postfix's.
const PROGRAMS: [&str; 5] = [
    "/usr/libexec/sendmail/sendmail",
    "/usr/lib/sm.bin/sendmail",
    "/usr/sbin/sendmail.sendmail",
    "/usr/sbin/sendmail",
    "/usr/local/sbin/sendmail",
];

/// The longest output of makemap that is read: about a million lines.
const MAX_MAP: u64 = 128 * 1024 * 1024;

/// The sendmail.cf of this host, if Sendmail is installed.
pub fn find_cf() -> Option<PathBuf> {
    let cf = USUAL.iter().map(PathBuf::from).find(|path| path.is_file())?;
    find_program().map(|_| cf)
}

/// Everything about the Sendmail of this sendmail.cf.
///
/// # Errors
/// It cannot be read.
pub fn gather<'a>(
    path: &Path,
    settings: &'a Settings,
    directory: &Directory,
    is_down: bool,
) -> io::Result<Sendmail<'a>> {
    let cf = SendmailCf::read(path)?;
    let program = find_program();
    let answers = program.as_deref().and_then(|program| {
        program::output(program, &["-C".as_ref(), path.as_ref(), "-bt".as_ref()], "$=w\n$j\n", 256 * 1024).ok()
    });
    let built = program.as_deref().and_then(built_with);
    let (class_w, asked_name) = answers.as_deref().map_or((None, None), answers_of);
    let written_name = cf.macro_value("j").filter(|name| !name.contains('$')).map(str::to_owned);
    Ok(Sendmail {
        relaykeeper: Relaykeeper::of(settings, directory, is_down),
        exported: exported_keys(directory),
        access: access(&cf, &settings.relay.customers),
        class_w,
        host_name: written_name.or(asked_name).map(|name| name.to_lowercase()),
        has_milter: built.map(|built| built.split_whitespace().any(|word| word == "MILTER")),
        written: modified(path),
        started: started(&cf),
        mc: source_of(path),
        cf,
    })
}

/// A program that is Sendmail, and not another MTA's of that name.
fn find_program() -> Option<PathBuf> {
    let candidates = in_path("sendmail").chain(PROGRAMS.iter().map(PathBuf::from));
    candidates.filter(|program| program.exists()).find(|program| built_with(program).is_some())
}

fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).collect::<Vec<_>>().into_iter()
}

/// `Compiled with: DNSMAP … MILTER …`
fn built_with(program: &Path) -> Option<String> {
    let output = program::output(program, &["-d0.1".as_ref(), "-bt".as_ref()], "", 64 * 1024).ok()?;
    output.contains("Compiled with:").then_some(output)
}

/// Class w, one word a line, and `$j`, from the test mode's answers, each behind a prompt.
fn answers_of(output: &str) -> (Option<Vec<String>>, Option<String>) {
    let mut answers = output.split("\n> ").skip(1);
    let mut words = || {
        let answer = answers.next()?;
        Some(answer.lines().map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>())
    };
    let class_w = words().filter(|words| !words.is_empty());
    (class_w, words().and_then(|words| words.into_iter().next()))
}

fn exported_keys(directory: &Directory) -> Vec<String> {
    let text = export::sendmail_access(directory).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// What `Kaccess` names.
fn access(cf: &SendmailCf, customers: &Path) -> Access {
    let Some((line, definition)) = cf.map("access") else { return Access { is_missing: true, ..Access::default() } };
    let mut words = definition.split_whitespace();
    let kind = words.next().unwrap_or_default().to_owned();
    let Some(path) = words.find(|word| word.starts_with('/')).map(PathBuf::from) else {
        // LDAP, or a map of several: nothing to look at here.
        return Access { line, ..Access::default() };
    };
    let with = |ending: &str| {
        let mut name = path.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let file = [".db", ".pag", ".lmdb", ".cdb"].map(with).into_iter().find(|file| file.exists());
    let Some(file) = file else {
        let is_missing = matches!(&*kind, "hash" | "btree" | "dbm" | "lmdb" | "cdb");
        return Access { line, path: Some(path), is_missing, ..Access::default() };
    };
    let is_older_than_text = modified(&path).zip(modified(&file)).is_some_and(|(text, map)| text > map);
    let entries = find_makemap().and_then(|makemap| {
        let arguments = ["-C".as_ref(), "/dev/null".as_ref(), "-u".as_ref(), kind.as_ref(), path.as_os_str()];
        program::output(&makemap, &arguments, "", MAX_MAP).ok()
    });
    let entries = entries.map(|text| {
        let pairs = text.lines().filter_map(|line| line.split_once(['\t', ' ']));
        pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
    });
    let is_old = modified(&file).zip(newest(customers)).is_some_and(|(map, customer)| customer > map);
    Access { line, path: Some(path), is_missing: false, entries, is_older_than_text, is_old }
}

fn find_makemap() -> Option<PathBuf> {
    let usual = ["/usr/sbin/makemap", "/usr/lib/sm.bin/makemap", "/usr/bin/makemap"].map(PathBuf::from);
    in_path("makemap").chain(usual).find(|program| program.exists())
}

/// When the last of the customers' files was changed.
fn newest(customers: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(customers).ok()?.flatten().map(|entry| entry.path());
    files
        .filter(|file| file.extension().is_some_and(|ending| ending == "toml"))
        .filter_map(|file| modified(&file))
        .max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// When the daemon of `O PidFile` started, if it runs.
fn started(cf: &SendmailCf) -> Option<SystemTime> {
    let path = match cf.value("PidFile") {
        "" => "/var/run/sendmail.pid",
        path => path,
    };
    let text = crate::files::read_regular(Path::new(path), 4_096).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    process_start(pid)
}

/// When a process started (proc(5): field 22 of stat, in ticks of 10 ms since the boot).
pub(in crate::doctor) fn process_start(pid: u32) -> Option<SystemTime> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let booted = fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(booted) + Duration::from_millis(ticks.checked_mul(10)?))
}

/// The m4 source that lies beside it.
fn source_of(cf: &Path) -> Option<(PathBuf, SystemTime)> {
    let mc = cf.with_extension("mc");
    modified(&mc).map(|changed| (mc, changed))
}
