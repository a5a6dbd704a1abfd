//! Parses the query parameters of the API.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::text::printable;

/// The number of characters of a parameter's name that an error repeats.
const MAX_QUOTED_CHARS: usize = 60;

/// A parameter that an endpoint has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// As in `pool=NAME`.
    pub(super) placeholder: &'static str,
    /// What a request without it is for.
    pub(super) absent: &'static str,
}

/// The name of one pool.
pub(super) const POOL: Parameter = Parameter { name: "pool", placeholder: "NAME", absent: "for all pools" };

/// Parses a query, and returns the value of each of `parameters`, or what is wrong. Unknown parameters are an error: a
/// misspelt filter would seem to match everything.
///
/// Names and values are percent-decoded, as in a database URL; a `+` is a plus.
pub(super) fn parse<const N: usize>(query: &str, parameters: [Parameter; N]) -> Result<[Option<String>; N], String> {
    let mut values = [const { None }; N];
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        let Some(index) = parameters.iter().position(|parameter| parameter.name == name) else {
            let quoted: String = printable(&name).chars().take(MAX_QUOTED_CHARS).collect();
            return Err(format!("unknown parameter `{quoted}`; {}", known(&parameters)));
        };
        let Parameter { name, absent, .. } = parameters[index];
        if values[index].is_some() {
            return Err(format!("{name} is given twice; give it once, or leave it out {absent}"));
        }
        values[index] = Some(decoded(name, value)?.into_owned());
    }
    Ok(values)
}

fn known(parameters: &[Parameter]) -> String {
    let known: Vec<_> = parameters.iter().map(|known| format!("{}={}", known.name, known.placeholder)).collect();
    match &*known {
        [only] => format!("the only one is {only}"),
        several => format!("there are {}", several.join(" and ")),
    }
}

fn decoded<'a>(name: &str, value: &'a str) -> Result<Cow<'a, str>, String> {
    percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8 once percent-decoded; give UTF-8"))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    const SINCE: Parameter = Parameter { name: "since", placeholder: "SECONDS", absent: "for all" };

    fn pool(query: &str) -> Result<Option<String>, String> {
        parse(query, [POOL]).map(|[pool]| pool)
    }

    #[test]
    fn query_selects_a_pool_by_percent_encoded_name() {
        for (query, name) in [
            ("pool=shop", "shop"),
            ("&pool=shop&", "shop"),
            ("%70ool=shop", "shop"),
            ("pool=my%20shop", "my shop"),
            ("pool=a+b", "a+b"),
            ("pool=localhost:5432/shop", "localhost:5432/shop"),
            ("pool=a=b", "a=b"),
            ("pool=100%", "100%"),
            ("pool=", ""),
            ("pool", ""),
        ] {
            assert_eq!(pool(query), Ok(Some(name.to_owned())), "{query}");
        }
        for query in ["", "&", "&&"] {
            assert_eq!(pool(query), Ok(None), "{query}");
        }
    }

    #[test]
    fn invalid_queries_are_rejected_with_the_reason() {
        for (query, message) in [
            ("name=shop", "unknown parameter `name`; the only one is pool=NAME"),
            ("pool=shop&limit=1", "unknown parameter `limit`; the only one is pool=NAME"),
            ("Pool=shop", "unknown parameter `Pool`; the only one is pool=NAME"),
            ("=shop", "unknown parameter ``; the only one is pool=NAME"),
            ("pool=a&pool=a", "pool is given twice; give it once, or leave it out for all pools"),
            ("pool=%ff", "pool is not UTF-8 once percent-decoded; give UTF-8"),
        ] {
            assert_eq!(pool(query), Err(message.to_owned()), "{query}");
        }
        let message = "unknown parameter `x`; there are pool=NAME and since=SECONDS".to_owned();
        assert_eq!(parse("since=1&x=2", [POOL, SINCE]), Err(message));
        assert_eq!(parse("since=1", [POOL, SINCE]), Ok([None, Some("1".to_owned())]));
    }

    #[test]
    fn long_names_are_cut() {
        let long = pool(&"é".repeat(1000)).unwrap_err();
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), MAX_QUOTED_CHARS);
    }

    proptest! {
        #[test]
        fn any_name_can_be_selected(name in any::<String>()) {
            let query = format!("pool={}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
            prop_assert_eq!(pool(&query), Ok(Some(name)));
        }

        #[test]
        fn no_query_panics(query in any::<String>()) {
            let _ = pool(&query);
        }
    }
}
