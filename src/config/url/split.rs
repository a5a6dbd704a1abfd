//! Splits the URL into its parts, and prints it without the password and the values of `options`.
//!
//! As in RFC 3986 the user name and the password end at the only `@` before the first `/` or `?`, so a password must not
//! contain these characters unless they are percent-encoded. A URL that seems to have such a password is refused: no part
//! of a password may be mistaken for a part that is printed. The value of a known query parameter may contain `@`.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::percent_decode_str;

/// The kind of a URL.
pub(in crate::config) struct Scheme {
    /// What a URL may begin with.
    pub(in crate::config) names: &'static [&'static str],
    /// The problem of one that begins with something else.
    pub(in crate::config) problem: &'static str,
    /// Returns whether a parameter has a meaning.
    pub(in crate::config) is_known: fn(&str) -> bool,
}

const UNESCAPED: &str =
    "unescaped `@`, `/` or `?`, most likely in the password: percent-encode them as %40, %2F and %3F";

const SPACE: &str = "space at a place where none is allowed: remove it, or percent-encode it as %20";

/// The parts of a URL, still percent-encoded except for the parameters' names.
pub(in crate::config) struct Parts<'a> {
    pub(in crate::config) user: Option<&'a str>,
    pub(in crate::config) password: Option<&'a str>,
    pub(in crate::config) hosts: &'a str,
    pub(in crate::config) database: &'a str,
    pub(in crate::config) parameters: Vec<Parameter<'a>>,
    secrets: Vec<Range<usize>>,
}

/// One `name=value` of the query.
pub(in crate::config) struct Parameter<'a> {
    pub(in crate::config) name: Cow<'a, str>,
    pub(in crate::config) value: &'a str,
    /// Whether the parameter could be part of a password that was not percent-encoded.
    pub(in crate::config) may_be_password: bool,
}

/// Splits `url`. The error describes the problem and quotes nothing.
pub(in crate::config) fn split<'a>(url: &'a str, scheme: &Scheme) -> Result<Parts<'a>, &'static str> {
    // Always a mistake, and a line break in a printed URL could forge a line of the log.
    if url.contains(char::is_control) {
        return Err("line break or other control character: percent-encode it, as in %0A, or remove it");
    }
    check_escapes(url)?;
    let rest = scheme.names.iter().find_map(|name| url.strip_prefix(name)).ok_or(scheme.problem)?;
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
    // Around a part, a space is a mistake. Passwords and values of parameters may contain one.
    let is_padded = |part: &str| part.trim() != part;
    if hosts.contains(char::is_whitespace)
        || is_padded(path)
        || login.is_some_and(|login| login.split(':').any(is_padded))
    {
        return Err(SPACE);
    }
    let offset_of = |part: &str| part.as_ptr() as usize - url.as_ptr() as usize;
    let range_of = |part: &str| offset_of(part)..offset_of(part) + part.len();

    let parameters = query.map_or_else(|| Ok(Vec::new()), |query| parameters(query, scheme.is_known))?;
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
    for parameter in parameters.iter().filter(|parameter| parameter.name == "options") {
        let offset = offset_of(parameter.value);
        secrets.extend(option_values(parameter.value).map(|range| range.start + offset..range.end + offset));
    }
    Ok(Parts {
        user: user.filter(|user| !user.is_empty()),
        password,
        hosts,
        database: path.strip_prefix('/').unwrap_or(path),
        parameters,
        secrets,
    })
}

fn parameters(query: &str, is_known: fn(&str) -> bool) -> Result<Vec<Parameter<'_>>, &'static str> {
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
        if [name, value].iter().any(|text| text.trim() != *text) {
            return Err(SPACE);
        }
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

/// Checks that each `%` begins a percent-escape.
fn check_escapes(url: &str) -> Result<(), &'static str> {
    let mut escapes = url.split('%').skip(1);
    let is_escape =
        |rest: &str| rest.as_bytes().first_chunk::<2>().is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if escapes.all(is_escape) {
        Ok(())
    } else {
        Err("`%` without two hexadecimal digits, most likely in the password: percent-encode it as %25")
    }
}

/// Returns where the values of settings are in the parameter `options`, such as `-c%20work_mem%3D64MB`. They may be
/// secrets of the application. What follows a backslash is part of a value, as for the server.
fn option_values(options: &str) -> impl Iterator<Item = Range<usize>> {
    let mut values = Vec::new();
    // The beginning of the current word and of its value.
    let (mut word, mut value) = (None, None);
    let (mut at, mut is_escaped) = (0, false);
    let mut end = |at: usize, word: &mut Option<(usize, bool)>, value: &mut Option<usize>| {
        if let Some((begin, is_switch)) = word.take() {
            // A word without `=` is a switch such as `-c`, which may be followed by a value.
            let after_switch = if is_switch { at.min(begin + "-c".len()) } else { begin };
            // Not within a character of several bytes, which is then part of the value.
            let boundary = |index: &usize| options.is_char_boundary(*index);
            let begin = value.take().unwrap_or_else(|| (begin..=after_switch).rev().find(boundary).unwrap_or(begin));
            values.push(begin..at);
        }
    };
    while let Some(first) = options.as_bytes().get(at) {
        let hex = options.get(at + 1..at + 3).filter(|_| *first == b'%');
        let (byte, len) = match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (byte, 3),
            None => (*first, 1),
        };
        if byte.is_ascii_whitespace() && !is_escaped {
            end(at, &mut word, &mut value);
        } else {
            word.get_or_insert((at, byte == b'-'));
            if byte == b'=' && value.is_none() {
                value = Some(at + len);
            }
        }
        is_escaped = byte == b'\\' && !is_escaped;
        at += len;
    }
    end(at, &mut word, &mut value);
    values.into_iter().filter(|range| !range.is_empty())
}

/// Percent-decodes `part`.
pub(in crate::config) fn decode(part: &str) -> Result<Cow<'_, str>, &'static str> {
    let text =
        percent_decode_str(part).decode_utf8().map_err(|_| "invalid UTF-8 after percent-decoding: give UTF-8")?;
    if text.contains('\0') {
        return Err("zero byte, which the server does not accept: give the text without %00");
    }
    Ok(text)
}

/// Splits a list of hosts, still percent-encoded, each with its optional port; `None` if it is invalid.
pub(in crate::config) fn host_list(hosts: &str) -> Option<Vec<(&str, Option<u16>)>> {
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

pub(in crate::config) fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0 && !text.starts_with('+'))
}

impl Parts<'_> {
    /// Returns `url`, which these are the parts of, with `***` in place of each password and each value of `options`.
    pub(in crate::config) fn redacted(&self, url: &str) -> String {
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
