use super::*;
use proptest::prelude::*;

#[test]
fn every_spelling_of_an_address_is_one_address() {
    for typed in [
        "ann@acme.example",
        "<Ann@ACME.example>",
        "<@relay.example,@b.example:ann@acme.example.>",
        "<@[IPv6:2001:db8::1]:ann@acme.example>",
        " <\"ann\"@acme.example> ",
        "\"a\\nn\"@Acme.Example",
    ] {
        let address = Address::from_path(typed).unwrap();
        assert_eq!(address.as_str(), "ann@acme.example", "{typed}");
        assert_eq!((address.local_part(), address.domain()), ("ann", "acme.example"));
        assert_eq!(address, Address::from_internal("ann@acme.example").unwrap());
    }
}

#[test]
fn an_address_shows_as_it_was_written() {
    for (typed, shown) in [
        ("<Ann@ACME.example>", "Ann@ACME.example"),
        ("<\"Kim Doe\"@acme.example>", "\"Kim Doe\"@acme.example"),
        ("<@hop.example:ann@acme.example>", "@hop.example:ann@acme.example"),
        ("ann@bücher.example", "ann@bücher.example"),
    ] {
        assert_eq!(Address::from_path(typed).unwrap().to_string(), shown);
    }
    assert_eq!(Address::from_internal("Kim Doe@Acme.example").unwrap().to_string(), "Kim Doe@Acme.example");
}

#[test]
fn both_readings_of_a_quoted_local_part_agree() {
    for (typed, internal) in [
        ("<\"kim doe\"@acme.example>", "kim doe@acme.example"),
        ("<\"a@b\"@dest.example>", "a@b@dest.example"),
        ("<\"a\\\"b\"@dest.example>", "a\"b@dest.example"),
        ("<\"(x)\"@dest.example>", "(x)@dest.example"),
    ] {
        assert_eq!(Address::from_path(typed), Address::from_internal(internal), "{typed}");
    }
}

#[test]
fn an_address_may_lack_a_domain() {
    let address = Address::from_path("<Postmaster>").unwrap();
    assert_eq!((address.as_str(), address.domain()), ("postmaster", ""));
    assert_eq!(Address::from_internal("root@").unwrap().as_str(), "root");
}

#[test]
fn a_local_part_never_passes_for_an_address() {
    for address in [Address::from_path("\"ann@acme.example\""), Address::from_internal("ann@acme.example@")] {
        let address = address.unwrap();
        assert_eq!((address.local_part(), address.domain()), ("ann@acme.example", ""));
        assert_ne!(address, Address::from_path("ann@acme.example").unwrap());
    }
}

#[test]
fn the_empty_sender() {
    assert_eq!(Sender::from_path("<>"), Ok(Sender::Empty));
    assert_eq!(Sender::from_internal(""), Ok(Sender::Empty));
    assert_eq!(Sender::from_internal("@"), Ok(Sender::Empty));
    assert_eq!(Sender::Empty.to_string(), "<>");
    for not_empty in ["<\"\">", "<@acme.example:>", "<()>", "<>()", "< >", "<@>"] {
        assert!(Sender::from_path(not_empty).is_err(), "{not_empty}");
    }
}

#[test]
fn what_an_mta_would_read_in_its_own_way_is_refused() {
    use AddressError::*;
    for (typed, error) in [
        ("<v@dest.example(x@own.example>", Unquoted('(')),
        ("<v@dest.example(c)>", Unquoted('(')),
        ("(c)<v@dest.example>", LoneBracket),
        ("<v@dest.example>(c)", LoneBracket),
        ("<v@dest.example", LoneBracket),
        ("v@dest.example>", LoneBracket),
        ("<<v@dest.example>>", Unquoted('<')),
        ("<a b@own.example>", Unquoted(' ')),
        ("< v@own.example>", Unquoted(' ')),
        ("<v@own.example >", Unquoted(' ')),
        ("<v@dest.example@own.example>", SecondAt),
        ("<\"v\"@dest.example@own.example>", SecondAt),
        ("<v\\@dest.example@own.example>", Unquoted('\\')),
        ("<list:v@dest.example;>", Unquoted(':')),
        ("<v@dest.example,w@own.example>", Unquoted(',')),
        ("<v@dest.example;>", Unquoted(';')),
        ("<dest::v@own.example>", Unquoted(':')),
        ("<v[x]@own.example>", Unquoted('[')),
        ("<a\"b\"@own.example>", Unquoted('"')),
        ("<\"a\"b@own.example>", PartlyQuoted),
        ("<\"a\".b@own.example>", PartlyQuoted),
        ("<\"a@own.example>", OpenQuote),
        ("<\"a\\>", OpenQuote),
        ("<v@>", NoDomain),
        ("<@own.example>", NoLocalPart),
        ("<\"\"@own.example>", NoLocalPart),
        ("<@:v@own.example>", BadRoute),
        ("<@a.example,b.example:v@own.example>", BadRoute),
        ("<@a.example,@b.example>", BadRoute),
        ("<v@own..example>", BadDomain),
        ("<v@own.example..>", BadDomain),
        ("<v@.own.example>", BadDomain),
        ("<v@.>", BadDomain),
        ("<v@dest.example!own.example>", BadDomain),
        ("<v@dest.example%own.example>", BadDomain),
        ("<v@dest.example％own.example>", BadDomain),
        ("<v@own。example>", BadDomain),
        ("<v@o\u{ad}wn.example>", BadDomain),
        ("<v@\u{ad}>", BadDomain),
        ("<v@[192.0.2.1>", BadDomain),
        ("<v@own.example:25>", Unquoted(':')),
        ("<v\u{1}@own.example>", ControlCharacter),
        ("<\"v\0\"@own.example>", ControlCharacter),
        ("<v\u{85}@own.example>", ControlCharacter),
        ("<v\u{fffd}@own.example>", NotUtf8),
    ] {
        assert_eq!(Address::from_path(typed), Err(error), "{typed}");
    }
}

