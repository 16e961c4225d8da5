//! Packets that arrive late: copies of requests that were answered, or given up, long ago.

use crate::redis::{Flavour, Kind, Servers};
use crate::stores::{RESERVATION_TIMEOUT, runtime};
use parking_lot::Mutex;
use relaykeeper::config::OnOutage;
use relaykeeper::directory::{CustomerLimits, Limit, Parties, Subject, SubjectKind};
use relaykeeper::ledger::{AcceptedRecipients, Ledger, RecipientKey};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Everything that was sent to a server.
type Sent = Arc<Mutex<Vec<u8>>>;

/// Stands between a daemon and its server. Where, and what has passed so far.
fn listen_in(port: u16) -> (String, Sent) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Sent::default());
    let passed = sent.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let passed = passed.clone();
            std::thread::spawn(move || pass_on(from_client, server, |bytes| passed.lock().extend_from_slice(bytes)));
            std::thread::spawn(move || pass_on(from_server, client, |_| {}));
        }
    });
    (format!("redis://{address}"), sent)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, see: impl Fn(&[u8])) {
    let mut buffer = [0; 16_384];
    while let Ok(size @ 1..) = from.read(&mut buffer) {
        see(&buffer[..size]);
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Sends bytes again, and waits until the server has answered to all of them.
fn send_again(port: u16, bytes: &[u8]) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    server.write_all(bytes).unwrap();
    server.write_all(b"*2\r\n$4\r\nECHO\r\n$12\r\nthat was all\r\n").unwrap();
    let (mut answers, mut buffer) = (Vec::new(), [0; 16_384]);
    while !answers.ends_with(b"$12\r\nthat was all\r\n") {
        let size = server.read(&mut buffer).expect("the server answers");
        assert!(size > 0, "{}", String::from_utf8_lossy(&answers));
        answers.extend_from_slice(&buffer[..size]);
    }
}

fn unlimited() -> CustomerLimits {
    CustomerLimits::new(Limit::UNLIMITED, |_| Limit::UNLIMITED)
}

async fn send(ledger: &Ledger, parties: &Parties, recipient: u64) {
    let (id, named) = (ledger.new_reservation(), [RecipientKey(recipient)]);
    assert!(ledger.reserve(id, parties, &unlimited(), named[0]).await.unwrap().fits());
    assert!(
        ledger
            .commit(id, parties, &unlimited(), AcceptedRecipients { named: &named, unnamed: 0 })
            .await
            .unwrap()
            .fits()
    );
}

#[test]
fn a_copy_of_a_commit_that_arrives_after_its_nonce_was_retired_counts_nothing() {
    let (user, login) = (|| Some("ann".into()), || Some("ann@login".into()));
    for (flavour, user, login) in
        [(Flavour::Redis, user(), None), (Flavour::Valkey, user(), login()), (Flavour::Redis, None, None)]
    {
        let servers = Servers::start(flavour, Kind::Single, &[]);
        let (url, sent) = listen_in(servers.port(0));
        let parties = Parties { customer: "acme".into(), user, login };
        runtime().block_on(async {
            let ledger = Ledger::open_shared(&[url], OnOutage::Defer, RESERVATION_TIMEOUT).unwrap();
            let customer = Subject { kind: SubjectKind::Customer, customer: "acme".into(), name: "acme".into() };
            let counted = async || ledger.usage(&customer, &unlimited()).await.unwrap()[0].used;
            send(&ledger, &parties, 0).await;
            let before = sent.lock().len();
            // The fast path needs a message before; what follows retires the nonces before it.
            send(&ledger, &parties, 1).await;
            let late = sent.lock()[before..].to_vec();
            assert!(late.windows(7).any(|bytes| bytes == b"EVALSHA"), "{}", String::from_utf8_lossy(&late));
            send_again(servers.port(0), &late);
            assert_eq!(counted().await, 2, "the nonce is known still");
            for recipient in 2..4 {
                send(&ledger, &parties, recipient).await;
            }
            send_again(servers.port(0), &late);
            assert_eq!(counted().await, 4, "{flavour:?} {parties:?}");
            // It does not get in the way of what comes in time.
            send(&ledger, &parties, 4).await;
            assert_eq!(counted().await, 5);
        });
    }
}
