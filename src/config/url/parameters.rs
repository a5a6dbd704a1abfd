//! What the URL's parts and its query's parameters set.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation, TargetSessionAttrs};

use super::super::error::{ConfigError, Origin, quoted};
use super::super::table::{SETTINGS, Setting};
use super::super::tls::{Roots, SslMode};
use super::super::value::Value;
use super::split::{Parameter, Parts, decode, host_list, parse_port};
use crate::suggest::nearest;

/// The parameters beside the settings.
const PARAMETERS: &[&str] = &[
    "channel_binding",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

fn known() -> impl Iterator<Item = &'static str> {
    let settings = SETTINGS.iter().filter(|setting| !setting.is_url());
    settings.map(Setting::name).chain(PARAMETERS.iter().copied())
}

pub(super) fn is_known(name: &str) -> bool {
    known().any(|known| known == name)
}

/// What the URL says so far.
pub(super) struct Target<'a> {
    pub(super) config: Config,
    pub(super) sslmode: Option<SslMode>,
    pub(super) sslrootcert: Option<Roots>,
    pub(super) settings: Vec<(&'static Setting, Value)>,
    no_keepalive: bool,
    origin: &'a Origin,
}

/// Why a parameter's value cannot be taken.
enum Refused {
    /// A setting that refuses it.
    Setting(ConfigError),
    /// What would do.
    Remedy(&'static str),
}

impl From<&'static str> for Refused {
    fn from(remedy: &'static str) -> Self {
        Self::Remedy(remedy)
    }
}

