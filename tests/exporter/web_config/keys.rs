//! The keys of the web configuration, and the errors about them.

use std::error::Error as _;
use std::fs;

use poolscope::exporter::WebConfig;
use rcgen::KeyPair;

use super::{SESAME, Site, TLS};

/// Returns the error about a file, without the file's name.
fn problem(site: &Site, web_yml: &str) -> String {
    site.web_yml(web_yml);
    let Err(error) = site.read() else { panic!("{web_yml} is accepted") };
    let text = error.to_string();
    assert!(error.source().is_none(), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let own = format!("{}, ", site.path("web.yml").display());
    text.strip_prefix(&own).unwrap_or_else(|| panic!("{text} does not begin with {own}")).to_owned()
}

#[test]
fn key_in_place_of_a_path_is_not_shown() {
    let site = Site::new();
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    for text in [
        format!("tls_server_config:\n  cert_file: server.crt\n  key_file: |\n{lines}"),
        format!("tls_server_config:\n  cert_file: server.crt\n  key_file: '{}'\n", pem.lines().collect::<String>()),
    ] {
        let problem = problem(&site, &text);
        let (line, rest) = problem.split_once(": ").unwrap();
        assert!(line.starts_with("line "), "{problem}");
        assert_eq!(rest, "key_file must be a path, not PEM data; use key for PEM data");
        assert!(!format!("{:?}", site.read().unwrap_err()).contains("PRIVATE"));
    }
    assert_eq!(problem(&site, "hunter2: alice\n").split(';').next(), Some("line 1: unknown key in the file"));
}

#[test]
fn invalid_values_are_errors_with_line_and_advice() {
    let site = Site::new();
    for (more, line, part) in [
        (
            "client_auth_type: RequestClientCert",
            4,
            "accepts any certificate without verifying it; use RequireAndVerifyClientCert",
        ),
        ("client_auth_type: RequireAnyClientCert", 4, "accepts any certificate without verifying it"),
        ("client_auth_type: Always", 4, "must be NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"),
        ("client_auth_type: RequireAndVerifyClientCert", 4, "client_auth_type requires client_ca_file"),
        ("client_ca_file: ca.crt", 4, "set client_auth_type: RequireAndVerifyClientCert"),
        ("client_allowed_sans: [shop]", 4, "requires client_auth_type: RequireAndVerifyClientCert"),
        ("client_allowed_sans: shop", 4, "client_allowed_sans must be a list, not a single value"),
        ("min_version: TLS10", 4, "min_version: TLS10 is insecure and not supported; use TLS12 or TLS13"),
        ("min_version: TLS11", 4, "min_version: TLS11 is insecure and not supported"),
        ("max_version: TLS11", 4, "max_version: TLS11 is insecure and not supported"),
        ("max_version: 1.3", 4, "max_version must be TLS12 or TLS13"),
        ("min_version: TLS13\n  max_version: TLS12", 5, "max_version is below min_version"),
        (
            "cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            5,
            "unsupported suite; supported: TLS_AES_256_GCM_SHA384, ",
        ),
        (
            "max_version: TLS12\n  cipher_suites: [TLS_AES_256_GCM_SHA384]",
            2,
            "leaves no cipher suite for the allowed TLS versions",
        ),
        ("curve_preferences: [X25519, CurveP521]", 4, "unsupported curve; supported: X25519, CurveP256, CurveP384"),
        ("prefer_server_cipher_suites: yes", 4, "prefer_server_cipher_suites must be true or false"),
        ("cert: x", 2, "give either cert or cert_file, not both"),
        ("ciper_suites: []", 4, "unknown key `ciper_suites` in tls_server_config; did you mean `cipher_suites`?"),
        ("cert_file: other.crt", 4, "duplicate key; first used in line 2"),
    ] {
        let problem = problem(&site, &format!("{TLS}  {more}\n"));
        assert!(problem.starts_with(&format!("line {line}: ")) && problem.contains(part), "{more}: {problem}");
    }
    for (web_yml, part) in [
        (
            "tls_server_confg:\n",
            "line 1: unknown key `tls_server_confg` in the file; did you mean `tls_server_config`?",
        ),
        (
            "\nmetrics: {}\n",
            "line 2: unknown key in the file; known keys: tls_server_config, http_server_config, basic_auth_users",
        ),
        ("rate_limit: {interval: 1s, burst: 2}\n", "line 1: rate_limit is not supported"),
        ("tls_server_config: on\n", "line 1: tls_server_config must be a mapping, not a single value"),
        ("- a\n", "line 1: the file must be a mapping, not a list"),
        (
            "http_server_config: {http2: true}\n",
            "line 1: http2: true is not supported, because the exporter speaks HTTP/1.1 only; remove it, or set it to false",
        ),
        (
            "http_server_config:\n  headers:\n    Cache-Control: no\n",
            "line 3: unknown key in headers; known keys: Content-Security-Policy, ",
        ),
        (
            "http_server_config:\n  headers:\n    x-frame-options: deny\n",
            "line 3: unknown key `x-frame-options` in headers; did you mean `X-Frame-Options`?",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n",
            "line 3: X-Frame-Options must be deny or sameorigin",
        ),
        (
            "http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n",
            "line 3: X-Content-Type-Options must be nosniff",
        ),
        (
            "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n",
            "line 3: X-XSS-Protection contains a character that is invalid in a header",
        ),
        ("tls_server_config:\n  key_file: server.key\n", "line 2: tls_server_config has neither cert nor cert_file"),
        ("tls_server_config:\n  cert_file: server.crt\n", "line 2: tls_server_config has neither key nor key_file"),
        ("tls_server_config:\n  min_version: TLS13\n", "line 2: tls_server_config has neither cert nor cert_file"),
        (
            "tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n",
            "server.key` contains no certificate in PEM format",
        ),
        (
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.crt\n",
            "server.crt` contains no unencrypted private key in PEM format",
        ),
        ("a: [\n", "invalid YAML"),
    ] {
        let problem = problem(&site, web_yml);
        assert!(problem.contains(part), "{web_yml}: {problem}");
    }
}

#[test]
fn invalid_hash_is_an_error_without_the_hash() {
    let site = Site::new();
    let own = bcrypt::hash("hunter2", 4).unwrap();
    let costly = own.replace("$04$", "$17$");
    for (users, part) in [
        ("alice: hunter2".to_owned(), "line 2: invalid bcrypt hash; create one with `htpasswd -nBC 10 \"\"`"),
        (format!("alice: {}", &own[..59]), "line 2: invalid bcrypt hash"),
        (format!("alice: {}!", &own[..59]), "line 2: invalid bcrypt hash"),
        (format!("alice: {}", own.replace("$2b$", "$6$aa")), "line 2: invalid bcrypt hash"),
        (
            format!("alice: {costly}"),
            "line 2: the cost of a hash must be from 4 to 16; verifying with a higher one takes longer than a scrape may",
        ),
        (format!("'{own}': alice"), "line 2: invalid bcrypt hash"),
        ("'hunter2:': alice".to_owned(), "line 2: a user name must not be empty or contain a colon"),
        (format!("'': {own}"), "line 2: a user name must not be empty"),
        ("alice:".to_owned(), "line 2: the value of a user must be a bcrypt hash, not empty"),
        (format!("alice: [{own}]"), "line 2: the value of a user must be a bcrypt hash, not a list"),
        (format!("alice: {own}\n  alice: {own}"), "line 3: duplicate key; first used in line 2"),
    ] {
        let problem = problem(&site, &format!("basic_auth_users:\n  {users}\n"));
        assert!(problem.starts_with(part), "{users}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains(&own[..10]), "{problem}");
    }
    assert!(problem(&site, "basic_auth_users: hunter2\n").starts_with("line 1: basic_auth_users must be a mapping"));
}

#[test]
fn unreadable_files_are_named() {
    let site = Site::new();
    let error = site.read().expect_err("no file");
    let expected = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), format!("{} {expected}", site.path("web.yml").display()));
    for (more, key) in [
        ("cert_file: none\n  key_file: server.key", "cert_file"),
        ("cert_file: server.crt\n  key_file: none", "key_file"),
    ] {
        let problem = problem(&site, &format!("tls_server_config:\n  {more}\n"));
        assert!(problem.contains(&format!(": {key} `{}` {expected}", site.path("none").display())), "{problem}");
    }
    site.web_yml(&"#".repeat((1 << 20) + 1));
    let error = site.read().expect_err("too large");
    assert!(error.to_string().ends_with(" cannot be read: larger than 1 MiB"), "{error}");
    site.web_yml(&"#".repeat(1 << 20));
    site.read().expect("just not too large");
    fs::write(site.path("latin"), b"# fine\na: \xff\n").unwrap();
    let error = WebConfig::read(site.path("latin")).expect_err("not UTF-8");
    assert!(error.to_string().ends_with("latin, line 2: invalid UTF-8"), "{error}");
    let error = WebConfig::read(site.directory.path()).expect_err("a directory");
    assert!(error.to_string().ends_with(" cannot be read: neither a regular file nor a FIFO"), "{error}");
}

