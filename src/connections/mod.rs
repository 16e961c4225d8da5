//! How many connections each client address makes and holds open: in memory, gone with the daemon, and apart from the
//! ledger, which counts what must not be lost.
//!
//! ```text
//!   Connections    all addresses, of a bounded number
//!     └─ minute    what one address did in the last minute
//! ```

mod minute;

use crate::clock::Moment;
use hashbrown::HashMap;
use ipnet::IpNet;
use minute::Minute;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;

/// So many addresses are told apart at once: about 16 MB.
const MAX_CLIENTS: usize = 65_536;

/// When there are more, one of so many gives up its place.
const LOOKED_AT: usize = 64;

/// All clients that connected in the last minute or are connected now.
#[derive(Debug, Default)]
pub struct Connections(Arc<Mutex<Clients>>);

#[derive(Debug, Default)]
struct Clients {
    clients: Vec<Client>,
    places: HashMap<IpNet, u32>,
    /// Where the search for a place goes on.
    hand: usize,
}

#[derive(Clone, Debug)]
struct Client {
    net: IpNet,
    connections: Minute,
    generic: Minute,
    open: u32,
}

/// A connection that was counted; one that is held open until dropped, if it is seen to be.
#[derive(Debug)]
pub struct Counted {
    all: Arc<Mutex<Clients>>,
    net: IpNet,
    at: Moment,
    generic_at: Option<Moment>,
    is_open: bool,
    last_minute: u64,
    open: u64,
}

impl Connections {
    /// Counts a new connection. `is_open`: its end will be seen, so it counts among the simultaneous ones until then.
    pub fn count(&self, client: IpNet, is_open: bool, now: Moment) -> Counted {
        let mut all = self.0.lock();
        let client_now = all.client(client, now);
        client_now.connections.count(now);
        client_now.open += u32::from(is_open);
        let (last_minute, open) = (client_now.connections.total(now), u64::from(client_now.open));
        drop(all);
        Counted { all: self.0.clone(), net: client, at: now, generic_at: None, is_open, last_minute, open }
    }
}

impl Counted {
    /// The client's address or network.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The client's connections in the minute before this one was made, this one included.
    pub fn last_minute(&self) -> u64 {
        self.last_minute
    }

    /// The connections that the client held open when this one was made, this one included.
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Counts it among those with a generic HELO name, once: how many there were in the last minute, this one included.
    pub fn count_generic(&mut self, now: Moment) -> u64 {
        let mut all = self.all.lock();
        let client = all.client(self.net, now);
        if self.generic_at.is_none() {
            client.generic.count(now);
            self.generic_at = Some(now);
        }
        client.generic.total(now)
    }

    /// It was refused, or would have been: refused connections count for nothing, or a client that tries again and again
    /// would never get in.
    pub fn take_back(&mut self) {
        let mut all = self.all.lock();
        if let Some(client) = all.find(self.net) {
            client.connections.take_back(self.at);
            client.open -= u32::from(std::mem::take(&mut self.is_open));
        }
    }

    /// As [`take_back`](Self::take_back), where only the limit on generic names stood in the way.
    pub fn take_back_generic(&mut self) {
        let mut all = self.all.lock();
        if let (Some(at), Some(client)) = (self.generic_at, all.find(self.net)) {
            client.generic.take_back(at);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.is_open
            && let Some(client) = self.all.lock().find(self.net)
        {
            client.open -= 1;
        }
    }
}

impl Clients {
    fn find(&mut self, net: IpNet) -> Option<&mut Client> {
        let place = *self.places.get(&net)?;
        self.clients.get_mut(place as usize)
    }

    fn client(&mut self, net: IpNet, now: Moment) -> &mut Client {
        let place = match self.places.get(&net) {
            Some(&place) => place as usize,
            None => self.place_for(net, now),
        };
        &mut self.clients[place]
    }

    /// Where all places are taken, a client that made one connection at most in the last minute makes room, else the one
    /// that did least of those looked at; one that is connected never does. The newcomer takes over what was counted for it: so
    /// nobody gains by a flood of addresses, neither those that flood nor those that were there before.
    fn place_for(&mut self, net: IpNet, now: Moment) -> usize {
        let place = match self.clients.len() {
            0..MAX_CLIENTS => None,
            _ => self.least(now),
        };
        let place = match place {
            Some(place) => {
                let client = &mut self.clients[place];
                self.places.remove(&client.net);
                client.net = net;
                place
            }
            None => {
                self.clients.push(Client { net, connections: Minute::default(), generic: Minute::default(), open: 0 });
                self.clients.len() - 1
            }
        };
        self.places.insert(net, place as u32);
        place
    }

    fn least(&mut self, now: Moment) -> Option<usize> {
        let mut least: Option<(u64, usize)> = None;
        for looked_at in 0..self.clients.len() {
            self.hand = (self.hand + 1) % self.clients.len();
            let client = &mut self.clients[self.hand];
            if client.open == 0 {
                let did = client.connections.total(now) + client.generic.total(now);
                if least.is_none_or(|(least, _)| did < least) {
                    least = Some((did, self.hand));
                }
            }
            if least.is_some_and(|(did, _)| did <= 1 || looked_at >= LOOKED_AT) {
                break;
            }
        }
        least.map(|(_, place)| place)
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of this length (1 to 128).
pub fn client_net(client: IpAddr, ipv6_prefix: u8) -> IpNet {
    let length = if client.is_ipv4() { 32 } else { ipv6_prefix.min(128) };
    IpNet::new_assert(client, length).trunc()
}

#[cfg(test)]
mod tests;
