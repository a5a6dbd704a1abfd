//! The files that the pages load: script modules and a style sheet, embedded in the binary.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Each file, with its type. `tsc` checks the scripts: see `crates/cli/tests/page/package.json`.
const FILES: &[(&str, &str, &str)] = &[
    ("page.css", STYLE, include_str!("assets/page.css")),
    ("main.js", SCRIPT, include_str!("assets/main.js")),
    ("chart.js", SCRIPT, include_str!("assets/chart.js")),
    ("charts.js", SCRIPT, include_str!("assets/charts.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("format.js", SCRIPT, include_str!("assets/format.js")),
    ("lists.js", SCRIPT, include_str!("assets/lists.js")),
    ("model.js", SCRIPT, include_str!("assets/model.js")),
    ("pools.js", SCRIPT, include_str!("assets/pools.js")),
    ("replay.js", SCRIPT, include_str!("assets/replay.js")),
    ("source.js", SCRIPT, include_str!("assets/source.js")),
    ("verdict.js", SCRIPT, include_str!("assets/verdict.js")),
];

/// A file that the pages load.
#[derive(Debug)]
pub(super) struct Asset {
    name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
    /// The text, compressed with gzip.
    pub(super) compressed: Bytes,
}

/// Compressed when the first one is requested.
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |(name, content_type, text): &(&'static str, &'static str, &'static str)| Asset {
        name,
        content_type,
        text,
        compressed: compress(text),
    };
    FILES.iter().map(asset).collect()
});

/// Returns the file with this name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

fn compress(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory succeeds.
    let _ = encoder.write_all(text.as_bytes());
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::runbooks;
    use crate::labels::Cause;

    #[test]
    fn all_files_together_are_under_60_kilobytes() {
        let total: usize = ASSETS.iter().map(|asset| asset.compressed.len()).sum();
        assert!(total < 60_000, "{total}");
    }

    /// Every module that a script imports, and nothing from elsewhere.
    #[test]
    fn scripts_import_files_that_are_served() {
        for (name, _, text) in FILES.iter().filter(|(_, content_type, _)| *content_type == SCRIPT) {
            for line in text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from ")) {
                let module = line.rsplit('"').nth(1).unwrap_or_default();
                let imported = module.strip_prefix("./").unwrap_or_default();
                assert!(find(imported).is_some(), "{name} imports {module}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("insertAdjacentHTML"), "{name}");
            assert!(
                !text.contains("http://") && !text.replace("https://github.com", "").contains("https://"),
                "{name}"
            );
        }
    }

    #[test]
    fn every_cause_has_a_runbook() {
        let script = find("verdict.js").map_or("", |asset| asset.text);
        let map =
            script.split_once("RUNBOOKS = {\n").and_then(|(_, rest)| rest.split_once("};")).map_or("", |(map, _)| map);
        let entry = |line: &'static str| line.trim().strip_suffix("\",")?.split_once(": \"");
        let linked: Vec<_> = map.lines().map(|line| entry(line).unwrap_or((line, ""))).collect();
        let problems = Cause::ALL.iter().filter(|cause| !matches!(cause, Cause::Healthy | Cause::NotEnoughData));
        let causes: Vec<_> = problems.map(|cause| cause.as_str()).collect();
        assert_eq!(linked.iter().map(|(cause, _)| *cause).collect::<Vec<_>>(), causes);
        for (cause, runbook) in linked {
            let name: String = cause.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            assert_eq!(runbook, format!("PoolscopeDiagnosed{name}"));
            assert!(runbooks::find(runbook).is_some(), "{runbook}");
        }
    }
}
