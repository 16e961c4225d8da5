//! A configuration file as keys and values, to be compared with what it said before. Secrets are left out.

use serde_json::Value;
use std::collections::BTreeMap;

/// Longer values are cut, in bytes of JSON.
const MAX_VALUE: usize = 2_000;

pub(super) type Keys = BTreeMap<String, Value>;

/// The keys of a TOML file, with dots between them; tables of a list go by name, address or range:
/// `setting["head office"].require_tls`.
pub(super) fn keys_of_toml(text: &str) -> Result<Keys, toml::de::Error> {
    let mut keys = Keys::new();
    for (key, value) in toml::from_str::<toml::Table>(text)? {
        flatten(key, value, &mut keys);
    }
    Ok(keys)
}

/// The users of a users file, with their aliases.
pub(super) fn keys_of_users(text: &str) -> Keys {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    lines
        .filter_map(|mut words| {
            let address = words.next()?;
            Some((format!("user[{address:?}]"), words.map(Value::from).collect()))
        })
        .collect()
}

fn flatten(key: String, value: toml::Value, keys: &mut Keys) {
    match value {
        toml::Value::Table(table) => {
            for (inner, value) in table {
                flatten(format!("{key}.{inner}"), value, keys);
            }
        }
        toml::Value::Array(list) if !list.is_empty() && list.iter().all(toml::Value::is_table) => {
            for (n, value) in list.into_iter().enumerate() {
                let own_name = ["name", "address", "range"].iter().find_map(|key| value.get(key)?.as_str());
                let name = own_name.map_or_else(|| n.to_string(), |name| format!("{name:?}"));
                let mut item = format!("{key}[{name}]");
                // Tables of the same name are distinguished by their position.
                if keys
                    .range(format!("{item}.")..)
                    .next()
                    .is_some_and(|(other, _)| other.starts_with(&format!("{item}.")))
                {
                    item = format!("{key}[{name} {n}]");
                }
                flatten(item, value, keys);
            }
        }
        value => {
            keys.insert(key, shown(value));
        }
    }
}

fn shown(value: toml::Value) -> Value {
    let value = match value {
        toml::Value::String(text) => Value::from(without_password(&text)),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Array(list) => list.into_iter().map(shown).collect(),
        other => Value::from(other.to_string()),
    };
    let text = value.to_string();
    if text.len() <= MAX_VALUE {
        return value;
    }
    let end = (0..=MAX_VALUE).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    // The digest shows that something changed beyond what is shown.
    let digest = super::configuration::digest(text.as_bytes());
    Value::from(format!("{}... ({} bytes, sha256 {})", &text[..end], text.len(), &digest[..16]))
}

/// `redis://user:secret@host` is shown as `redis://user:***@host`.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else { return text.to_owned() };
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}:***@{host}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_as_an_administrator_would_write_them() {
        let text = "name = \"acme\"\nlimits.user.messages_per_day = 5\n[[setting]]\nname = \"head office\"\n[[setting.ip]]\n\
                    range = \"192.0.2.0/24\"\nenabled = false\n[[setting]]\nname = \"head office\"\n";
        let keys: Vec<String> =
            keys_of_toml(text).unwrap().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = [
            "limits.user.messages_per_day=5",
            "name=\"acme\"",
            "setting[\"head office\" 1].name=\"head office\"",
            "setting[\"head office\"].ip[\"192.0.2.0/24\"].enabled=false",
            "setting[\"head office\"].ip[\"192.0.2.0/24\"].range=\"192.0.2.0/24\"",
            "setting[\"head office\"].name=\"head office\"",
        ];
        assert_eq!(keys, expected);
        let users = keys_of_users("# all\nann@acme.example a@acme.example # Ann\n\nbob@acme.example\n");
        assert_eq!(users["user[\"ann@acme.example\"]"].to_string(), "[\"a@acme.example\"]");
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn no_password_is_kept() {
        let keys = keys_of_toml("urls = [\"redis://kim:se/cret@10.0.0.5:6379/0\", \"redis://:secret@host\"]").unwrap();
        assert!(!keys["urls"].to_string().contains("secret"), "{keys:?}");
        assert_eq!(without_password("redis://kim:secret@[::1]:6379/0"), "redis://kim:***@[::1]:6379/0");
        assert_eq!(without_password("redis://host:6379/0"), "redis://host:6379/0");
        assert_eq!(without_password("unix:/run/x@y"), "unix:/run/x@y");
    }

    #[test]
    fn a_long_value_is_cut_and_still_tells_a_change() {
        let long = |last: &str| keys_of_toml(&format!("a = \"{}{last}\"", "x".repeat(5_000))).unwrap()["a"].clone();
        assert!(long("1").to_string().len() < MAX_VALUE + 100);
        assert_ne!(long("1"), long("2"));
    }
}
