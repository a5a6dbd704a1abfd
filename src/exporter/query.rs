//! What a request for the pools may ask, after its question mark.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How much of a parameter's name is quoted back to whoever gave it.
const MAX_QUOTED_CHARS: usize = 60;

/// The parameters of `/api/v1/pools`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// The only pool that is asked for; all of them without it.
    pub(super) pool: Option<String>,
}

impl Query {
    /// Reads a query, or says what is wrong with it. What is not understood is refused: a filter that was misspelt
    /// would otherwise look as if it had matched everything.
    ///
    /// Names and values are percent-decoded, as the settings in a database URL are; a `+` is a plus.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match &*percent_decode_str(name).decode_utf8_lossy() {
                "pool" if parsed.pool.is_some() => {
                    return Err("pool is given twice; give it once, or leave it out for all pools".to_owned());
                }
                "pool" => parsed.pool = Some(text(value)?.into_owned()),
                unknown => {
                    let quoted: String = unknown.chars().take(MAX_QUOTED_CHARS).collect();
                    return Err(format!("unknown parameter `{quoted}`; the only one is pool=NAME"));
                }
            }
        }
        Ok(parsed)
    }
}

fn text(value: &str) -> Result<Cow<'_, str>, String> {
    percent_decode_str(value).decode_utf8().map_err(|_| "pool is not UTF-8 once percent-decoded; give UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn pool(name: &str) -> Result<Query, String> {
        Ok(Query { pool: Some(name.to_owned()) })
    }

    #[test]
    fn a_pool_is_named_percent_encoded_where_it_must_be() {
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
            assert_eq!(Query::parse(query), pool(name), "{query}");
        }
        for query in ["", "&", "&&"] {
            assert_eq!(Query::parse(query), Ok(Query::default()), "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_in_a_sentence() {
        for (query, complaint) in [
            ("name=shop", "unknown parameter `name`; the only one is pool=NAME"),
            ("pool=shop&limit=1", "unknown parameter `limit`; the only one is pool=NAME"),
            ("Pool=shop", "unknown parameter `Pool`; the only one is pool=NAME"),
            ("=shop", "unknown parameter ``; the only one is pool=NAME"),
            ("pool=a&pool=a", "pool is given twice; give it once, or leave it out for all pools"),
            ("pool=%ff", "pool is not UTF-8 once percent-decoded; give UTF-8"),
        ] {
            assert_eq!(Query::parse(query), Err(complaint.to_owned()), "{query}");
        }
        let long = Query::parse(&"é".repeat(1000)).unwrap_err();
        assert_eq!(long.chars().filter(|c| *c == 'é').count(), MAX_QUOTED_CHARS);
    }

    proptest! {
        #[test]
        fn any_name_can_be_asked_for(name in any::<String>()) {
            let query = format!("pool={}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
            prop_assert_eq!(Query::parse(&query), pool(&name));
        }

        #[test]
        fn no_query_panics(query in any::<String>()) {
            let _ = Query::parse(&query);
        }
    }
}
