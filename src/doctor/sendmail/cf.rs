//! Reads a sendmail.cf: the lines that say who is asked and who may relay. Rules are looked at, not followed.
//!
//! The form of the lines: Sendmail Installation and Operation Guide, section 5; of filters: cf/README, "ADDING NEW MAIL FILTERS".

use crate::files::open_regular;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file that is longer is none of Sendmail's.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What a sendmail.cf says.
#[derive(Clone, Debug, Default)]
pub struct SendmailCf {
    pub path: PathBuf,
    /// `O Name=value`, in order; of most options the last one counts.
    pub options: Vec<CfOption>,
    /// `X` lines.
    pub filters: Vec<Filter>,
    /// `D` lines: the last value of each macro.
    macros: BTreeMap<String, String>,
    /// `C` and `F` lines.
    classes: BTreeMap<String, Class>,
    /// `K` lines: the rest of the line after the map's name.
    maps: BTreeMap<String, (usize, String)>,
    /// The m4 files that it was made of, by their VERSIONID comments: `access_db`, `promiscuous_relay`.
    features: BTreeMap<String, usize>,
    /// The rules of a recipient call `Relay_ok`.
    pub asks_relay_ok: bool,
    /// There are rules at all: not an excerpt.
    pub has_rules: bool,
}

/// `O Name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfOption {
    pub name: String,
    pub value: String,
    pub line: usize,
}

/// `Xname, S=…, F=…, T=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub name: String,
    pub line: usize,
    /// The socket, in Sendmail's spelling; empty without.
    pub socket: String,
    /// `F=`; empty without.
    pub flags: String,
    /// `T=`: letters and times as they stand.
    pub times: Vec<(char, String)>,
    /// Items that Sendmail does not start with.
    pub malformed: Vec<String>,
}

/// A class: its words, and the files that it is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    pub words: Vec<String>,
    pub files: Vec<PathBuf>,
    pub line: usize,
}

/// A service: one `DaemonPortOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub line: usize,
    /// The whole value.
    pub text: String,
    pub name: String,
    /// `inet`, `inet6`; empty: both, by the system.
    pub family: String,
    /// Empty: all.
    pub address: String,
    /// A number or a service's name.
    pub port: String,
    /// `InputMailFilters=`, if it is there.
    pub filters: Option<Vec<String>>,
    /// What stands behind a comma in `InputMailFilters`, where nobody reads it.
    pub cut_off: Vec<String>,
    /// `M=`: of a letter `a`, AUTH is required there.
    pub modifiers: String,
}

impl SendmailCf {
    /// Reads a file.
    ///
    /// # Errors
    /// As the system says.
    pub fn read(path: &Path) -> std::io::Result<SendmailCf> {
        let mut bytes = Vec::new();
        open_regular(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let mut cf = SendmailCf::parse(&String::from_utf8_lossy(&bytes));
        cf.path = path.to_owned();
        Ok(cf)
    }

    pub fn parse(text: &str) -> SendmailCf {
        let mut cf = SendmailCf::default();
        let mut ruleset = String::new();
        for (line, text) in logical_lines(text) {
            if let Some(feature) = feature_of(&text) {
                cf.features.entry(feature.to_owned()).or_insert(line);
            }
            let Some(kind) = text.chars().next() else { continue };
            let rest = &text[kind.len_utf8()..];
            match kind {
                'O' => cf.options.extend(option(rest, line)),
                'X' => cf.filters.extend(filter(rest, line)),
                'D' => {
                    let (name, value) = named(rest);
                    cf.macros.insert(name.to_owned(), value.to_owned());
                }
                'C' => {
                    let (name, words) = named(rest);
                    let class = cf.class_mut(name, line);
                    class.words.extend(words.split_whitespace().map(str::to_owned));
                }
                'F' => {
                    let (name, file) = named(rest);
                    // `-o`: it may be missing; what follows the name is a scanf(3) format.
                    let file = file.trim().strip_prefix("-o").unwrap_or(file).trim();
                    if let Some(path) = file.split_whitespace().next().filter(|path| path.starts_with('/')) {
                        let path = PathBuf::from(path);
                        cf.class_mut(name, line).files.push(path);
                    }
                }
                'K' => {
                    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    cf.maps.insert(name.to_owned(), (line, rest.trim().to_owned()));
                }
                'S' => {
                    ruleset = rest.split(['=', ' ', '\t']).next().unwrap_or_default().to_owned();
                    cf.has_rules = true;
                }
                'R' if is_of_recipients(&ruleset) && rest.contains("Relay_ok") => cf.asks_relay_ok = true,
                _ => {}
            }
        }
        cf
    }

    fn class_mut(&mut self, name: &str, line: usize) -> &mut Class {
        let class = self.classes.entry(name.to_owned()).or_default();
        if class.line == 0 {
            class.line = line;
        }
        class
    }

    /// The option that counts: the last one.
    pub fn option(&self, name: &str) -> Option<&CfOption> {
        self.options.iter().rev().find(|option| option.name.eq_ignore_ascii_case(name))
    }

    /// Its value; empty where it is not set.
    pub fn value(&self, name: &str) -> &str {
        self.option(name).map_or("", |option| &option.value)
    }

    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The map's line, and what it is: `hash -T<TMPF> /etc/mail/access`.
    pub fn map(&self, name: &str) -> Option<(usize, &str)> {
        self.maps.get(name).map(|(line, rest)| (*line, rest.as_str()))
    }

    /// The line that names an m4 file that it was made of.
    pub fn feature(&self, name: &str) -> Option<usize> {
        self.features.get(name).copied()
    }

    /// A macro's value as it stands.
    pub fn macro_value(&self, name: &str) -> Option<&str> {
        self.macros.get(name).map(String::as_str)
    }

    /// `O InputMailFilters`: where it is not set, no filter is asked.
    pub fn default_filters(&self) -> Vec<String> {
        list(self.value("InputMailFilters"), &[',', ' ', '\t'])
    }

    pub fn filter(&self, name: &str) -> Option<&Filter> {
        self.filters.iter().rev().find(|filter| filter.name == name)
    }

    /// The services. Without any `DaemonPortOptions`, port 25 of all addresses.
    pub fn daemons(&self) -> Vec<Daemon> {
        let options = self.options.iter().filter(|option| option.name.eq_ignore_ascii_case("DaemonPortOptions"));
        let mut daemons: Vec<_> = options.map(daemon).collect();
        if daemons.is_empty() {
            daemons.push(daemon(&CfOption { name: String::new(), value: String::new(), line: 0 }));
        }
        daemons
    }

    /// The filters that are asked for a service, in order.
    pub fn filters_of(&self, daemon: &Daemon) -> Vec<String> {
        daemon.filters.clone().unwrap_or_else(|| self.default_filters())
    }
}

impl Filter {
    /// A time of `T=` in seconds; `None` where it is not set or cannot be read.
    pub fn seconds(&self, letter: char) -> Option<u64> {
        self.times.iter().rev().find(|(name, _)| *name == letter).and_then(|(_, time)| seconds(time))
    }
}

impl Daemon {
    /// As people name it: `Name=MSA`, or the port.
    pub fn title(&self) -> String {
        match (&*self.name, &*self.port) {
            ("", "") => "port 25".to_owned(),
            ("", port) => format!("Port={port}"),
            (name, _) => format!("Name={name}"),
        }
    }
}

/// Lines without comments; what begins with a blank goes on with the line before.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let is_continued = line.starts_with([' ', '\t']);
        match lines.last_mut() {
            Some((_, last)) if is_continued && !last.is_empty() && !last.starts_with('#') => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push((at + 1, line.trim_end().to_owned())),
        }
    }
    lines
}

