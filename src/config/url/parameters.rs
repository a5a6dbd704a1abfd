//! The connection's configuration and the settings, from the parts of the URL and the parameters of its query.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

use super::super::authentication::AuthenticationMethods;
use super::super::error::ConfigError;
use super::super::location::{Location, quoted};
use super::super::table::Setting;
use super::super::tls::{Roots, SslMode};
use super::super::value::Value;
use super::known::known;
use super::split::{Parameter, Parts, decode, host_list, parse_port};
use crate::suggest::nearest;

/// The result of the parts that were read so far.
pub(super) struct Target<'a> {
    pub(super) config: Config,
    pub(super) sslmode: Option<SslMode>,
    pub(super) sslrootcert: Option<Roots>,
    pub(super) require_auth: Option<AuthenticationMethods>,
    pub(super) sslcert: Option<PathBuf>,
    pub(super) sslkey: Option<PathBuf>,
    pub(super) settings: Vec<(&'static Setting, Value)>,
    no_keepalive: bool,
    location: &'a Location,
}

/// The reason why a parameter's value is invalid.
enum InvalidParameter {
    /// The error of a setting.
    Setting(ConfigError),
    /// The values that are accepted.
    Expected(&'static str),
}

impl From<&'static str> for InvalidParameter {
    fn from(expected: &'static str) -> Self {
        Self::Expected(expected)
    }
}

