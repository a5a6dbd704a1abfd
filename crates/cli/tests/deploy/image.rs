//! The Dockerfile, checked without a container engine, and the tags of all images.

use std::fs;

use crate::tools::{at, check_schema, checker, collect_values, document, files, run_successfully, text, yaml};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";

#[test]
fn hadolint_accepts_dockerfile() {
    run_successfully(checker("hadolint").arg(at(DOCKERFILE)));
}

/// Returns whether an image has a full version or a digest.
fn is_pinned(image: &str) -> bool {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let Some((_, tag)) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else { return false };
    let version = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
    let numbers: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
    // PostgreSQL's versions have two numbers.
    let enough = if image.starts_with("postgres:") { 2 } else { 3 };
    numbers.len() == enough && numbers.iter().all(Result::is_ok)
}

#[test]
fn images_are_pinned() {
    let mut images: Vec<String> = Vec::new();
    for line in text(DOCKERFILE).lines() {
        images.extend(line.strip_prefix("FROM ").and_then(|rest| rest.split(' ').next()).map(str::to_owned));
    }
    let manifests = files("deploy").into_iter().filter(|file| file.ends_with(".yaml"));
    for manifest in yaml(manifests.map(|file| at(&file))) {
        let mut found = Vec::new();
        collect_values("image", &manifest, &mut found);
        images.extend(found.into_iter().filter_map(|image| image.as_str().map(str::to_owned)));
    }
    assert!(images.len() > 8, "{images:?}");
    for image in &images {
        assert!(is_pinned(image), "{image}");
        if let Some(version) = image.strip_prefix("poolscope:") {
            assert_eq!(version, env!("CARGO_PKG_VERSION"));
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(text(DOCKERFILE).contains(&format!("org.opencontainers.image.version=\"{version}\"")));
    for loose in ["postgres", "postgres:17", "prom/prometheus:latest", "prom/prometheus:v3", "a/b:1.2", "host:80/a"] {
        assert!(!is_pinned(loose), "{loose}");
    }
}

#[test]
fn build_context_is_what_dockerfile_copies() {
    let dockerfile = text(DOCKERFILE);
    let copied: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY ").filter(|rest| !rest.starts_with("--from")))
        .flat_map(|rest| rest.split(' ').rev().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let ignore = text(".dockerignore");
    let mut sent: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    sent.sort_unstable();
    let mut wanted = copied.clone();
    wanted.sort();
    assert_eq!(sent, wanted, ".dockerignore and the COPY lines differ");

    // The other files of the repository that the sources include.
    let sources = ["src", "crates/cli/src", "crates/testing/src"].into_iter().flat_map(files);
    for source in sources.filter(|file| file.ends_with(".rs")).collect::<Vec<_>>().iter() {
        for part in text(source).split("include_str!(").skip(1) {
            let Some(named) =
                part.trim_start_matches("concat!(").strip_prefix('"').and_then(|part| part.split('"').next())
            else {
                continue;
            };
            let directory = at(source).parent().unwrap().to_owned();
            // If more parts of the name follow, this one is the directory.
            let path =
                fs::canonicalize(directory.join(named)).unwrap_or_else(|error| panic!("{source}, {named}: {error}"));
            let inside = path.strip_prefix(at("").canonicalize().unwrap()).unwrap().to_owned();
            let found = copied.iter().any(|copied| inside.starts_with(copied));
            assert!(found, "{source} includes {}, which {DOCKERFILE} does not copy", inside.display());
        }
    }
}

#[test]
fn image_is_unprivileged_with_health_check() {
    let dockerfile = text(DOCKERFILE);
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let numbers: Vec<u32> = user.split(':').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|number| *number > 0), "{user}");
    assert!(last.contains("HEALTHCHECK ") && last.contains("CMD [\"/usr/local/bin/poolscope\", \"healthy\"]"));
    assert!(last.contains("\nENTRYPOINT [\"/usr/local/bin/poolscope\"]\n"));
}

#[test]
fn image_compiler_is_supported() {
    let version = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let dockerfile = text(DOCKERFILE);
    let tag = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    assert!(version(tag.split('-').next().unwrap()) >= version(env!("CARGO_PKG_RUST_VERSION")));
}

#[test]
fn dependabot_covers_all_ecosystems() {
    check_schema("vendor.dependabot", ".github/dependabot.yml");
    let config = document(".github/dependabot.yml");
    let updates = config["updates"].as_array().unwrap();
    let all: Vec<_> = updates.iter().map(|update| update["package-ecosystem"].as_str().unwrap()).collect();
    for ecosystem in ["cargo", "docker", "docker-compose", "github-actions", "pip"] {
        assert!(all.contains(&ecosystem), "{ecosystem}");
    }
}
