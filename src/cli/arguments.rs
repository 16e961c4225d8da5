//! What can be typed.

use crate::directory::LimitName;
use crate::report::Reference;
use crate::report::reference::NotAReference;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

pub const DEFAULT_CONFIG: &str = "/etc/relaykeeper/relaykeeper.toml";

/// Decides for Postfix and Sendmail who may relay, as whom, and how much.
#[derive(Debug, Parser)]
#[command(name = "relaykeeper", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done; 1 the answer is no (bad configuration, deferred, refused); 2 wrong usage; \
    3 the daemon cannot be reached. Manual: relaykeeper(8), relaykeeper.toml(5)."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The main configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground; SIGHUP reloads, SIGTERM drains and stops
    Serve {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Read the whole configuration and report every error at once
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Check the files only, not what a start needs on this machine
        #[arg(long)]
        files_only: bool,
    },
    /// Find the silent faults of an installation: an MTA that does not ask, or goes on without asking; changes nothing
    Doctor(Doctor),
    /// Connect to sockets as another user (used by doctor)
    #[command(hide = true)]
    ConnectAs {
        user: String,
        /// Its root folder; /: none of its own
        root: PathBuf,
        addresses: Vec<String>,
    },
    /// Tell what would happen to a transaction, or what was decided about one, and why; needs no daemon
    Explain(Explain),
    /// Show or reset what is counted
    Quota {
        #[command(subcommand)]
        command: Quota,
    },
    /// Raise a limit of a user or customer until a time; ends by itself
    Grant(Grant),
    /// Show what is granted for a while
    Grants {
        #[command(flatten)]
        config: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse all mail of a user, or let it pass again
    User {
        #[command(subcommand)]
        command: Suspend,
    },
    /// Refuse all mail of a customer, or let it pass again
    Customer {
        #[command(subcommand)]
        command: Suspend,
    },
    /// Refuse all mail that comes with a login, registered or not, or let it pass again
    Login {
        #[command(subcommand)]
        command: Suspend,
    },
    /// Refuse all mail from an IP address or a range, or let it pass again
    Client {
        #[command(subcommand)]
        command: Suspend,
    },
    /// Show who changed what, when and why, and whether that log was touched; needs no daemon
    Audit {
        #[command(flatten)]
        config: ConfigFile,
        /// Only from then on: a duration (2d), a weekday, a date, or RFC 3339
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell whether the daemon is healthy, and what it has decided
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the daemon read its configuration again, and report the errors
    Reload {
        #[command(flatten)]
        config: ConfigFile,
        /// The reason, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// Go on even if no customer is left
        #[arg(long)]
        allow_no_customers: bool,
    },
    /// Print the enabled address ranges as a table for MTAs that cannot ask the daemon
    Export {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(value_enum)]
        format: ExportFormat,
    },
    /// Write the store to one file, while the daemon runs or not: counts, orders, audit log, decisions
    Backup {
        #[command(flatten)]
        config: ConfigFile,
        /// The file; an earlier backup is replaced
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put a backup in the place of the store; the daemon must not run
    Restore {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The reason, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
    },
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub config: ConfigFile,
    /// Look at Postfix, with its configuration in this folder
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub postfix: Option<Option<PathBuf>>,
    /// Look at Sendmail, with this sendmail.cf
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub sendmail: Option<Option<PathBuf>>,
    /// Hold an SMTP session with each service up to RCPT, and see whether the daemon hears of it
    #[arg(long)]
    pub canary: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub config: ConfigFile,
    /// The reference of a reply or a log line: tells what was decided then
    #[arg(value_parser = reference, conflicts_with_all = ["via", "client", "helo", "tls", "login", "sasl_method", "sender", "size", "recipients"])]
    pub reference: Option<Reference>,
    /// Through which protocols the MTA asks; without this option those that [listen] offers
    #[arg(long, value_enum)]
    pub via: Option<Via>,
    /// The client's address
    #[arg(long, value_name = "ADDR", value_parser = client, required_unless_present = "reference")]
    pub client: Option<IpAddr>,
    /// The name that the client gives at HELO or EHLO
    #[arg(long, value_name = "NAME", default_value = "")]
    pub helo: String,
    /// The TLS version, such as TLSv1.3; without this option the mail comes in clear text
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub tls: String,
    /// The name that SMTP AUTH confirmed
    #[arg(long, value_name = "LOGIN", default_value = "")]
    pub login: String,
    /// The method of the login, as Postfix reports it; XCLIENT where a proxy handed the login over
    #[arg(long, value_name = "METHOD", default_value = "")]
    pub sasl_method: String,
    /// The envelope sender; "<>" or "" is the empty sender
    #[arg(long, value_name = "ADDR", required_unless_present = "reference")]
    pub sender: Option<String>,
    /// The size that the client declares (SIZE= of MAIL), in bytes
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u64>,
    /// A recipient; may be given several times
    #[arg(long = "recipient", value_name = "ADDR", required_unless_present = "reference", num_args = 1..)]
    pub recipients: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// See [`session::Via`](crate::session::Via).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Via {
    /// A milter alone: Sendmail, or Postfix without the policy service
    Milter,
    /// The policy service alone
    Policy,
    /// The policy service with a milter session open, as in the recommended set-up of Postfix
    Both,
}

#[derive(Debug, Subcommand)]
pub enum Quota {
    /// Show the limits of users and customers, and how much of them is used
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// A user's address, a customer's name, or login: and a login
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who has the highest usage of each limit
    Top {
        #[command(flatten)]
        config: ConfigFile,
        /// One limit only, such as user.messages_per_day; may be given several times
        #[arg(long = "limit", value_name = "LIMIT")]
        limits: Vec<LimitName>,
        /// Sort by the share of the limit that is used, or by the number
        #[arg(long, value_enum, default_value_t = TopBy::Share)]
        by: TopBy,
        /// How many to show for each limit
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        most: u16,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget what was counted for a user, a login or a customer; or believe a clock
    Reset {
        #[command(flatten)]
        config: ConfigFile,
        /// A user's address, a customer's name, or login: and a login
        #[arg(required_unless_present = "clock", conflicts_with = "clock")]
        name: Option<String>,
        /// A Redis or Valkey server's clock jumped, and its new time is right: move what was counted there
        #[arg(long)]
        clock: bool,
        /// The reason, for the log
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct Grant {
    #[command(flatten)]
    pub config: ConfigFile,
    /// A user's address or alias, or a customer's name
    pub name: String,
    /// A limit that counts, such as user.messages_per_day
    pub limit: LimitName,
    /// How much more; +0 takes a grant back
    #[arg(value_name = "+N", value_parser = more)]
    pub more: u64,
    /// Until when: a duration (2d), a weekday, a date, or RFC 3339
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Suspend {
    /// Refuse all its mail from now on
    Suspend {
        #[command(flatten)]
        config: ConfigFile,
        /// The user's address or alias, the customer's name, the login, or the client's IP address or range
        name: String,
        /// The reason; replies to the client contain it
        #[arg(long, value_name = "TEXT")]
        why: String,
        /// Until when: a duration (2d), a weekday, a date, or RFC 3339; without this option until it is resumed
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let its mail pass again
    Resume {
        #[command(flatten)]
        config: ConfigFile,
        /// The user's address or alias, the customer's name, the login, or the client's IP address or range
        name: String,
        /// The reason, for the audit log
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// See [`control::RankBy`](crate::control::RankBy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopBy {
    Share,
    Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A cidr_table(5) for Postfix
    PostfixCidr,
    /// An access map for Sendmail
    SendmailAccess,
}

fn reference(text: &str) -> Result<Reference, NotAReference> {
    text.parse()
}

fn more(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('+').map(|number| number.replace('_', "").parse());
    match (number, text.replace('_', "").parse::<u64>()) {
        (Some(Ok(number)), _) => Ok(number),
        (_, Ok(number)) => Err(format!("a grant adds to the limit: write +{number} for {number} more")),
        _ => Err("not a number to add; write +5000".to_owned()),
    }
}

fn client(text: &str) -> Result<IpAddr, String> {
    crate::envelope::parse_client(text).ok_or_else(|| "not an IP address; write 192.0.2.7 or 2001:db8::7".to_owned())
}
