//! The URL of a Redis server: address, login, TLS, database, and settings of the pool in its query.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::ConfigError;
use super::location::{Location, quoted};
use super::settings::Settings;
use super::table::{Setting, settings};
use super::tls::{self, ClientCertificate, Roots, SslMode, TlsMode};
use super::url::split::{Parameter, Parts, Scheme, decode, host_list, split};
use super::value::Value;
use crate::suggest::nearest;

const DEFAULT_PORT: u16 = 6379;

/// The schemes, with TLS or a Unix socket.
const SCHEMES: &[&str] =
    &["redis://", "rediss://", "valkey://", "valkeys://", "redis+unix://", "valkey+unix://", "unix://"];

/// The parameters other than settings.
const PARAMETERS: &[&str] = &["db", "password", "protocol", "sslcert", "sslkey", "sslmode", "sslrootcert", "user"];

/// The settings that mean nothing for Redis.
const POSTGRES_ONLY: &[&str] =
    &["cache_statements", "database_url", "passfile", "password_file", "reset_session", "trace_query_text"];

/// A parsed URL of a Redis server, as `redis://user:password@host:6379/0`. `Display` and `Debug` print it without the
/// password.
///
/// - `rediss://` connects with TLS, and verifies the server's certificate and name with the system's authorities, or with
///   those in `sslrootcert`. `sslmode`, `sslcert` and `sslkey` are as for PostgreSQL.
/// - `redis+unix:///run/redis.sock?db=0` is a Unix socket; `unix://` and `valkey://` are accepted as well.
/// - `protocol=resp3` selects RESP3; the default is RESP2.
/// - The other parameters are settings of the pool.
///
/// Cheap to clone.
///
/// ```
/// use poolscope::redis::RedisUrl;
///
/// # fn main() -> Result<(), poolscope::ConfigError> {
/// let url: RedisUrl = "redis://app:secret@cache.example/1?pool_size=5".parse()?;
/// assert_eq!(url.to_string(), "redis://app:***@cache.example/1?pool_size=5");
/// assert_eq!(url.default_pool_name(), "cache.example:6379/1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisUrl(Arc<Parsed>);

struct Parsed {
    address: RedisAddress,
    tls: TlsMode,
    client_certificate: Option<ClientCertificate>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    database: i64,
    resp3: bool,
    redacted: String,
    settings: Vec<(&'static Setting, Value)>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedisAddress {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

/// What was read of the query so far.
#[derive(Default)]
struct Query {
    sslmode: Option<SslMode>,
    sslrootcert: Option<Roots>,
    sslcert: Option<PathBuf>,
    sslkey: Option<PathBuf>,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    database: Option<i64>,
    resp3: bool,
    settings: Vec<(&'static Setting, Value)>,
}

impl RedisUrl {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let location = &Location::REDIS_URL;
        let invalid = |problem: &str| ConfigError::url(location, problem);
        let scheme = Scheme {
            names: SCHEMES,
            problem: "begins with none of redis://, rediss:// and redis+unix://: give redis://user:password@host:6379/0",
            is_known,
        };
        let parts = split(text, &scheme).map_err(invalid)?;
        let scheme = SCHEMES.iter().find(|scheme| text.starts_with(**scheme)).copied().unwrap_or_default();
        let mut query =
            Query { user: parts.user.map(decode).transpose().map_err(invalid)?.map(String::from), ..Query::default() };
        if let Some(password) = parts.password.filter(|password| !password.is_empty()) {
            query.password = Some(Zeroizing::new(decode(password).map_err(invalid)?.into_owned()));
        }
        for parameter in &parts.parameters {
            query.apply(parameter, location)?;
        }
        let is_unix = scheme.contains("unix");
        let (address, database) = address(&parts, is_unix).map_err(invalid)?;
        if let (Some(one), Some(other)) = (database, query.database)
            && one != other
        {
            return Err(invalid("two databases: give one, in the path or as parameter `db`"));
        }
        if query.user.is_some() && query.password.is_none() {
            return Err(invalid("a user without a password: give redis://user:password@host:6379/0"));
        }
        let encrypts = matches!(scheme, "rediss://" | "valkeys://");
        let Query { sslmode, sslrootcert, sslcert, sslkey, .. } = query;
        let tls = if encrypts {
            // Without a mode, the name is verified too: other than PostgreSQL's, the scheme itself asks for TLS.
            let mode = sslmode.unwrap_or(SslMode::VerifyFull);
            if !matches!(mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) {
                return Err(invalid("rediss:// always encrypts: give sslmode=require, verify-ca or verify-full"));
            }
            tls::resolve(Some(mode), sslrootcert, false, location)?
        } else if sslmode.is_some() || sslrootcert.is_some() || sslcert.is_some() || sslkey.is_some() {
            return Err(invalid("parameters of TLS without TLS: give rediss://, or remove them"));
        } else {
            TlsMode::Disable
        };
        Ok(Self(Arc::new(Parsed {
            address,
            tls,
            client_certificate: tls::client_certificate(sslcert, sslkey, sslmode, location)?,
            user: query.user,
            password: query.password,
            database: database.or(query.database).unwrap_or_default(),
            resp3: query.resp3,
            redacted: parts.redacted(text),
            settings: query.settings,
        })))
    }

    pub(crate) fn address(&self) -> &RedisAddress {
        &self.0.address
    }

    /// Returns whether the connection is encrypted, and how the server is verified.
    #[must_use]
    pub fn tls(&self) -> &TlsMode {
        &self.0.tls
    }

    /// Returns the files of the certificate that the client presents, if it has one.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.0.client_certificate.as_ref()
    }

    /// Returns the number of the database.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.0.database
    }

