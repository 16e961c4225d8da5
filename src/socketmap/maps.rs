//! The maps and their contents.

use super::reply::LookupReply;
use crate::config::{PasswordFileError, read_password};
use crate::directory::FurtherSender;
use crate::envelope::{Sender, parse_client};
use crate::policy::{Route, route};
use crate::session::Snapshot;
use std::path::PathBuf;

/// The maps that there are.
pub const MAP_NAMES: [&str; 4] = ["clients", "transport", "relayhost", "credentials"];

/// What a look-up comes to.
#[derive(Debug)]
pub(super) enum Lookup {
    Reply(LookupReply),
    /// The password must be read from a file.
    PasswordFile(PasswordFile),
}

/// A login at a gateway whose password is in a file.
#[derive(Debug)]
pub(super) struct PasswordFile {
    /// Whose it is, for the log.
    pub sender: Box<str>,
    username: String,
    password_file: PathBuf,
}

impl PasswordFile {
    /// Reads the password; blocks.
    pub fn read(&self) -> Result<LookupReply, PasswordFileError> {
        Ok(LookupReply::Login(self.username.clone(), read_password(&self.password_file)?))
    }
}

/// `may_log_in`: whether the peer may have passwords.
pub(super) fn look_up(map: &str, key: &str, snapshot: &Snapshot, may_log_in: bool) -> Lookup {
    let reply = match map {
        "clients" => client(key, snapshot),
        "transport" => next_hop(key, snapshot, |transport, hop| format!("{transport}:{hop}")),
        "relayhost" => next_hop(key, snapshot, |_, hop| hop.to_owned()),
        "credentials" if !may_log_in => {
            LookupReply::Permanent("credentials are available over unix sockets only, not over TCP".into())
        }
        "credentials" => return credentials(key, snapshot),
        _ => LookupReply::Permanent(format!("there is no such map; the maps are {}", MAP_NAMES.join(", ")).into()),
    };
    Lookup::Reply(reply)
}

/// Postfix asks for the client's name, too (`mynetworks`, `check_client_access`): that is in no map.
fn client(key: &str, snapshot: &Snapshot) -> LookupReply {
    let Some(client) = parse_client(key) else { return LookupReply::NotFound };
    if snapshot.directory.lets_in_by_address(client) {
        return LookupReply::Ok("OK".into());
    }
    match snapshot.directory.has_unusable_customers() {
        // It may be that customer's address, and "not found" would refuse its mail for good.
        true => LookupReply::Temporary("some customer files have errors; see relaykeeper's log".into()),
        false => LookupReply::NotFound,
    }
}

fn next_hop(key: &str, snapshot: &Snapshot, write: impl Fn(&str, &str) -> String) -> LookupReply {
    match route_of(key, snapshot) {
        Route::Direct => LookupReply::NotFound,
        Route::UserGateway(sender) => match &sender.gateway {
            Some(gateway) => LookupReply::Ok(write(&snapshot.settings.relay.gateway_transport, gateway).into()),
            None => LookupReply::NotFound,
        },
        Route::CustomerGateway(gateway) => LookupReply::Ok(write("smtp", gateway).into()),
        Route::Unknown => unusable(),
    }
}

/// Only for the sender: asked for a host, Postfix would hand out one user's login to the mail of another.
fn credentials(key: &str, snapshot: &Snapshot) -> Lookup {
    let (username, password_file, sender) = match route_of(key, snapshot) {
        Route::UserGateway(FurtherSender { username: Some(username), password_file: Some(file), address, .. }) => {
            (username.clone(), file.clone(), address.clone())
        }
        Route::Unknown => return Lookup::Reply(unusable()),
        _ => return Lookup::Reply(LookupReply::NotFound),
    };
    Lookup::PasswordFile(PasswordFile { sender, username, password_file })
}

fn unusable() -> LookupReply {
    LookupReply::Temporary("the customer file of this sender has errors; see relaykeeper's log".into())
}

/// Keys that are no address (a host in brackets, `@domain`, a domain) have no route: Postfix looks up complete senders, too.
fn route_of<'a>(key: &str, snapshot: &'a Snapshot) -> Route<'a> {
    let is_address = key.contains('@') && !key.starts_with('@');
    match Sender::from_either(key) {
        Ok(sender) if is_address => route(&sender, &snapshot.rules()),
        _ => Route::Direct,
    }
}
