//! Certificates of an exporter and its clients, of one authority.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Writes `ca.crt`, and the certificate and the key of an exporter on `localhost` and of its clients.
pub(crate) fn certificates(directory: &Path, clients: &[&str]) {
    let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let key = KeyPair::generate().expect("a certificate");
    fs::write(directory.join("ca.crt"), params.self_signed(&key).expect("a certificate").pem()).expect("a file");
    let issuer = Issuer::new(params, key);
    let clients = clients.iter().map(|name| (*name, ExtendedKeyUsagePurpose::ClientAuth));
    for (name, usage) in clients.chain([("localhost", ExtendedKeyUsagePurpose::ServerAuth)]) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a certificate");
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a certificate");
        fs::write(directory.join(format!("{name}.crt")), params.signed_by(&key, &issuer).expect("a certificate").pem())
            .expect("a file");
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
    }
}