#[test]
fn what_every_mta_reads_alike_is_accepted() {
    for typed in [
        "<v+tag@own.example>",
        "<.v..w.@own.example>",
        "<v@own_x.example>",
        "<v@[192.0.2.1]>",
        "<v@[IPv6:2001:db8::1]>",
        "<v@192.0.2.1>",
        "<o'neil/x=#$*{y}`~?^|&@own.example>",
        "<jörg@bücher.example>",
        "<v%dest.example@own.example>",
        "<dest.example!v@own.example>",
    ] {
        assert!(Address::from_path(typed).is_ok(), "{typed}");
    }
}

#[test]
fn the_internal_form_refuses_control_characters_and_length() {
    assert_eq!(Address::from_internal("a\r\nb@c.example"), Err(AddressError::ControlCharacter));
    assert_eq!(Address::from_internal(&"a".repeat(MAX_ADDRESS + 1)), Err(AddressError::TooLong));
    assert_eq!(Address::from_internal(&"İ".repeat(MAX_ADDRESS / 2)), Err(AddressError::TooLong), "in lower case");
    assert_eq!(Address::from_internal(""), Err(AddressError::Empty));
    assert_eq!(Address::from_internal("v@own..example").unwrap().domain(), "own..example");
}

#[test]
fn what_an_mta_may_route_on() {
    for typed in [
        "v%dest.example@own.example",
        "dest.example!v@own.example",
        "\"v@dest.example\"@own.example",
        "\"v%dest.example\"@own.example",
        "@dest.example:v@own.example",
    ] {
        assert!(Address::from_path(typed).unwrap().may_be_routed_on(), "{typed}");
    }
    for internal in ["v@dest.example@own.example", "v@own。example"] {
        assert!(Address::from_internal(internal).unwrap().may_be_routed_on(), "{internal}");
    }
    for typed in ["v@own.example", "\"v w\"@own.example", "v+tag@own.example", "v@[192.0.2.1]"] {
        assert!(!Address::from_path(typed).unwrap().may_be_routed_on(), "{typed}");
    }
}

/// Text in which every character that matters is frequent.
fn nasty() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        8 => prop::sample::select("ab.@\"\\<>():;,%![]- ".chars().collect::<Vec<_>>()),
        1 => prop::sample::select("\0\r\n\t\u{7f}\u{85}\u{fffd}İΣςßＡ％＠。\u{ad}\u{200d}ü".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    prop::collection::vec(character, 0..40).prop_map(String::from_iter)
}

/// Addresses that need no quotes.
fn plain() -> impl Strategy<Value = String> {
    ("[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,20}", "[A-Za-z0-9][A-Za-z0-9-]{0,10}(\\.[A-Za-z0-9]{1,8}){0,3}")
        .prop_map(|(local, domain)| format!("{local}@{domain}"))
}

/// A path whose local part is `local`, quoted.
fn quoted(local: &str, domain: &str) -> String {
    let local: String =
        local.chars().flat_map(|c| ['"', '\\'].contains(&c).then_some('\\').into_iter().chain([c])).collect();
    format!("<\"{local}\"@{domain}>")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_readings_of_a_plain_address_agree(address in plain()) {
        let internal = Address::from_internal(&address).unwrap();
        for typed in [address.clone(), format!("<{address}>"), format!("<@hop.example:{address}>")] {
            let path = Address::from_path(&typed).unwrap();
            prop_assert_eq!(&path, &internal);
            prop_assert_eq!((path.local_part(), path.domain()), (internal.local_part(), internal.domain()));
        }
        prop_assert_eq!(Address::from_path(&address).unwrap().to_string(), internal.to_string());
    }

    #[test]
    fn any_local_part_in_quotes_is_one_word_in_both_readings(local in nasty(), domain in "[a-z]{1,8}\\.example") {
        let (path, internal) = (Address::from_path(&quoted(&local, &domain)), Address::from_internal(&format!("{local}@{domain}")));
        match local.is_empty() {
            true => prop_assert_eq!(path, Err(AddressError::NoLocalPart)),
            false => prop_assert_eq!(path, internal),
        }
    }

    #[test]
    fn canonicalisation_is_bounded_and_idempotent(text in nasty()) {
        for address in [Address::from_path(&text), Address::from_internal(&text), Address::from_either(&text)].into_iter().flatten() {
            prop_assert!(address.as_str().len() <= MAX_ADDRESS);
            let again = Address::from_internal(address.as_str());
            prop_assert_eq!(again.as_ref(), Ok(&address));
            let again = again.unwrap();
            prop_assert_eq!((again.local_part(), again.domain()), (address.local_part(), address.domain()));
            prop_assert!(!address.domain().contains('@'));
        }
    }

    #[test]
    fn a_path_holds_nothing_unquoted_that_an_mta_would_read(text in nasty()) {
        if let Ok(address) = Address::from_path(&text) && !address.is_quoted && !address.has_route {
            let shown = address.to_string();
            let specials = shown.chars().filter(|c| "()<>,;\\\" ".contains(*c)).count();
            prop_assert!(specials == 0 && shown.matches('@').count() <= 1, "{}", shown);
        }
    }
}
