//! The authentication methods that a server may request, libpq's `require_auth`.

/// A set of authentication methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AuthenticationMethods {
    /// One bit for each allowed method.
    allowed: u8,
    /// Whether the refused methods were listed.
    is_negated: bool,
}

/// An authentication method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthenticationMethod {
    /// None, or a client certificate.
    None,
    /// A password in clear text.
    Password,
    Md5,
    Gss,
    Sspi,
    ScramSha256,
    OAuth,
}

impl AuthenticationMethod {
    const ALL: [Self; 7] =
        [Self::None, Self::Password, Self::Md5, Self::Gss, Self::Sspi, Self::ScramSha256, Self::OAuth];

    /// Returns the name in `require_auth`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Gss => "gss",
            Self::Sspi => "sspi",
            Self::ScramSha256 => "scram-sha-256",
            Self::OAuth => "oauth",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl AuthenticationMethods {
    pub(super) const EXPECTED: &'static str = "password, md5, gss, sspi, scram-sha-256, oauth or none, several with a \
                                               comma between, or all but these with a ! before each";

    /// Parses a list of methods to allow, or of methods to refuse, each after `!`. A method must not be repeated.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_negated = text.starts_with('!');
        let mut listed = 0_u8;
        for name in text.split(',') {
            let name = if is_negated { name.strip_prefix('!')? } else { name };
            let method = AuthenticationMethod::ALL.into_iter().find(|method| method.as_str() == name)?;
            if listed & method.bit() != 0 {
                return None;
            }
            listed |= method.bit();
        }
        Some(Self { allowed: if is_negated { !listed } else { listed }, is_negated })
    }

    pub(crate) const fn contain(self, method: AuthenticationMethod) -> bool {
        self.allowed & method.bit() != 0
    }

    /// Returns whether `method` was listed as allowed, rather than only not refused.
    pub(crate) const fn name(self, method: AuthenticationMethod) -> bool {
        !self.is_negated && self.contain(method)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn list_allows_or_refuses_methods() {
        let allowed = |text: &str| {
            let methods = AuthenticationMethods::parse(text)?;
            let allowed = AuthenticationMethod::ALL.into_iter().filter(|method| methods.contain(*method));
            Some(allowed.map(AuthenticationMethod::as_str).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(allowed("scram-sha-256").unwrap(), "scram-sha-256");
        assert_eq!(allowed("none,md5").unwrap(), "none md5");
        assert_eq!(allowed("!password,!md5,!none").unwrap(), "gss sspi scram-sha-256 oauth");
        for text in ["", "scram", "md5,", "md5,!none", "!md5,none", "md5,md5", " md5", "MD5"] {
            assert_eq!(allowed(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_a_positive_list_names_a_method() {
        let names = |text: &str| AuthenticationMethods::parse(text).unwrap().name(AuthenticationMethod::Password);
        assert!(names("password") && names("md5,password"));
        assert!(!names("!none") && !names("!md5") && !names("!password") && !names("scram-sha-256"));
    }
}
