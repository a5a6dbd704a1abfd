//! libpq's password file.

use tokio_postgres::Config;

use super::secret::Secret;

/// The entries of a password file, `host:port:database:user:password` one a line.
///
/// As in libpq, the first matching entry counts, `*` matches everything, `\:` and `\\` stand for a colon and a backslash,
/// lines that begin with `#` are comments, and a line of another form matches nothing.
pub(in crate::pool::postgres) struct Passfile(Vec<[Vec<u8>; 5]>);

/// What an entry is searched for.
#[derive(Debug)]
pub(super) struct Login<'a> {
    /// The host as configured, or `localhost` for a Unix socket in the default directory.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

impl<'a> Login<'a> {
    /// Returns `None` without a user. The user's name is the default of the database's.
    pub(super) fn new(host: &'a str, port: u16, config: &'a Config) -> Option<Self> {
        // libpq's own default directory, and that of Debian.
        let host = if matches!(host, "/tmp" | "/var/run/postgresql") { "localhost" } else { host };
        let user = config.get_user()?;
        Some(Self { host, port, database: config.get_dbname().unwrap_or(user), user })
    }
}

impl Passfile {
    pub(super) fn parse(content: &[u8]) -> Self {
        let lines = content.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        Self(lines.filter(|line| !line.starts_with(b"#")).filter_map(fields).collect())
    }

    /// Returns the password of the first entry that matches `login`; `None` if it is empty or there is no entry.
    pub(super) fn find(&self, login: &Login<'_>) -> Option<Secret> {
        let port = login.port.to_string();
        let wanted = [login.host, &port, login.database, login.user];
        let matches = |entry: &&[Vec<u8>; 5]| {
            entry.iter().zip(wanted).all(|(field, wanted)| matches_field(field, wanted.as_bytes()))
        };
        let [.., password] = self.0.iter().find(matches)?;
        Some(unescape(password)).filter(|password| !password.is_empty()).map(Secret::from)
    }
}

/// Returns the fields of a line, still escaped. What follows the fifth is ignored.
fn fields(line: &[u8]) -> Option<[Vec<u8>; 5]> {
    let mut fields: [Vec<u8>; 5] = Default::default();
    let (mut at, mut is_escaped) = (0, false);
    for byte in line {
        if *byte == b':' && !is_escaped {
            at += 1;
            if at == fields.len() {
                break;
            }
            continue;
        }
        is_escaped = *byte == b'\\' && !is_escaped;
        fields[at].push(*byte);
    }
    (at >= 4).then_some(fields)
}

fn matches_field(field: &[u8], wanted: &[u8]) -> bool {
    field == b"*" || unescape(field) == wanted
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn find(content: &str, host: &str, port: u16, url: &str) -> Option<String> {
        let config: Config = url.parse().unwrap();
        let login = Login::new(host, port, &config).unwrap();
        Passfile::parse(content.as_bytes())
            .find(&login)
            .map(|secret| String::from_utf8(secret.bytes().to_vec()).unwrap())
    }

    #[test]
    fn first_matching_entry_counts() {
        let content = "# db:5432:shop:app:comment\n\
                       db:5432:shop:other:1\n\
                       db:5433:shop:app:2\r\n\
                       db:*:*:app:3\n\
                       *:*:*:*:4\n";
        for (host, port, url, password) in [
            ("db", 5433, "postgres://app@db/shop", "2"),
            ("db", 5432, "postgres://app@db/shop", "3"),
            ("db", 5432, "postgres://other@db/shop", "1"),
            ("other", 5432, "postgres://app@db/shop", "4"),
        ] {
            assert_eq!(find(content, host, port, url).as_deref(), Some(password), "{host}:{port} {url}");
        }
        assert_eq!(find("db:5432:shop:app:1", "db2", 5432, "postgres://app@db/shop"), None);
    }

    #[test]
    fn colon_and_backslash_are_escaped() {
        let content = "a\\:b:5432:d\\\\b:\\*:p\\:\\\\w:ignored\n";
        assert_eq!(find(content, "a:b", 5432, "postgres://*@h/d%5Cb").as_deref(), Some("p:\\w"));
        assert_eq!(find(content, "a:b", 5432, "postgres://app@h/d%5Cb"), None, "an escaped * is no wildcard");
        assert_eq!(find("::1:5432:d:u:secret", "::1", 5432, "postgres://u@h/d"), None);
        assert_eq!(find("\\:\\:1:5432:d:u:secret", "::1", 5432, "postgres://u@h/d").as_deref(), Some("secret"));
    }

    #[test]
    fn other_lines_match_nothing() {
        for content in ["", "\n\n", "*:*:*:*", "*", ":::::", "*:*:*:*:", " *:*:*:*:secret"] {
            assert_eq!(find(content, "h", 5432, "postgres://u@h/d"), None, "{content:?}");
        }
    }

    #[test]
    fn default_socket_directory_is_localhost() {
        let content = "localhost:5432:u:u:1\n/run/pg:5432:u:u:2\n";
        assert_eq!(find(content, "/var/run/postgresql", 5432, "postgres://u@h").as_deref(), Some("1"));
        assert_eq!(find(content, "/run/pg", 5432, "postgres://u@h").as_deref(), Some("2"));
    }
}
