//! What the checks of the host and the canary need to know of a Postfix, from `postconf`.

use super::program;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// The most that postconf says.
const MAX_BYTES: u64 = 1024 * 1024;

/// One instance.
#[derive(Clone, Debug, Default)]
pub struct Postfix {
    /// Where main.cf and master.cf are.
    pub folder: PathBuf,
    values: BTreeMap<String, String>,
    pub services: Vec<Service>,
}

/// An entry of master.cf that runs smtpd or postscreen on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `127.0.0.1:2525`, `smtp`: as it stands.
    pub name: String,
    pub chroot: bool,
    pub options: BTreeMap<String, String>,
}

impl Postfix {
    /// The Postfix of a folder; without one, the one that is installed.
    ///
    /// # Errors
    /// There is no postconf, or no such folder.
    pub fn read(folder: Option<&Path>) -> io::Result<Postfix> {
        let postconf = find().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no postconf"))?;
        let run = |more: &[&str]| {
            let mut arguments: Vec<&OsStr> = Vec::new();
            if let Some(folder) = folder {
                arguments.extend(["-c".as_ref(), folder.as_os_str()]);
            }
            arguments.extend(more.iter().map(OsStr::new));
            program::output(&postconf, &arguments, "", MAX_BYTES)
        };
        let text = run(&[
            "-x",
            "config_directory",
            "mail_owner",
            "queue_directory",
            "myhostname",
            "inet_interfaces",
            "mail_version",
            "smtpd_tls_wrappermode",
            "smtpd_milters",
        ])?;
        let mut postfix = Postfix::parse(&text, &run(&["-M"])?);
        if let Some(folder) = folder.map(Path::to_owned).or_else(|| postfix.value("config_directory").map(Into::into)) {
            postfix.folder = folder;
        }
        Ok(postfix)
    }

    fn parse(values: &str, services: &str) -> Postfix {
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        Postfix {
            folder: PathBuf::new(),
            values: values.lines().filter_map(pair).collect(),
            services: services.lines().filter_map(service).collect(),
        }
    }

    /// A parameter of main.cf, or its default; `None` where it is empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn place(&self, service: &Service) -> String {
        format!("{} {}/inet", self.folder.join("master.cf").display(), service.name)
    }
}

impl Service {
    /// The host part of its name, if it has one, and the port.
    pub fn address(&self) -> (Option<&str>, &str) {
        match self.name.rsplit_once(':') {
            Some((host, port)) => (Some(host.trim_matches(['[', ']'])).filter(|host| !host.is_empty()), port),
            None => (None, &self.name),
        }
    }
}

/// `smtp inet n - y - - smtpd -o name=value …`
fn service(line: &str) -> Option<Service> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, "inet", _, _, chroot, _, _, "smtpd" | "postscreen", arguments @ ..] = &*words else { return None };
    let mut options = BTreeMap::new();
    for (at, word) in arguments.iter().enumerate() {
        let option = if *word == "-o" { arguments.get(at + 1).copied() } else { word.strip_prefix("-o") };
        if let Some((name, value)) = option.and_then(|option| option.split_once('=')) {
            options.insert(name.to_owned(), value.to_owned());
        }
    }
    Some(Service { name: (*name).to_owned(), chroot: *chroot == "y", options })
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join("postconf")).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_postconf_writes_them() {
        let services = "smtp       inet  n       -       y       -       -       smtpd\n\
            [::1]:2525 inet  n       -       n       -       -       smtpd -o smtpd_tls_wrappermode=yes -o a=b\n\
            pickup     unix  n       -       y       60      1       pickup\n\
            smtps      inet  n       -       n       -       -       smtpd -osmtpd_milters=\n";
        let postfix = Postfix::parse("mail_owner = postfix\nrelayhost =\n", services);
        assert_eq!((postfix.value("mail_owner"), postfix.value("relayhost")), (Some("postfix"), None));
        let all: Vec<_> = postfix.services.iter().map(|service| (service.address(), service.chroot)).collect();
        assert_eq!(all, [((None, "smtp"), true), ((Some("::1"), "2525"), false), ((None, "smtps"), false)]);
        assert_eq!(postfix.services[1].options["smtpd_tls_wrappermode"], "yes");
        assert_eq!(postfix.services[2].options["smtpd_milters"], "");
    }
}
