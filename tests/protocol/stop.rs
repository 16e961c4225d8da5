//! A graceful stop of the whole daemon in process.

use crate::common::installation::{Installation, Running};
use crate::common::mta::{Answer, Client, Kind, Mta};
use crate::common::smtpd::Mail;
use crate::common::{soon, until};
use crate::installation;
use relaykeeper::control::ControlService;
use relaykeeper::daemon::{self, Sockets, Supervisor, TaskEnded};
use relaykeeper::listen::{SocketOptions, bind};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

struct Daemon {
    running: Running,
    milter: PathBuf,
    policy: PathBuf,
    socketmap: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), TaskEnded>>,
    _folder: tempfile::TempDir,
}

fn start(installation: &Installation) -> Daemon {
    let running = installation.run();
    let folder = tempfile::tempdir().unwrap();
    let listener = |name: &str| {
        let path = folder.path().join(name);
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let listener = bind(&address, &SocketOptions::default(), "listen", &running.engine.log).unwrap();
        (path, listener)
    };
    let ((milter, milter_listener), (policy, policy_listener)) = (listener("milter"), listener("policy"));
    let (socketmap, socketmap_listener) = listener("socketmap");
    let sockets = Sockets {
        milter: vec![milter_listener],
        policy: vec![policy_listener],
        socketmap: vec![socketmap_listener],
        control: None,
    };
    let (reload, _) = mpsc::channel(1);
    let control = ControlService::new(running.engine.clone(), reload);
    let (stop, stopped) = oneshot::channel::<()>();
    let supervisor = Supervisor::new(&running.engine.log);
    let task = tokio::spawn(daemon::run(running.engine.clone(), sockets, control, supervisor, async {
        let _ = stopped.await;
    }));
    Daemon { running, milter, policy, socketmap, stop, task, _folder: folder }
}

/// A policy client over the daemon's socket.
async fn ask(stream: &mut UnixStream, request: &str) -> Option<String> {
    soon("an answer", async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n") {
            answer.push(stream.read_u8().await.ok()?);
        }
        Some(String::from_utf8(answer).unwrap())
    })
    .await
}

/// With one recipient.
async fn open_milter_transaction(daemon: &Daemon) -> Mta {
    let mut mta = Mta::open(&daemon.milter, Kind::Postfix, Client::default()).await;
    mta.mail("ann@acme.example").await;
    assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
    mta
}

async fn refuses_connections(path: &PathBuf) -> bool {
    UnixStream::connect(path).await.is_err()
}

/// An SMTP session that goes on may send its next messages; once its MTA says QUIT nothing is waited for.
#[tokio::test]
async fn an_open_smtp_session_is_finished() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let mut mta = Mta::open(&daemon.milter, Kind::Postfix, Client::default()).await;
    daemon.stop.send(()).unwrap();
    until("MTAs are turned away", async || refuses_connections(&daemon.milter).await).await;
    for _ in 0..2 {
        mta.mail("ann@acme.example").await;
        assert_eq!(mta.recipient("a@dest.example").await, Answer::Continue);
        assert_eq!(mta.try_end().await.expect("the session goes on"), (vec![], Answer::Continue));
    }
    assert!(!daemon.task.is_finished());
    mta.quit().await;
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert_eq!(daemon.running.counted_and_reserved("acme").await, (2, 0));
}

/// What holds nothing has a moment for its next message, and no more.
#[tokio::test]
async fn with_nothing_open_a_stop_is_soon() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let mut idle_mta = Mta::open(&daemon.milter, Kind::Postfix, Client::default()).await;
    idle_mta.mail("ann@acme.example").await;
    let mut idle_smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    assert!(ask(&mut idle_smtpd, &Mail::default().request("DATA", "", 0, "")).await.is_some());
    daemon.stop.send(()).unwrap();
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_milter_transaction_is_finished() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let mut mta = open_milter_transaction(&daemon).await;
    daemon.stop.send(()).unwrap();
    until("MTAs are turned away", async || refuses_connections(&daemon.milter).await).await;
    assert!(!daemon.task.is_finished());
    // All goes on for this one, its answers included.
    assert_eq!(mta.recipient("b@dest.example").await, Answer::Continue);
    assert!(matches!(mta.recipient(&"x".repeat(2_000)).await, Answer::Reply(_)));
    let (senders, answer) = mta.try_end().await.expect("the answer is written before all ends");
    assert_eq!((senders, answer), (vec![], Answer::Continue));
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert_eq!(daemon.running.counted_and_reserved("acme").await, (2, 0));
}

