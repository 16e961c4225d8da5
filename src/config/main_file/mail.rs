//! `[mail]`: how relaykeeper sends its own mail.

use crate::config::defaults::mail as default;
use crate::config::reading::{Complaint, Table, TableSpec};
use crate::config::values;
use std::path::PathBuf;

pub(super) static MAIL: TableSpec =
    TableSpec { what: "[mail]", prefix: "mail.", keys: &["from", "sendmail", "smtp", "warn_users"] };

/// `[mail]`
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub from: Option<String>,
    pub route: MailRoute,
    /// Users get mail about their own limits, too.
    pub warn_users: bool,
}

impl Mail {
    /// The address in `From:`.
    pub fn sender(&self, hostname: &str) -> String {
        self.from.clone().unwrap_or_else(|| format!("postmaster@{hostname}"))
    }
}

/// How mail is submitted.
#[derive(Clone, Debug, PartialEq)]
pub enum MailRoute {
    /// To this program, called as sendmail(1).
    Sendmail(PathBuf),
    /// To a server, `HOST:PORT`.
    Smtp(String),
}

pub(super) fn read_mail(table: &Table<'_>) -> Mail {
    let from = table.get("from").and_then(|item| item.parsed("postmaster@relay.example.net", values::address));
    let sendmail_item = table.get("sendmail");
    let sendmail = sendmail_item.and_then(|item| item.parsed("/usr/sbin/sendmail", values::absolute_path));
    let smtp_item = table.get("smtp");
    let smtp = smtp_item.and_then(|item| item.parsed("127.0.0.1:25", values::host_and_port));
    if let (Some(_), Some(item)) = (sendmail_item, smtp_item) {
        item.error(
            Complaint::new("this conflicts with `mail.sendmail`", "only one of the two is allowed").help("remove one"),
        );
    }
    let route = match smtp {
        Some(smtp) => MailRoute::Smtp(smtp),
        None => MailRoute::Sendmail(sendmail.unwrap_or_else(|| default::SENDMAIL.into())),
    };
    let warn_users = table.get("warn_users").and_then(|item| item.boolean()).unwrap_or(default::WARN_USERS);
    Mail { from: from.map(|address| address.as_str().to_owned()), route, warn_users }
}