/// `#####  $Id: access_db.m4,v 8.28 …  #####`
fn feature_of(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix('#')?.split_once("$Id: ")?.1.split_once(".m4")?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

fn option(rest: &str, line: usize) -> Option<CfOption> {
    // The short names of old versions (`Oa5`) say nothing of interest here.
    let (name, value) = rest.strip_prefix(' ')?.split_once('=')?;
    Some(CfOption { name: name.trim().to_owned(), value: value.trim().to_owned(), line })
}

/// The name of a macro or class: one letter, or `{…}`; and what follows.
fn named(rest: &str) -> (&str, &str) {
    if let Some((name, rest)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return (name, rest);
    }
    let end = rest.chars().next().map_or(0, char::len_utf8);
    rest.split_at(end)
}

fn filter(rest: &str, line: usize) -> Option<Filter> {
    let mut items = rest.split(',').map(str::trim);
    let name = items.next()?.to_owned();
    let (mut socket, mut flags) = (String::new(), String::new());
    let (mut times, mut malformed) = (Vec::new(), Vec::new());
    for item in items.filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        match (key.trim(), item.contains('=')) {
            ("S", true) => socket = value.trim().to_owned(),
            ("F", true) => flags = value.trim().to_owned(),
            ("T", true) => {
                for time in list(value, &[';']) {
                    match time.split_once(':') {
                        Some((letter, time)) if letter.len() == 1 => {
                            times.extend(letter.chars().map(|letter| (letter, time.to_owned())));
                        }
                        _ => malformed.push(format!("T={value}")),
                    }
                }
            }
            _ => malformed.push(item.to_owned()),
        }
    }
    Some(Filter { name, line, socket, flags, times, malformed })
}

/// The keys are known by their first letter (daemon.c, setsockaddroptions).
fn daemon(option: &CfOption) -> Daemon {
    let mut daemon = Daemon {
        line: option.line,
        text: option.value.clone(),
        name: String::new(),
        family: String::new(),
        address: String::new(),
        port: String::new(),
        filters: None,
        cut_off: Vec::new(),
        modifiers: String::new(),
    };
    let mut after_filters = false;
    for item in option.value.split(',').map(str::trim) {
        let Some((key, value)) = item.split_once('=') else {
            if after_filters && !item.is_empty() {
                daemon.cut_off.push(item.to_owned());
            }
            continue;
        };
        let value = value.trim().to_owned();
        after_filters = false;
        match key.trim().chars().next() {
            Some('A') => daemon.address = value,
            Some('F') => daemon.family = value,
            Some('I') => {
                daemon.filters = Some(list(&value, &[';']));
                after_filters = true;
            }
            Some('M') => daemon.modifiers = value,
            Some('N') => daemon.name = value,
            Some('P') => daemon.port = value,
            _ => {}
        }
    }
    daemon
}

/// The items between separators, trimmed, without empty ones.
fn list(text: &str, separators: &[char]) -> Vec<String> {
    text.split(separators).map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// The rulesets that a recipient goes through, with what `FEATURE(delay_checks)` makes of them.
fn is_of_recipients(ruleset: &str) -> bool {
    matches!(ruleset, "check_rcpt" | "Basic_check_rcpt" | "checkrcpt" | "Rcpt_ok" | "Local_check_rcpt")
}

/// `30s`, `5m`, `1h`, `1d`, `1w`, a number alone: seconds here.
fn seconds(time: &str) -> Option<u64> {
    let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &time[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests;