#[tokio::test]
async fn an_open_policy_transaction_is_finished_over_whatever_connection() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let mail = Mail::default();
    let mut smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    assert_eq!(ask(&mut smtpd, &mail.at_recipient("a@dest.example")).await.unwrap(), "action=DUNNO\n\n");
    daemon.stop.send(()).unwrap();
    until("MTAs are turned away", async || refuses_connections(&daemon.milter).await).await;
    assert_eq!(ask(&mut smtpd, &mail.at_recipient("b@dest.example")).await.unwrap(), "action=DUNNO\n\n");
    assert!(!daemon.task.is_finished());
    // Each check_policy_service of Postfix has a connection of its own.
    let mut another = UnixStream::connect(&daemon.policy).await.expect("the end of the message gets through");
    let end = mail.at_end(&["a@dest.example", "b@dest.example"]);
    assert_eq!(ask(&mut another, &end).await.unwrap(), "action=DUNNO\n\n");
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert_eq!(daemon.running.counted_and_reserved("acme").await, (2, 0));
    assert!(refuses_connections(&daemon.policy).await);
}

/// Permission to relay may come from there.
#[tokio::test]
async fn socketmap_tables_are_served_as_long_as_a_transaction_is_open() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let mut mta = open_milter_transaction(&daemon).await;
    daemon.stop.send(()).unwrap();
    until("MTAs are turned away", async || refuses_connections(&daemon.milter).await).await;
    let mut postfix = UnixStream::connect(&daemon.socketmap).await.expect("still served");
    postfix.write_all(b"17:clients 192.0.2.7,").await.unwrap();
    let mut answer = [0; 8];
    soon("an answer", postfix.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"5:OK OK,");
    mta.try_end().await.expect("the message is finished");
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert!(refuses_connections(&daemon.socketmap).await);
}

#[tokio::test]
async fn what_was_only_refused_is_not_waited_for() {
    let daemon = start(&installation("relay.drain = \"1h\""));
    let stranger = Client { address: "203.0.113.1".into(), ..Client::default() };
    let mut mta = Mta::open(&daemon.milter, Kind::Postfix, stranger).await;
    mta.mail("ann@acme.example").await;
    assert!(matches!(mta.recipient("a@dest.example").await, Answer::Reply(_)));
    let mut smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    let refused = Mail { client: "203.0.113.1".into(), port: 1, ..Mail::default() };
    assert!(ask(&mut smtpd, &refused.at_recipient("a@dest.example")).await.unwrap().starts_with("action=550 "));
    daemon.stop.send(()).unwrap();
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
}

/// Nobody tells a policy service that such a transaction is over, and nothing of it counts.
#[tokio::test]
async fn instances_with_exempt_recipients_only_are_not_waited_for() {
    let daemon = start(&installation("relay.drain = \"1h\"\nrelay.exempt_recipient_domains = [\"own.example\"]"));
    let mut smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    for (number, client, recipient) in [(0, "127.0.0.1", "a@dest.example"), (1, "192.0.2.7", "a@own.example")] {
        let instance = format!("1a2b.67890abc.1234{number}.0");
        let mail = Mail { client: client.into(), instance, port: number, ..Mail::default() };
        assert_eq!(ask(&mut smtpd, &mail.at_recipient(recipient)).await.unwrap(), "action=DUNNO\n\n");
    }
    daemon.stop.send(()).unwrap();
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn after_the_drain_time_what_is_open_is_cut_and_given_back() {
    let daemon = start(&installation("relay.drain = \"0s\"\npolicy.count_at = \"end-of-message\""));
    let _open = open_milter_transaction(&daemon).await;
    let mut smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    let mail = Mail { port: 1, ..Mail::default() };
    assert_eq!(ask(&mut smtpd, &mail.at_recipient("b@dest.example")).await.unwrap(), "action=DUNNO\n\n");
    daemon.stop.send(()).unwrap();
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert_eq!(daemon.running.counted_and_reserved("acme").await, (0, 0));
    let lines = daemon.running.log_lines();
    assert!(lines.iter().any(|line| line.contains("waiting up to 0 s for 2 open transactions")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("2 transactions were still open")), "{lines:#?}");
}

#[tokio::test]
async fn what_counts_without_an_end_is_counted_before_the_daemon_ends() {
    let daemon = start(&installation("relay.drain = \"0s\"\npolicy.count_at = \"rcpt\""));
    let mut smtpd = UnixStream::connect(&daemon.policy).await.unwrap();
    assert_eq!(ask(&mut smtpd, &Mail::default().at_recipient("b@dest.example")).await.unwrap(), "action=DUNNO\n\n");
    daemon.stop.send(()).unwrap();
    soon("the daemon stops", daemon.task).await.unwrap().unwrap();
    assert_eq!(daemon.running.counted_and_reserved("acme").await, (1, 0));
}
