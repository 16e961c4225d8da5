//! Other people's programs agree: OpenDKIM's miltertest speaks the milter protocol, swaks speaks SMTP.

use crate::bed::Folder;
use crate::customers;
use crate::daemon::Daemon;
use crate::relay::{Front, Setup};
use std::process::Command;

/// A message is accepted and its sender rewritten; a client from nowhere is refused in our words.
const MILTERTEST: &str = r#"
local function session(client, helo, sender)
    local connection = mt.connect(socket)
    if connection == nil then error("cannot connect") end
    if mt.conninfo(connection, "client.example", client) ~= nil then error("CONNECT failed") end
    if mt.getreply(connection) ~= SMFIR_CONTINUE then error("no CONTINUE after CONNECT") end
    if mt.helo(connection, helo) ~= nil then error("HELO failed") end
    if mt.getreply(connection) ~= SMFIR_CONTINUE then error("no CONTINUE after HELO") end
    if mt.mailfrom(connection, sender) ~= nil then error("MAIL failed") end
    if mt.getreply(connection) ~= SMFIR_CONTINUE then error("no CONTINUE after MAIL") end
    if mt.rcptto(connection, "<you@dest.example>") ~= nil then error("RCPT failed") end
    return connection
end

local accepted = session("203.0.113.7", "app.initech.example", "<guest@elsewhere.example>")
if mt.getreply(accepted) ~= SMFIR_CONTINUE then error("no CONTINUE after RCPT") end
if mt.eom(accepted) ~= nil then error("end of message failed") end
if mt.getreply(accepted) ~= SMFIR_CONTINUE then error("not accepted at the end") end
mt.disconnect(accepted)

local refused = session("198.51.100.99", "client.nowhere.example", "<who@nowhere.example>")
if mt.getreply(refused) ~= SMFIR_REPLYCODE then error("no reply code for a stranger") end
mt.disconnect(refused)
"#;

/// What a program says when it is not content.
fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: run tests/run.sh, which installs it"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn miltertest() {
    let folder = Folder::new();
    let all: Vec<_> = customers::ALL.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let mut daemon = Daemon::configure(folder.path(), "", &all);
    daemon.start();
    let script = folder.path().join("miltertest.lua");
    std::fs::write(&script, MILTERTEST).unwrap();
    let socket = format!("socket=unix:{}", daemon.milter_socket().display());
    let (good, said) = run("miltertest", &["-D", &socket, "-s", script.to_str().unwrap()]);
    assert!(good, "{said}\n{}", daemon.log());
    daemon.await_counts("initech", "customer.recipients_per_day", 1, 0);
    daemon.await_line(&["verdict=accept", "customer=initech", "rewritten=postmaster@initech.example"]);
    daemon.await_line(&["verdict=reject", "reason=unknown-customer", "helo=client.nowhere.example"]);
}

#[test]
fn swaks() {
    let relay = Setup::with_customers().start(Front::PostfixBoth);
    let server = format!("127.0.0.1:{}", relay.mta.port);
    let send = |client: &str, from: &str| {
        let envelope = ["--server", &server, "--xclient-addr", client, "--from", from, "--to", "you@dest.example"];
        run("swaks", &envelope)
    };
    let (good, said) = send("192.0.2.7", "ann@acme.example");
    assert!(good && said.contains("250 2.0.0 Ok: queued as"), "{said}");
    let (good, said) = send("198.51.100.99", "who@nowhere.example");
    assert!(!good && said.contains("Mail relay denied [198.51.100.99]"), "{said}");
}
