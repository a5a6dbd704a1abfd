//! Taking the URL apart, and putting it together without the password.
//!
//! The rules are libpq's, with three kindnesses for characters that should have been percent-encoded, none of which
//! may lead to a part of the password being taken for something that is printed:
//! - of several `@` before the first `/` or `?` the last ends the password, since no host holds one;
//! - a password may hold `/` and `?`, where what stands before them can be no host and port;
//! - a parameter's value may hold `@`, where every parameter's name is known.
//!
//! Whatever else has an `@` after the host is refused.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

use super::parameters::is_known;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

const AMBIGUOUS: &str = "has an `@` where it can be read in two ways: percent-encode `@`, `/` and `?` in the \
                         user name, the password and the rest as %40, %2F and %3F";

/// The parts, each still percent-encoded except for the parameters' names.
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
    /// Whether this could be part of a password that was not percent-encoded.
    pub(super) suspect: bool,
}

/// Takes `url` apart. The error says what is wrong with it and quotes nothing.
pub(super) fn split(url: &str) -> Result<Parts<'_>, &'static str> {
    // Nobody means one, and where the URL is printed it would begin a line of its own.
    if url.contains(char::is_control) {
        return Err("holds a line break or another control character: percent-encode it, as %0A, or leave it out");
    }
    let rest = SCHEMES
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or("begins with neither postgres:// nor postgresql://: give postgres://user:password@host:5432/database")?;
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (mut login, mut hosts, mut tail) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts, after),
        None => (None, authority, after),
    };
    let strays = tail.matches('@').count();
    if strays == 1 && login.is_none() && host_list(hosts).is_none() {
        let (before, behind) = rest.split_once('@').ok_or(AMBIGUOUS)?;
        let (behind, end) = behind.split_at(behind.find(['/', '?']).unwrap_or(behind.len()));
        (login, hosts, tail) = (Some(before), behind, end);
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    if path.contains('@') {
        return Err(AMBIGUOUS);
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
    let mut suspect = query.contains('@');
    let mut parameters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(
            "has a parameter without a value: give name=value, and percent-encode `?` and `&` \
             that belong to a password as %3F and %26",
        )?;
        let name = decode(name)?;
        if query.contains('@') && !is_known(&name) {
            return Err(AMBIGUOUS);
        }
        let is_password = name == "password";
        parameters.push(Parameter { name, value, suspect });
        suspect |= is_password;
    }
    Ok(parameters)
}

/// The text that stands for `part`.
pub(super) fn decode(part: &str) -> Result<Cow<'_, str>, &'static str> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| "is not UTF-8 once percent-decoded: give UTF-8")?;
    if text.contains('\0') {
        return Err("holds a zero byte, which the server cannot take: give it without %00");
    }
    Ok(text)
}

/// The hosts, still percent-encoded, each with its port where it has one; `None` if there is no reading them.
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
    /// `url`, of which these are the parts, with `***` for each password.
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
