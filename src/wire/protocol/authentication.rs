//! Which authentication methods a server may request.

use super::limits::LimitExceeded;
use crate::config::{AuthenticationMethod as Method, AuthenticationMethods};

/// What a server may request before the client sends a password.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthenticationPolicy {
    /// The allowed methods; `None` for all.
    pub(crate) methods: Option<AuthenticationMethods>,
    /// Whether a password may be sent in clear text without TLS.
    pub(crate) clear_text: bool,
}

/// Reads the code of the server's first authentication message.
#[derive(Debug)]
pub(super) struct AuthenticationCheck {
    policy: AuthenticationPolicy,
    code: Vec<u8>,
}

/// The length of the code.
const CODE_BYTES: usize = 4;

impl AuthenticationCheck {
    pub(super) fn new(policy: AuthenticationPolicy) -> Self {
        Self { policy, code: Vec::new() }
    }

    pub(super) fn begin_tls(&mut self) {
        self.policy.clear_text = true;
    }

    /// Reads a part of the message. Returns whether the code is read and accepted.
    pub(super) fn read(&mut self, part: &[u8]) -> Result<bool, LimitExceeded> {
        self.code.extend(part.iter().take(CODE_BYTES - self.code.len()));
        let Ok(code) = <[u8; CODE_BYTES]>::try_from(&*self.code) else { return Ok(false) };
        let method = match u32::from_be_bytes(code) {
            0 => Method::None,
            3 => Method::Password,
            5 => Method::Md5,
            7 => Method::Gss,
            9 => Method::Sspi,
            // SASL: of its mechanisms, only this one is supported.
            10 => Method::ScramSha256,
            // tokio-postgres rejects others.
            _ => return Ok(true),
        };
        if self.policy.methods.is_some_and(|methods| !methods.contain(method)) {
            return Err(LimitExceeded::AuthenticationMethod { method: method.as_str() });
        }
        if method == Method::Password && !self.policy.clear_text {
            return Err(LimitExceeded::ClearTextPassword);
        }
        Ok(true)
    }
}
