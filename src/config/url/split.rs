//! Splits the URL into its parts, and prints it without the password.
//!
//! As in RFC 3986 the user name and the password end at the only `@` before the first `/` or `?`, so a password must not
//! contain these characters unless they are percent-encoded. A URL that seems to have such a password is refused: no part
//! of a password may be mistaken for a part that is printed. The value of a known query parameter may contain `@`.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

use super::known::is_known;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

const UNESCAPED: &str =
    "unescaped `@`, `/` or `?`, most likely in the password: percent-encode them as %40, %2F and %3F";

/// The parts of a URL, still percent-encoded except for the parameters' names.
pub(super) struct Parts<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) hosts: &'a str,
    pub(super) database: &'a str,
    pub(super) parameters: Vec<Parameter<'a>>,
    secrets: Vec<Range<usize>>,
}

/// One `name=value` of the query.
pub(super) struct Parameter<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: &'a str,
    /// Whether the parameter could be part of a password that was not percent-encoded.
    pub(super) may_be_password: bool,
}

/// Splits `url`. The error describes the problem and quotes nothing.
pub(super) fn split(url: &str) -> Result<Parts<'_>, &'static str> {
    // Always a mistake, and a line break in a printed URL could forge a line of the log.
    if url.contains(char::is_control) {
        return Err("line break or other control character: percent-encode it, as in %0A, or remove it");
    }
    let rest = SCHEMES
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or("begins with neither postgres:// nor postgresql://: give postgres://user:password@host:5432/database")?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, hosts) = match authority.split_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    // Without a login and with an `@` further on, what reads as an invalid port is the beginning of a password.
    let is_cut_off = login.is_none() && tail.contains('@') && host_list(hosts).is_none();
    if hosts.contains('@') || path.contains('@') || is_cut_off {
        return Err(UNESCAPED);
    }
    let offset_of = |part: &str| part.as_ptr() as usize - url.as_ptr() as usize;
    let range_of = |part: &str| offset_of(part)..offset_of(part) + part.len();

    let parameters = query.map_or_else(|| Ok(Vec::new()), parameters)?;
    let mut secrets: Vec<_> = parameters
        .iter()
        .filter(|parameter| parameter.name == "password")
        .map(|parameter| range_of(parameter.value))
        .collect();
    let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    secrets.extend(password.map(range_of));
    Ok(Parts {
        user: user.filter(|user| !user.is_empty()),
        password,
        hosts,
        database: path.strip_prefix('/').unwrap_or(path),
        parameters,
        secrets,
    })
}

fn parameters(query: &str) -> Result<Vec<Parameter<'_>>, &'static str> {
    let has_at = query.contains('@');
    let mut may_be_password = has_at;
    let mut parameters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(if has_at {
            UNESCAPED
        } else {
            "query parameter without a value: give name=value, and percent-encode `?` and `&` in a password as %3F \
             and %26"
        })?;
        let name = decode(name)?;
        if has_at && !is_known(&name) {
            return Err(UNESCAPED);
        }
        let is_password = name == "password";
        parameters.push(Parameter { name, value, may_be_password });
        may_be_password |= is_password;
    }
    Ok(parameters)
}

/// Percent-decodes `part`.
pub(super) fn decode(part: &str) -> Result<Cow<'_, str>, &'static str> {
    let text =
        percent_decode_str(part).decode_utf8().map_err(|_| "invalid UTF-8 after percent-decoding: give UTF-8")?;
    if text.contains('\0') {
        return Err("zero byte, which the server does not accept: give the text without %00");
    }
    Ok(text)
}

/// Splits a list of hosts, still percent-encoded, each with its optional port; `None` if it is invalid.
pub(super) fn host_list(hosts: &str) -> Option<Vec<(&str, Option<u16>)>> {
    if hosts.is_empty() {
        return Some(Vec::new());
    }
    hosts.split(',').map(host).collect()
}

fn host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            match after.strip_prefix(':') {
                None if !after.is_empty() => return None,
                port => (host, port),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        None | Some("") => Some((host, None)),
        Some(port) => Some((host, Some(parse_port(port)?))),
    }
}

pub(super) fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

impl Parts<'_> {
    /// Returns `url`, which these are the parts of, with `***` in place of each password.
    pub(super) fn redacted(&self, url: &str) -> String {
        let mut secrets = self.secrets.clone();
        secrets.sort_by_key(|range| range.start);
        let mut redacted = String::new();
        let mut end = 0;
        for secret in secrets {
            redacted.push_str(&url[end..secret.start]);
            redacted.push_str("***");
            end = secret.end;
        }
        redacted.push_str(&url[end..]);
        redacted
    }
}
