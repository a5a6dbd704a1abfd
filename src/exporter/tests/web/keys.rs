use std::error::Error as _;

use super::*;

/// What is said of a file, after its name and a comma.
fn said(site: &Site, web_yml: &str) -> String {
    site.web_yml(web_yml);
    let Err(error) = site.read() else { panic!("{web_yml} is taken") };
    let text = error.to_string();
    if let Some(source) = error.source() {
        assert!(!text.contains(&source.to_string()), "{text} says what its source says");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
    let own = format!("{}, ", site.path("web.yml").display());
    text.strip_prefix(&own).unwrap_or_else(|| panic!("{text} does not begin with {own}")).to_owned()
}

#[test]
fn a_key_that_stands_where_a_path_belongs_is_not_shown() {
    let site = Site::new();
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    for text in [
        format!("tls_server_config:\n  cert_file: server.crt\n  key_file: |\n{lines}"),
        format!("tls_server_config:\n  cert_file: server.crt\n  key_file: '{}'\n", pem.lines().collect::<String>()),
    ] {
        let said = said(&site, &text);
        assert_eq!(
            said,
            "line 3: key_file takes a path, and here is PEM itself: give it under key".replace("line 3", &said[..6])
        );
        assert!(!format!("{:?}", site.read().unwrap_err()).contains("PRIVATE"));
    }
    assert_eq!(said(&site, "hunter2: alice\n").split(';').next(), Some("line 1: the file has no such key"));
}

#[test]
fn what_cannot_be_had_is_refused_in_a_line_that_says_where_and_what_would_do() {
    let site = Site::new();
    for (more, line, part) in [
        (
            "client_auth_type: RequestClientCert",
            4,
            "would take any certificate without verifying it, which keeps nobody out; give RequireAndVerifyClientCert",
        ),
        ("client_auth_type: RequireAnyClientCert", 4, "would take any certificate without verifying it"),
        ("client_auth_type: Always", 4, "is NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"),
        ("client_auth_type: RequireAndVerifyClientCert", 4, "wants client_ca_file"),
        ("client_ca_file: ca.crt", 4, "give RequireAndVerifyClientCert"),
        ("client_allowed_sans: [shop]", 4, "needs client_auth_type: RequireAndVerifyClientCert"),
        ("client_allowed_sans: shop", 4, "client_allowed_sans wants a list, and here is a single value"),
        ("min_version: TLS10", 4, "min_version: TLS10 is broken and not spoken; give TLS12 or TLS13"),
        ("min_version: TLS11", 4, "min_version: TLS11 is broken and not spoken"),
        ("max_version: TLS11", 4, "max_version: TLS11 is broken and not spoken"),
        ("max_version: 1.3", 4, "max_version is TLS12 or TLS13"),
        ("min_version: TLS13\n  max_version: TLS12", 5, "max_version is below min_version"),
        ("cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 5, "not offered; there is TLS_AES_256_GCM_SHA384, "),
        ("max_version: TLS12\n  cipher_suites: [TLS_AES_256_GCM_SHA384]", 2, "leaves no cipher suite for the versions"),
        ("curve_preferences: [X25519, CurveP521]", 4, "not offered; there is X25519, CurveP256, CurveP384"),
        ("prefer_server_cipher_suites: yes", 4, "prefer_server_cipher_suites is true or false"),
        ("cert: x", 2, "give either cert or cert_file, not both"),
        ("ciper_suites: []", 4, "tls_server_config has no key `ciper_suites`: did you mean `cipher_suites`?"),
        ("cert_file: other.crt", 4, "this key stands in line 2 already"),
    ] {
        let said = said(&site, &format!("{TLS}  {more}\n"));
        assert!(said.starts_with(&format!("line {line}: ")) && said.contains(part), "{more}: {said}");
    }
    for (web_yml, part) in [
        ("tls_server_confg:\n", "line 1: the file has no key `tls_server_confg`: did you mean `tls_server_config`?"),
        (
            "\nmetrics: {}\n",
            "line 2: the file has no such key; there is tls_server_config, http_server_config, basic_auth_users",
        ),
        ("rate_limit: {interval: 1s, burst: 2}\n", "line 1: rate_limit cannot be had"),
        ("tls_server_config: on\n", "line 1: tls_server_config wants keys with values, and here is a single value"),
        ("- a\n", "line 1: the file wants keys with values, and here is a list"),
        (
            "http_server_config: {http2: true}\n",
            "line 1: http2: true cannot be had, as the exporter speaks HTTP/1.1 only; leave it out, or give false",
        ),
        (
            "http_server_config:\n  headers:\n    Cache-Control: no\n",
            "line 3: headers has no such key; there is Content-Security-Policy, ",
        ),
        (
            "http_server_config:\n  headers:\n    x-frame-options: deny\n",
            "line 3: headers has no key `x-frame-options`: did you mean `X-Frame-Options`?",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n",
            "line 3: X-Frame-Options is deny or sameorigin",
        ),
        (
            "http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n",
            "line 3: X-Content-Type-Options is nosniff",
        ),
        (
            "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n",
            "line 3: X-XSS-Protection has a character in it that no header may have",
        ),
        ("tls_server_config:\n  key_file: server.key\n", "line 2: tls_server_config has neither cert nor cert_file"),
        ("tls_server_config:\n  cert_file: server.crt\n", "line 2: tls_server_config has neither key nor key_file"),
        ("tls_server_config:\n  min_version: TLS13\n", "line 2: tls_server_config has neither cert nor cert_file"),
        (
            "tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n",
            "server.key` holds no certificate in PEM",
        ),
        (
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.crt\n",
            "server.crt` holds no private key in PEM without a passphrase",
        ),
        ("a: [\n", "this is not YAML"),
    ] {
        let said = said(&site, web_yml);
        assert!(said.contains(part), "{web_yml}: {said}");
    }
}

#[test]
fn a_hash_that_is_none_is_refused_and_not_repeated() {
    let site = Site::new();
    let own = bcrypt::hash("hunter2", 4).unwrap();
    let costly = own.replace("$04$", "$17$");
    for (users, part) in [
        ("alice: hunter2".to_owned(), "line 2: this is no hash of bcrypt's, as `htpasswd -nBC 10 \"\"` makes it"),
        (format!("alice: {}", &own[..59]), "line 2: this is no hash"),
        (format!("alice: {}!", &own[..59]), "line 2: this is no hash"),
        (format!("alice: {}", own.replace("$2b$", "$6$aa")), "line 2: this is no hash"),
        (
            format!("alice: {costly}"),
            "line 2: a hash's cost is from 4 to 16; a higher one takes longer than a scrape may",
        ),
        (format!("'{own}': alice"), "line 2: this is no hash"),
        ("'hunter2:': alice".to_owned(), "line 2: no user can have a name that is empty or has a colon in it"),
        (format!("'': {own}"), "line 2: no user can have a name that is empty"),
        ("alice:".to_owned(), "line 2: a user wants a hash, and here is nothing"),
        (format!("alice: [{own}]"), "line 2: a user wants a hash, and here is a list"),
        (format!("alice: {own}\n  alice: {own}"), "line 3: this key stands in line 2 already"),
    ] {
        let said = said(&site, &format!("basic_auth_users:\n  {users}\n"));
        assert!(said.starts_with(part), "{users}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(&own[..10]), "{said}");
    }
    assert!(said(&site, "basic_auth_users: hunter2\n").starts_with("line 1: basic_auth_users wants keys with values"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let site = Site::new();
    let error = site.read().expect_err("no file");
    assert_eq!(error.to_string(), format!("{} cannot be read", site.path("web.yml").display()));
    assert!(error.source().unwrap().to_string().contains("No such file"));
    for (more, key) in [
        ("cert_file: none\n  key_file: server.key", "cert_file"),
        ("cert_file: server.crt\n  key_file: none", "key_file"),
    ] {
        let said = said(&site, &format!("tls_server_config:\n  {more}\n"));
        assert!(said.contains(&format!(": {key} `{}` cannot be read", site.path("none").display())), "{said}");
    }
    site.web_yml(&"#".repeat((1 << 20) + 1));
    let error = site.read().expect_err("too large");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("it is larger than 1 MiB"));
    site.web_yml(&"#".repeat(1 << 20));
    site.read().expect("just not too large");
    fs::write(site.path("latin"), b"# fine\na: \xff\n").unwrap();
    let error = WebConfig::read(site.path("latin")).expect_err("not UTF-8");
    assert!(error.to_string().ends_with("latin, line 2: this is not UTF-8"), "{error}");
    let error = WebConfig::read(site.directory.path()).expect_err("a directory");
    assert_eq!(error.source().unwrap().to_string(), "it is not a regular file");
}

#[test]
fn names_are_relative_to_the_file_and_certificates_may_stand_in_it() {
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
fn the_documentation_has_every_key_and_an_example_that_is_one() {
    let page = include_str!("../../../../docs/web-config.md");
    for key in crate::exporter::web_config::tests::keys() {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
    let site = Site::new();
    site.write("clients.crt", &site.authority.pem);
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    site.web_yml(example);
    assert!(site.read().unwrap().is_tls());
}

#[test]
fn no_secret_is_shown() {
    let site = Site::new();
    let key = site.authority.sign(&["localhost"]).key.serialize_pem();
    let key_line = key.lines().nth(1).unwrap();
    let indented: String = key.lines().map(|line| format!("    {line}\n")).collect();
    site.web_yml(&format!("{TLS}basic_auth_users:\n  alice: {}\n", *SESAME));
    let exporter = site.exporter();
    let shown = [format!("{:?}", site.read().unwrap()), format!("{exporter:?}")];
    for text in shown.iter().chain([
        // A key that does not belong to its certificate, and half of one.
        &said(&site, &format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{indented}")),
        &said(&site, &format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{}", &indented[..100])),
    ]) {
        for secret in [&**SESAME, "sesame", key_line, "PRIVATE"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert!(shown[0].contains("count: 1"), "{}", shown[0]);
}
