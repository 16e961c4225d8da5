//! Which changes of the main file take effect only after a restart.

use crate::config::main_file::{Settings, Store};

/// The keys that differ and take effect only after a restart.
pub(super) fn keys_that_need_a_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let (a, b) = (&old.listen, &new.listen);
    let store = |settings: &Settings| match &settings.store {
        Store::Embedded { path, .. } => (path.clone(), Vec::new()),
        Store::Redis { path, urls, .. } => (path.clone(), urls.clone()),
    };
    let is_redis = |settings: &Settings| matches!(settings.store, Store::Redis { .. });
    let (old_store, new_store) = (store(old), store(new));
    let same_backend = is_redis(old) == is_redis(new);
    [
        ("listen.milter", a.milter != b.milter),
        ("listen.policy", a.policy != b.policy),
        ("listen.socketmap", a.socketmap != b.socketmap),
        ("listen.http", a.http != b.http),
        ("listen.control", a.control != b.control),
        ("listen.socket_mode", a.socket_mode != b.socket_mode),
        ("listen.socket_group", a.socket_group != b.socket_group),
        ("relay.user", old.relay.user != new.relay.user),
        ("relay.reservation_timeout", old.relay.reservation_timeout != new.relay.reservation_timeout),
        ("log.to", old.log.to != new.log.to),
        ("store.backend", !same_backend),
        ("store.path", old_store.0 != new_store.0),
        ("store.urls", same_backend && old_store.1 != new_store.1),
        ("store.sync, store.on_outage", same_backend && old_store == new_store && old.store != new.store),
    ]
    .into_iter()
    .filter_map(|(key, is_changed)| is_changed.then_some(key))
    .collect()
}
