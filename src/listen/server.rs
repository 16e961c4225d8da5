//! Accepts connections for a service, and ends them in an orderly way.

use super::fault::{Fault, FaultLog, NotAllowed};
use super::framed::{Protocol, converse};
use super::seats::{NoRoom, Seats, Shares, Signal};
use super::{Listener, Origin, Peer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

/// How often to look for room while all connections are in use.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// What answers the connections of a listener.
pub trait Service: Send + Sync + 'static {
    type Connection: Protocol + 'static;

    const SHARES: Shares;

    /// The state of a new connection to the socket of this name.
    fn open(self: &Arc<Self>, origin: Origin, listener: &Arc<str>) -> Self::Connection;

    /// Whether connections from this peer are accepted.
    fn admits(&self, _: Peer) -> bool {
        true
    }

    /// Where faults of connections are reported.
    fn faults(&self) -> &FaultLog;
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Serving,
    /// New connections are not accepted; those that are open go on, and end when nothing is open on them.
    Draining,
    /// Connections are closed between two requests.
    Closing,
}

/// Serves a listener until [`Phase::Draining`], and until every connection is over and every response is written.
///
/// New connections are refused by the kernel then: MTAs notice at once, and try again later. Where systemd keeps the socket
/// they wait for the next daemon.
pub async fn serve<S: Service>(service: Arc<S>, listener: Listener, mut phase: watch::Receiver<Phase>) {
    let seats = Seats::new(S::SHARES);
    tokio::select! {
        () = accept(&service, listener, &seats) => {}
        () = reached(&mut phase, Phase::Draining) => {}
    }
    // The listener is closed now.
    seats.signal(Signal::Drain);
    tokio::select! {
        () = seats.all_free() => {}
        () = reached(&mut phase, Phase::Closing) => {
            seats.signal(Signal::Close);
            seats.all_free().await;
        }
    }
}

/// Without end.
async fn accept<S: Service>(service: &Arc<S>, mut listener: Listener, seats: &Arc<Seats>) {
    loop {
        let mut stream = listener.accept().await;
        let origin = stream.origin();
        if !service.admits(origin.peer) {
            service.faults().report(origin, &Fault::Protocol(NotAllowed));
            continue;
        }
        let seated = loop {
            if let Ok(seated) = seats.take(origin) {
                break seated;
            }
            service.faults().report_full(seats.shares().connections);
            // One may also become idle, which nobody reports.
            let _ = timeout(FULL_RETRY, seats.freed()).await;
        };
        let seated = match seated {
            Ok(seated) => seated,
            Err(no_room) => {
                service.faults().report::<NoRoom>(origin, &no_room.into());
                continue;
            }
        };
        if S::Connection::BOUNDS.one_write_per_request {
            stream.acknowledge_late();
        }
        let (service, name) = (service.clone(), listener.name().clone());
        tokio::spawn(async move {
            let mut connection = service.open(origin, &name);
            if let Err(fault) = converse(stream, &mut connection, &seated).await {
                service.faults().report(origin, &fault);
            }
        });
    }
}

/// Serves one connection that no listener has accepted, until either end closes it.
pub async fn serve_stream<P: Protocol>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    origin: Origin,
    mut connection: P,
    faults: &FaultLog,
) {
    let Ok(Ok(seated)) = Seats::new(Shares::of(1, usize::MAX)).take(origin) else {
        return;
    };
    if let Err(fault) = converse(stream, &mut connection, &seated).await {
        faults.report(origin, &fault);
    }
}

/// Resolves at this phase of a stop. Never, once nobody can stop the server any more.
async fn reached(phase: &mut watch::Receiver<Phase>, least: Phase) {
    if phase.wait_for(|phase| *phase >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
