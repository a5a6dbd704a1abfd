//! The image, as far as it can be held to anything without a container engine; and every tag.

use std::fs;

use crate::tools::{at, checker, content, document, everywhere, files, schema, text, yaml};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";

#[test]
fn hadolint_takes_the_dockerfile() {
    content(checker("hadolint").arg(at(DOCKERFILE)));
}

/// Whether a tag says which image it is, today and tomorrow: a whole version, or a digest.
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
fn every_image_is_pinned() {
    let mut images: Vec<String> = Vec::new();
    for line in text(DOCKERFILE).lines() {
        images.extend(line.strip_prefix("FROM ").and_then(|rest| rest.split(' ').next()).map(str::to_owned));
    }
    let manifests = files("deploy").into_iter().filter(|file| file.ends_with(".yaml"));
    for manifest in yaml(manifests.map(|file| at(&file))) {
        let mut found = Vec::new();
        everywhere("image", &manifest, &mut found);
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
fn the_build_has_what_the_binary_is_made_of_and_nothing_else() {
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
    assert_eq!(sent, wanted, "what is sent to the builder, and what it copies");

    // What the sources name of the repository's other files.
    let sources = ["src", "crates/cli/src", "crates/testing/src"].into_iter().flat_map(files);
    for source in sources.filter(|file| file.ends_with(".rs")).collect::<Vec<_>>().iter() {
        for part in text(source).split("include_str!(").skip(1) {
            let Some(named) =
                part.trim_start_matches("concat!(").strip_prefix('"').and_then(|part| part.split('"').next())
            else {
                continue;
            };
            let directory = at(source).parent().unwrap().to_owned();
            // A name that goes on after this piece is that of a file in the directory.
            let path =
                fs::canonicalize(directory.join(named)).unwrap_or_else(|error| panic!("{source}, {named}: {error}"));
            let inside = path.strip_prefix(at("").canonicalize().unwrap()).unwrap().to_owned();
            let found = copied.iter().any(|copied| inside.starts_with(copied));
            assert!(found, "{source} has {} in it, which {DOCKERFILE} does not copy", inside.display());
        }
    }
}

#[test]
fn nobody_is_root_and_health_is_asked_by_the_binary() {
    let dockerfile = text(DOCKERFILE);
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let numbers: Vec<u32> = user.split(':').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|number| *number > 0), "{user}");
    assert!(last.contains("HEALTHCHECK ") && last.contains("CMD [\"/usr/local/bin/poolscope\", \"healthy\"]"));
    assert!(last.contains("\nENTRYPOINT [\"/usr/local/bin/poolscope\"]\n"));
}

#[test]
fn the_compiler_of_the_image_is_one_that_is_supported() {
    let version = |text: &str| text.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let dockerfile = text(DOCKERFILE);
    let tag = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    assert!(version(tag.split('-').next().unwrap()) >= version(env!("CARGO_PKG_RUST_VERSION")));
}

#[test]
fn what_keeps_the_tags_current_knows_where_they_are() {
    schema("vendor.dependabot", ".github/dependabot.yml");
    let config = document(".github/dependabot.yml");
    let updates = config["updates"].as_array().unwrap();
    let all: Vec<_> = updates.iter().map(|update| update["package-ecosystem"].as_str().unwrap()).collect();
    for ecosystem in ["cargo", "docker", "docker-compose", "github-actions", "pip"] {
        assert!(all.contains(&ecosystem), "{ecosystem}");
    }
}