impl<'a> Target<'a> {
    /// Reads the parts before the query. The error describes the problem and quotes nothing.
    pub(super) fn new(parts: &Parts<'_>, location: &'a Location) -> Result<Self, &'static str> {
        let mut config = Config::new();
        if let Some(user) = parts.user {
            config.user(decode(user)?);
        }
        if let Some(password) = parts.password {
            // Not decoded as text: a password may be any bytes.
            config.password(percent_encoding::percent_decode_str(password).collect::<Vec<u8>>());
        }
        let hosts = host_list(parts.hosts).ok_or(
            "invalid host or port: give host:port with a port from 1 to 65535 and IPv6 addresses in brackets, and \
             percent-encode `:`, `/`, `?` and `@` in the user name and the password",
        )?;
        match hosts[..] {
            // Only a port: the host is a parameter.
            [("", Some(port))] => {
                config.port(port);
            }
            _ => {
                // If no host has a port, there may be one among the parameters.
                let ported = hosts.iter().any(|(_, port)| port.is_some());
                for (host, port) in hosts {
                    if host.is_empty() {
                        return Err("empty host in the list of hosts: give a name between the commas");
                    }
                    config.host(decode(host)?);
                    if ported {
                        config.port(port.unwrap_or(5432));
                    }
                }
            }
        }
        if !parts.database.is_empty() {
            config.dbname(decode(parts.database)?);
        }
        Ok(Self {
            config,
            sslmode: None,
            sslrootcert: None,
            require_auth: None,
            sslcert: None,
            sslkey: None,
            settings: Vec::new(),
            no_keepalive: false,
            location,
        })
    }

    pub(super) fn apply(&mut self, parameter: &Parameter<'_>) -> Result<(), ConfigError> {
        let Some(name) = known().find(|known| *known == parameter.name) else {
            return Err(self.unknown(parameter));
        };
        let location = self.location.parameter(name);
        let value = decode(parameter.value).map_err(|problem| ConfigError::url(&location, problem))?;
        let (value, expected) = match self.read(name, &value) {
            Ok(()) => return Ok(()),
            Err(InvalidParameter::Setting(ConfigError::Invalid { value, expected, .. })) => (value, expected),
            Err(InvalidParameter::Setting(error)) => return Err(error),
            Err(InvalidParameter::Expected(expected)) => (quoted(&value), expected.to_owned()),
        };
        Err(ConfigError::Invalid {
            location: location.to_string(),
            setting: name,
            value: if parameter.may_be_password { "a value that is not shown".to_owned() } else { value },
            expected,
        })
    }

    /// Ends the query. `keepalives=0` takes precedence regardless of its position.
    pub(super) fn finish(mut self) -> Self {
        if let Some(setting) = Setting::find("tcp_keepalive").filter(|_| self.no_keepalive) {
            self.settings.push((setting, Value::OptionalDuration(None)));
        }
        self
    }

    fn unknown(&self, parameter: &Parameter<'_>) -> ConfigError {
        if parameter.may_be_password {
            return ConfigError::url(
                self.location,
                "unknown parameter after `password`: if it is part of the password, percent-encode `&` as %26",
            );
        }
        let suggestion = nearest(&parameter.name, known()).map(str::to_owned);
        ConfigError::unknown(self.location, &parameter.name, suggestion)
    }

    /// Reads the parameter called `name`.
    fn read(&mut self, name: &'static str, value: &str) -> Result<(), InvalidParameter> {
        let config = &mut self.config;
        match name {
            "user" => drop(config.user(value)),
            "password" => drop(config.password(value)),
            "dbname" => drop(config.dbname(value)),
            "options" => drop(config.options(value)),
            "host" => {
                for host in value.split(',') {
                    if host.is_empty() {
                        return Err("a host, or several with a comma between".into());
                    }
                    config.host(host);
                }
            }
            "hostaddr" => {
                for address in value.split(',') {
                    let address: IpAddr = address.parse().map_err(|_| "an IP address")?;
                    config.hostaddr(address);
                }
            }
            "port" => {
                for port in value.split(',') {
                    let port = if port.is_empty() { Some(5432) } else { parse_port(port) };
                    config.port(port.ok_or("a port from 1 to 65535")?);
                }
            }
            "sslmode" => self.sslmode = Some(SslMode::parse(value).ok_or(SslMode::EXPECTED)?),
            "sslrootcert" => {
                self.sslrootcert = Some(match value {
                    "" => return Err("a file of PEM certificates, or system".into()),
                    "system" => Roots::System,
                    path => Roots::File(PathBuf::from(path)),
                });
            }
            "require_auth" => {
                let methods = AuthenticationMethods::parse(value).ok_or(AuthenticationMethods::EXPECTED)?;
                self.require_auth = Some(methods);
            }
            "sslcert" | "sslkey" if value.is_empty() => return Err("a PEM file".into()),
            "sslcert" => self.sslcert = Some(PathBuf::from(value)),
            "sslkey" => self.sslkey = Some(PathBuf::from(value)),
            "sslnegotiation" => drop(config.ssl_negotiation(match value {
                "postgres" => SslNegotiation::Postgres,
                "direct" => SslNegotiation::Direct,
                _ => return Err("postgres or direct".into()),
            })),
            "target_session_attrs" => drop(config.target_session_attrs(match value {
                "any" => TargetSessionAttrs::Any,
                "read-write" => TargetSessionAttrs::ReadWrite,
                "read-only" => TargetSessionAttrs::ReadOnly,
                _ => return Err("any, read-write or read-only".into()),
            })),
            "channel_binding" => drop(config.channel_binding(match value {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err("disable, prefer or require".into()),
            })),
            "load_balance_hosts" => drop(config.load_balance_hosts(match value {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err("disable or random".into()),
            })),
            "keepalives" => self.no_keepalive = number(value).ok_or("0 or 1")? == 0,
            "keepalives_idle" => match number(value).ok_or("a number of seconds")? {
                0 => {}
                seconds => self.read_setting("tcp_keepalive", &format!("{seconds}s"))?,
            },
            "keepalives_interval" => match number(value).ok_or("a number of seconds")? {
                0 => {}
                seconds => drop(config.keepalives_interval(Duration::from_secs(seconds.into()))),
            },
            "keepalives_count" | "keepalives_retries" => match number(value).ok_or("a number of probes")? {
                0 => {}
                probes => drop(config.keepalives_retries(probes)),
            },
            "connect_timeout" if number(value).is_some() => {
                self.read_setting(name, &format!("{value}s"))?;
            }
            "tcp_user_timeout" if number(value) == Some(0) => self.read_setting(name, "off")?,
            "application_name" => {
                self.read_setting(name, value)?;
                self.config.application_name(value);
            }
            setting => self.read_setting(setting, value)?,
        }
        Ok(())
    }

    /// Reads `value` as the setting called `name`.
    fn read_setting(&mut self, name: &'static str, value: &str) -> Result<(), InvalidParameter> {
        let setting = Setting::find(name).ok_or("no such parameter")?;
        let value = setting.parse(value, self.location).map_err(InvalidParameter::Setting)?;
        self.settings.push((setting, value));
        Ok(())
    }
}

/// Parses a number without a unit, as in libpq; `None` if it exceeds what the kernel accepts.
fn number(text: &str) -> Option<u32> {
    const KERNEL_MAX: u32 = 0x7fff;
    text.parse().ok().filter(|number| *number <= KERNEL_MAX && !text.starts_with('+'))
}
