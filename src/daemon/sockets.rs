//! The sockets of the configuration, bound all together or not at all.

use crate::config::Listen;
use crate::listen::{BindError, ListenAddress, Listener, SocketOptions, Stream, bind};
use crate::report::Logger;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// What the daemon listens on.
#[derive(Debug)]
pub struct Sockets {
    pub milter: Vec<Listener>,
    pub policy: Vec<Listener>,
    pub socketmap: Vec<Listener>,
    pub control: Option<Listener>,
}

impl Sockets {
    /// Binds every address of `[listen]`.
    ///
    /// # Errors
    /// The first address that cannot be bound; none stays bound then.
    pub fn bind(listen: &Listen, log: &Logger) -> Result<Sockets, BindError> {
        let options = SocketOptions { mode: listen.socket_mode, group: listen.socket_group.clone() };
        let all = |addresses: &[ListenAddress], key| {
            addresses.iter().map(|address| bind(address, &options, key, log)).collect::<Result<Vec<_>, _>>()
        };
        // Whoever may write to the control socket is an administrator.
        let administrators = SocketOptions { mode: 0o600, group: None };
        Ok(Sockets {
            milter: all(&listen.milter, "listen.milter")?,
            policy: all(&listen.policy, "listen.policy")?,
            socketmap: all(&listen.socketmap, "listen.socketmap")?,
            control: listen
                .control
                .as_ref()
                .map(|address| bind(address, &administrators, "listen.control", log))
                .transpose()?,
        })
    }
}

/// Serves up to `most` connections at once until told to stop accepting; those that are open go on.
pub(super) async fn accept<F>(
    mut listener: Listener,
    most: usize,
    mut stop: watch::Receiver<bool>,
    serve: impl Fn(Stream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    loop {
        let next = async {
            // Never closed: acquiring cannot fail.
            let permit = permits.clone().acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let (stream, permit) = tokio::select! {
            next = next => next,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let service = serve(stream);
        tokio::spawn(async move {
            service.await;
            drop(permit);
        });
    }
}