    /// Returns whether the connection uses RESP3.
    #[must_use]
    pub fn is_resp3(&self) -> bool {
        self.0.resp3
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.0.password.as_ref().map(|password| password.as_str())
    }

    /// Returns the default name of a pool: `host:port/database`, or the path of the socket and the database.
    #[must_use]
    pub fn default_pool_name(&self) -> String {
        let database = self.0.database;
        match &self.0.address {
            RedisAddress::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}/{database}"),
            RedisAddress::Tcp(host, port) => format!("{host}:{port}/{database}"),
            RedisAddress::Unix(path) => format!("{}/{database}", path.display()),
        }
    }

    /// Applies the settings in the query.
    pub(crate) fn apply_to(&self, settings: &mut Settings) {
        settings.assign_each(&self.0.settings);
    }
}

/// Returns the address and the database in the path.
fn address(parts: &Parts<'_>, is_unix: bool) -> Result<(RedisAddress, Option<i64>), &'static str> {
    const HOST: &str = "invalid host or port: give host:port with a port from 1 to 65535 and IPv6 addresses in brackets, \
                        and percent-encode `:`, `/`, `?` and `@` in the user name and the password";
    if is_unix {
        if !parts.hosts.is_empty() || parts.database.is_empty() {
            return Err("no path of a socket: give redis+unix:///path/to/redis.sock");
        }
        return Ok((RedisAddress::Unix(format!("/{}", decode(parts.database)?).into()), None));
    }
    let (host, port) = match host_list(parts.hosts).ok_or(HOST)?[..] {
        [("", _)] | [] => return Err("no host: give one, as in redis://host:6379/0"),
        [(host, port)] => (decode(host)?.into_owned(), port.unwrap_or(DEFAULT_PORT)),
        _ => return Err("more than one host: a pool connects to one server"),
    };
    let database = match parts.database {
        "" => None,
        number => Some(database(number).ok_or("the path is not the number of a database: give redis://host:6379/0")?),
    };
    Ok((RedisAddress::Tcp(host, port), database))
}

fn database(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| (0..=i64::from(u16::MAX)).contains(number) && !text.starts_with('+'))
}

/// Returns the names of all parameters.
fn known() -> impl Iterator<Item = &'static str> {
    let settings = settings().map(Setting::name).filter(|name| !POSTGRES_ONLY.contains(name));
    settings.chain(PARAMETERS.iter().copied())
}

fn is_known(name: &str) -> bool {
    known().any(|known| known == name)
}

impl Query {
    fn apply(&mut self, parameter: &Parameter<'_>, location: &Location) -> Result<(), ConfigError> {
        let Some(name) = known().find(|known| *known == parameter.name) else {
            if parameter.may_be_password {
                let problem =
                    "unknown parameter after `password`: if it is part of the password, percent-encode `&` as %26";
                return Err(ConfigError::url(location, problem));
            }
            let suggestion = nearest(&parameter.name, known()).map(str::to_owned);
            return Err(ConfigError::unknown(location, &parameter.name, suggestion));
        };
        let location = location.parameter(name);
        let value = decode(parameter.value).map_err(|problem| ConfigError::url(&location, problem))?;
        let expected = match self.read(name, &value, &location) {
            Ok(Some(expected)) => expected.to_owned(),
            Ok(None) => return Ok(()),
            Err(ConfigError::Invalid { expected, .. }) => expected,
            Err(error) => return Err(error),
        };
        let hidden = "a value that is not shown".to_owned();
        let value = if parameter.may_be_password { hidden } else { quoted(&value) };
        Err(ConfigError::Invalid { location: location.to_string(), setting: name, value, expected })
    }