impl<'a> Target<'a> {
    /// What stands before the query. The error says what is wrong and quotes nothing.
    pub(super) fn new(parts: &Parts<'_>, origin: &'a Origin) -> Result<Self, &'static str> {
        let mut config = Config::new();
        if let Some(user) = parts.user {
            config.user(decode(user)?);
        }
        if let Some(password) = parts.password {
            // Not decoded as text: a password may be any bytes.
            config.password(percent_encoding::percent_decode_str(password).collect::<Vec<u8>>());
        }
        let hosts = host_list(parts.hosts).ok_or(
            "has a host and port that cannot be read: give host:port with a port from 1 to 65535, IPv6 in \
             brackets, and percent-encode `:`, `/`, `?` and `@` in the user name and the password",
        )?;
        match hosts[..] {
            // Only a port: the host is a parameter.
            [("", Some(port))] => {
                config.port(port);
            }
            _ => {
                // Without a single port here there may still be one among the parameters.
                let ported = hosts.iter().any(|(_, port)| port.is_some());
                for (host, port) in hosts {
                    if host.is_empty() {
                        return Err("has an empty host in its list: give a name between the commas");
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
        Ok(Self { config, sslmode: None, sslrootcert: None, settings: Vec::new(), no_keepalive: false, origin })
    }

    pub(super) fn apply(&mut self, parameter: &Parameter<'_>) -> Result<(), ConfigError> {
        let Some(name) = known().find(|known| *known == parameter.name) else {
            return Err(self.unknown(parameter));
        };
        let value = decode(parameter.value)
            .map_err(|problem| ConfigError::Url { origin: self.origin.parameter(name), problem: problem.to_owned() })?;
        let (value, remedy) = match self.take(name, &value) {
            Ok(()) => return Ok(()),
            Err(Refused::Setting(ConfigError::Invalid { value, remedy, .. })) => (value, remedy),
            Err(Refused::Setting(error)) => return Err(error),
            Err(Refused::Remedy(remedy)) => (quoted(&value), remedy.to_owned()),
        };
        Err(ConfigError::Invalid {
            origin: self.origin.parameter(name),
            setting: name,
            value: if parameter.suspect { "what is given".to_owned() } else { value },
            remedy,
        })
    }

    /// Ends the query. `keepalives=0` holds wherever it stands.
    pub(super) fn finish(mut self) -> Self {
        if let Some(setting) = Setting::find("tcp_keepalive").filter(|_| self.no_keepalive) {
            self.settings.push((setting, Value::OptionalDuration(None)));
        }
        self
    }

    fn unknown(&self, parameter: &Parameter<'_>) -> ConfigError {
        if parameter.suspect {
            return ConfigError::Url {
                origin: self.origin.clone(),
                problem: "has a parameter after `password` that is not known: if it is part of the password, \
                          percent-encode `&` as %26"
                    .to_owned(),
            };
        }
        ConfigError::Unknown {
            origin: self.origin.clone(),
            name: parameter.name.clone().into_owned(),
            suggestion: nearest(&parameter.name, known()).map(str::to_owned),
        }
    }

    fn take(&mut self, name: &'static str, value: &str) -> Result<(), Refused> {
        let config = &mut self.config;
        match name {
            "user" => drop(config.user(value)),
            "password" => drop(config.password(value)),
            "dbname" => drop(config.dbname(value)),
            "options" => drop(config.options(value)),
            "host" => {
                for host in value.split(',') {
                    if host.is_empty() {
                        return Err("give a host, or several with a comma between".into());
                    }
                    config.host(host);
                }
            }
            "hostaddr" => {
                for address in value.split(',') {
                    let address: IpAddr = address.parse().map_err(|_| "give an IP address")?;
                    config.hostaddr(address);
                }
            }
            "port" => {
                for port in value.split(',') {
                    let port = if port.is_empty() { Some(5432) } else { parse_port(port) };
                    config.port(port.ok_or("give a port from 1 to 65535")?);
                }
            }
            "sslmode" => self.sslmode = Some(SslMode::parse(value).ok_or(SslMode::REMEDY)?),
            "sslrootcert" => {
                self.sslrootcert = Some(match value {
                    "" => return Err("give a file of PEM certificates, or system".into()),
                    "system" => Roots::System,
                    path => Roots::File(PathBuf::from(path)),
                });
            }
            "sslnegotiation" => drop(config.ssl_negotiation(match value {
                "postgres" => SslNegotiation::Postgres,
                "direct" => SslNegotiation::Direct,
                _ => return Err("give postgres or direct".into()),
            })),
            "target_session_attrs" => drop(config.target_session_attrs(match value {
                "any" => TargetSessionAttrs::Any,
                "read-write" => TargetSessionAttrs::ReadWrite,
                "read-only" => TargetSessionAttrs::ReadOnly,
                _ => return Err("give any, read-write or read-only".into()),
            })),
            "channel_binding" => drop(config.channel_binding(match value {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err("give disable, prefer or require".into()),
            })),
            "load_balance_hosts" => drop(config.load_balance_hosts(match value {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err("give disable or random".into()),
            })),
            "keepalives" => self.no_keepalive = number(value).ok_or("give 0 or 1")? == 0,
            "keepalives_idle" => match number(value).ok_or("give a number of seconds")? {
                0 => {}
                seconds => self.read("tcp_keepalive", &format!("{seconds}s"))?,
            },
            "keepalives_interval" => match number(value).ok_or("give a number of seconds")? {
                0 => {}
                seconds => drop(config.keepalives_interval(Duration::from_secs(seconds.into()))),
            },
            "keepalives_count" | "keepalives_retries" => match number(value).ok_or("give a number of probes")? {
                0 => {}
                probes => drop(config.keepalives_retries(probes)),
            },
            "connect_timeout" if number(value).is_some() => {
                self.read(name, &format!("{value}s"))?;
            }
            "tcp_user_timeout" if number(value) == Some(0) => self.read(name, "off")?,
            "application_name" => {
                self.read(name, value)?;
                self.config.application_name(value);
            }
            setting => self.read(setting, value)?,
        }
        Ok(())
    }

    /// Reads `value` as the setting called `name`.
    fn read(&mut self, name: &'static str, value: &str) -> Result<(), Refused> {
        let setting = Setting::find(name).ok_or("leave it out")?;
        let value = setting.read(value, self.origin).map_err(Refused::Setting)?;
        self.settings.push((setting, value));
        Ok(())
    }
}

/// A number without a unit, as libpq has it. More than the kernel could take is no number.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number <= 0x7fff)
}
