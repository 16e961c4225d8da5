//! Everything, in order.

use super::canary;
use super::finding::{self, Finding, Severity};
use super::host::{self, Host, MtaUser};
use super::postfix::Postfix;
use super::sendmail::{self, Sendmail};
use crate::config::{self, Configuration};
use crate::control::{self, Command, ControlError, Response, Status};
use std::path::PathBuf;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Examination {
    pub config: PathBuf,
    /// A Postfix is meant; with its folder, if it is named.
    pub postfix: Option<Option<PathBuf>>,
    /// A Sendmail is meant; with its sendmail.cf, if it is named.
    pub sendmail: Option<Option<PathBuf>>,
    pub canary: bool,
}

/// What is said.
#[derive(Clone, Debug)]
pub struct Report {
    /// Sorted.
    pub findings: Vec<Finding>,
    /// No MTA is installed, and none was named.
    pub no_mta: bool,
    /// The canary was asked for, and the daemon cannot be reached.
    pub unreachable: bool,
}

/// Looks at everything.
pub fn examine(asked: &Examination) -> Report {
    let mut findings = Vec::new();
    let (problems, loaded) = config::check(&asked.config);
    findings.extend(host::bad_configuration(&asked.config, &problems));
    let Some(loaded) = loaded else { return Report::of(findings, false, asked.canary) };
    let listen = &loaded.settings.listen;
    let status = match control::ask(listen.control.as_ref(), &Command::Status) {
        Ok(Response::Status { status }) => Ok(*status),
        Ok(_) => Err(ControlError::NoAddress),
        Err(error) => Err(error),
    };
    let (sendmails, postfixes) = mtas(asked, &loaded, &status, &mut findings);
    let no_mta = sendmails.is_empty() && postfixes.is_empty() && asked.postfix.is_none() && asked.sendmail.is_none();
    for sendmail in &sendmails {
        findings.extend(sendmail.check());
    }
    let users = users_of(&sendmails, &postfixes);
    let host = Host { main: &asked.config, loaded: &loaded, status: status.as_ref(), users, postfixes: &postfixes };
    findings.extend(host.check());
    let unreachable = asked.canary && status.is_err();
    if asked.canary {
        match &status {
            Ok(_) => canary::fly(&loaded.settings, &postfixes, &sendmails, &mut findings),
            Err(error) => {
                findings.push(Finding::not_looked_at("--canary", "the canary was not sent", error.to_string()));
            }
        }
    }
    Report::of(findings, no_mta, unreachable)
}

impl Report {
    fn of(mut findings: Vec<Finding>, no_mta: bool, unreachable: bool) -> Report {
        finding::sort(&mut findings);
        Report { findings, no_mta, unreachable }
    }

    /// Whether there is an error or a warning.
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity != Severity::Note)
    }
}

/// The MTAs that are named, or else every one that is installed.
fn mtas<'l>(
    asked: &Examination,
    loaded: &'l Configuration,
    status: &Result<Status, ControlError>,
    findings: &mut Vec<Finding>,
) -> (Vec<Sendmail<'l>>, Vec<Postfix>) {
    let any = asked.postfix.is_none() && asked.sendmail.is_none();
    let is_down = status.is_err();
    let mut sendmails = Vec::new();
    let cf = match &asked.sendmail {
        Some(Some(cf)) => Some(cf.clone()),
        Some(None) => Some(sendmail::find_cf().unwrap_or_else(|| PathBuf::from("/etc/mail/sendmail.cf"))),
        None if any => sendmail::find_cf(),
        None => None,
    };
    if let Some(cf) = cf {
        match sendmail::gather(&cf, &loaded.settings, &loaded.directory, is_down) {
            Ok(found) => sendmails.push(found),
            Err(error) => {
                let what = "Sendmail was not looked at";
                findings.push(Finding::not_looked_at(cf.display().to_string(), what, error.to_string()));
            }
        }
    }
    let mut postfixes = Vec::new();
    if asked.postfix.is_some() || any {
        let folder = asked.postfix.clone().flatten();
        match Postfix::read(folder.as_deref()) {
            Ok(postfix) => {
                let place = postfix.folder.join("main.cf").display().to_string();
                let why = "this version does not read Postfix's restriction lists and milters; --canary shows whether each \
                           service asks relaykeeper";
                findings.push(Finding::not_looked_at(place, "what main.cf and master.cf say", why));
                postfixes.push(postfix);
            }
            Err(_) if any => {}
            Err(error) => {
                let place = folder.map_or_else(|| "Postfix".to_owned(), |folder| folder.display().to_string());
                findings.push(Finding::not_looked_at(place, "Postfix was not looked at", error.to_string()));
            }
        }
    }
    (sendmails, postfixes)
}

fn users_of(sendmails: &[Sendmail<'_>], postfixes: &[Postfix]) -> Vec<MtaUser> {
    let sendmail = sendmails.iter().filter_map(|sendmail| {
        let name = sendmail.run_as_user()?;
        Some(MtaUser { mta: "Sendmail", name, root: None, is_postfix: false })
    });
    let postfix = postfixes.iter().flat_map(|postfix| {
        let name = postfix.value("mail_owner").unwrap_or("postfix").to_owned();
        let queue = postfix.value("queue_directory").map(PathBuf::from);
        let is_chrooted = postfix.services.iter().any(|service| service.chroot);
        let user = |root| MtaUser { mta: "Postfix", name: name.clone(), root, is_postfix: true };
        let is_free = postfix.services.is_empty() || postfix.services.iter().any(|service| !service.chroot);
        let free = is_free.then(|| user(None));
        let chrooted = queue.filter(|_| is_chrooted).map(|queue| user(Some(queue)));
        free.into_iter().chain(chrooted).collect::<Vec<_>>()
    });
    sendmail.chain(postfix).collect()
}
