//! The maps, and what stands in them.

use super::answer::Answer;
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
pub(super) enum Found {
    Answer(Answer),
    /// The answer is in a file.
    LoginAt(LoginAt),
}

/// A login at a gateway.
#[derive(Debug)]
pub(super) struct LoginAt {
    /// Whose it is, for the log.
    pub sender: Box<str>,
    username: String,
    password_file: PathBuf,
}

impl LoginAt {
    /// Reads the password; blocks.
    pub fn read(&self) -> Result<Answer, PasswordFileError> {
        Ok(Answer::Login(self.username.clone(), read_password(&self.password_file)?))
    }
}

/// `may_log_in`: whether whoever asks may be told passwords.
pub(super) fn look_up(map: &str, key: &str, snapshot: &Snapshot, may_log_in: bool) -> Found {
    let answer = match map {
        "clients" => client(key, snapshot),
        "transport" => next_hop(key, snapshot, |transport, hop| format!("{transport}:{hop}")),
        "relayhost" => next_hop(key, snapshot, |_, hop| hop.to_owned()),
        "credentials" if !may_log_in => {
            Answer::Permanent("credentials are told over unix sockets only, not over TCP".into())
        }
        "credentials" => return credentials(key, snapshot),
        _ => Answer::Permanent(format!("there is no such map; the maps are {}", MAP_NAMES.join(", ")).into()),
    };
    Found::Answer(answer)
}

/// Postfix asks for the client's name, too (`mynetworks`, `check_client_access`): that is in no map.
fn client(key: &str, snapshot: &Snapshot) -> Answer {
    let Some(client) = parse_client(key) else { return Answer::NotFound };
    if snapshot.directory.lets_in_by_address(client) {
        return Answer::Ok("OK".into());
    }
    match snapshot.directory.has_unusable_customers() {
        // It may be that customer's address, and "not found" would refuse its mail for good.
        true => Answer::Temporary("a part of the customers' configuration is out of order".into()),
        false => Answer::NotFound,
    }
}

fn next_hop(key: &str, snapshot: &Snapshot, write: impl Fn(&str, &str) -> String) -> Answer {
    match route_of(key, snapshot) {
        Route::Direct => Answer::NotFound,
        Route::UserGateway(sender) => match &sender.gateway {
            Some(gateway) => Answer::Ok(write(&snapshot.settings.relay.gateway_transport, gateway).into()),
            None => Answer::NotFound,
        },
        Route::CustomerGateway(gateway) => Answer::Ok(write("smtp", gateway).into()),
        Route::Unknown => out_of_order(),
    }
}

/// Only for the sender: asked for a host, Postfix would hand out one user's login to the mail of another.
fn credentials(key: &str, snapshot: &Snapshot) -> Found {
    let (username, password_file, sender) = match route_of(key, snapshot) {
        Route::UserGateway(FurtherSender { username: Some(username), password_file: Some(file), address, .. }) => {
            (username.clone(), file.clone(), address.clone())
        }
        Route::Unknown => return Found::Answer(out_of_order()),
        _ => return Found::Answer(Answer::NotFound),
    };
    Found::LoginAt(LoginAt { sender, username, password_file })
}

fn out_of_order() -> Answer {
    Answer::Temporary("the configuration of this sender's customer is out of order".into())
}

/// What is no address (a host in brackets, `@domain`, a domain) has no route of its own: Postfix looks up whole senders.
fn route_of<'a>(key: &str, snapshot: &'a Snapshot) -> Route<'a> {
    let is_address = key.contains('@') && !key.starts_with('@');
    match Sender::parse(key) {
        Ok(sender) if is_address => route(&sender, &snapshot.rules()),
        _ => Route::Direct,
    }
}