    /// Reads the parameter called `name`. Returns which values are accepted if this one is not.
    fn read(
        &mut self,
        name: &'static str,
        value: &str,
        location: &Location,
    ) -> Result<Option<&'static str>, ConfigError> {
        let mut problem = None;
        match name {
            "user" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(Zeroizing::new(value.to_owned())),
            "db" => match database(value) {
                Some(number) => self.database = Some(number),
                None => problem = Some("the number of a database, from 0"),
            },
            "protocol" => match value {
                "resp2" | "2" => self.resp3 = false,
                "resp3" | "3" => self.resp3 = true,
                _ => problem = Some("resp2 or resp3"),
            },
            "sslmode" => match SslMode::parse(value) {
                Some(mode) => self.sslmode = Some(mode),
                None => problem = Some("require, verify-ca or verify-full"),
            },
            "sslrootcert" if value == "system" => self.sslrootcert = Some(Roots::System),
            "sslrootcert" => self.sslrootcert = Some(Roots::File(value.into())),
            "sslcert" => self.sslcert = Some(value.into()),
            "sslkey" => self.sslkey = Some(value.into()),
            _ => {
                if let Some(setting) = Setting::find(name) {
                    self.settings.push((setting, setting.parse(value, location)?));
                }
            }
        }
        Ok(problem)
    }
}

impl FromStr for RedisUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.redacted)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").field(&self.0.redacted).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts_are_read() {
        let parsed = url("redis://app:s%40crt@cache.example:7000/3?protocol=resp3&pool_size=4");
        assert_eq!(*parsed.address(), RedisAddress::Tcp("cache.example".to_owned(), 7000));
        assert_eq!((parsed.user(), parsed.password(), parsed.database()), (Some("app"), Some("s@crt"), 3));
        assert!(parsed.is_resp3() && *parsed.tls() == TlsMode::Disable);
        let mut settings = Settings::default();
        parsed.apply_to(&mut settings);
        assert_eq!(settings.pool_size, 4);
        let parsed = url("redis://:secret@[::1]");
        assert_eq!(*parsed.address(), RedisAddress::Tcp("::1".to_owned(), 6379));
        assert_eq!((parsed.user(), parsed.password()), (None, Some("secret")));
        assert_eq!(parsed.default_pool_name(), "[::1]:6379/0");
        for scheme in ["redis+unix", "valkey+unix", "unix"] {
            let parsed = url(&format!("{scheme}:///run/redis/a%20b.sock?db=2"));
            assert_eq!(*parsed.address(), RedisAddress::Unix("/run/redis/a b.sock".into()));
            assert_eq!((parsed.database(), &*parsed.default_pool_name()), (2, "/run/redis/a b.sock/2"));
        }
    }

    #[test]
    fn mistakes_are_explained_and_passwords_are_not_shown() {
        for (text, expected) in [
            ("http://h", "begins with none of redis://, rediss:// and redis+unix://"),
            ("redis://", "no host"),
            ("redis://a,b", "more than one host"),
            ("redis://h/hunter2", "the path is not the number of a database"),
            ("redis://h/1?db=2", "two databases"),
            ("redis://app@h", "a user without a password"),
            ("redis://:hun@ter2@h", "percent-encode them"),
            ("redis://h:99999", "invalid host or port"),
            ("redis://h?pool_siz=2", "did you mean `pool_size`?"),
            ("redis://h?passfile=/hunter2", "unknown setting `passfile`"),
            ("redis://h?protocol=resp4", "expected resp2 or resp3"),
            ("redis://h?pool_size=0", "expected a whole number from 1 to 10000"),
            ("redis://h?sslrootcert=a.pem", "give rediss://"),
            ("redis+unix://h/redis.sock", "no path of a socket"),
            ("redis://h?password=a&hunter2=b", "percent-encode `&` as %26"),
        ] {
            let error = text.parse::<RedisUrl>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.starts_with("Redis URL"), "{text}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{error}");
        }
        let parsed = url("redis://app:hunter2@h/0?pool_size=4");
        assert_eq!(format!("{parsed} {parsed:?}").matches("hunter2").count(), 0);
        assert_eq!(parsed.to_string(), "redis://app:***@h/0?pool_size=4");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_verifies_the_name_unless_told_otherwise() {
        use super::super::tls::Verify;

        let mode = |text: &str| url(text).tls().clone();
        assert_eq!(mode("rediss://h"), TlsMode::Require(Verify::ChainAndName(Roots::System)));
        assert_eq!(
            mode("rediss://h?sslrootcert=/ca.pem"),
            TlsMode::Require(Verify::ChainAndName(Roots::File("/ca.pem".into())))
        );
        assert_eq!(mode("rediss://h?sslmode=require"), TlsMode::Require(Verify::Nothing));
        let error = "rediss://h?sslmode=prefer".parse::<RedisUrl>().unwrap_err().to_string();
        assert!(error.contains("always encrypts"), "{error}");
    }
}