#[test]
fn paths_are_relative_and_pem_can_be_inline() {
    let site = Site::new();
    fs::create_dir(site.path("tls")).unwrap();
    for name in ["server.crt", "server.key"] {
        fs::rename(site.path(name), site.path("tls").join(name)).unwrap();
    }
    let absolute = site.path("tls").join("server.key").display().to_string();
    site.web_yml(&format!("tls_server_config:\n  cert_file: tls/server.crt\n  key_file: {absolute}\n"));
    assert!(site.read().unwrap().is_tls());

    let signed = site.authority.sign(&["localhost"]);
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let (cert, key) = (indented(&signed.pem), indented(&signed.key.serialize_pem()));
    let authority = indented(&site.authority.pem);
    let inline = format!("  client_auth_type: RequireAndVerifyClientCert\n  client_ca: |\n{authority}");
    site.web_yml(&format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}{inline}"));
    assert!(site.read().unwrap().is_tls());
}

#[test]
fn documented_example_is_valid() {
    let page = include_str!("../../../docs/web-config.md");
    let site = Site::new();
    site.write("clients.crt", &site.authority.pem);
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    site.web_yml(example);
    assert!(site.read().unwrap().is_tls());
}

#[test]
fn secrets_are_not_shown() {
    let site = Site::new();
    let key = site.authority.sign(&["localhost"]).key.serialize_pem();
    let key_line = key.lines().nth(1).unwrap();
    let indented: String = key.lines().map(|line| format!("    {line}\n")).collect();
    site.web_yml(&format!("{TLS}basic_auth_users:\n  alice: {}\n", *SESAME));
    let exporter = site.exporter();
    let shown = [format!("{:?}", site.read().unwrap()), format!("{exporter:?}")];
    for text in shown.iter().chain([
        // A key that does not belong to its certificate, and half of one.
        &problem(&site, &format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{indented}")),
        &problem(&site, &format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{}", &indented[..100])),
    ]) {
        for secret in [&**SESAME, "sesame", key_line, "PRIVATE"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert!(shown[0].contains("count: 1"), "{}", shown[0]);
}
