//! Renders the live page, whose content its script adds, and the pages of links, in the style of Prometheus' own exporters.

use std::borrow::Cow;
use std::fmt;

/// A link on the page.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) address: Cow<'static, str>,
    pub(super) text: Cow<'static, str>,
    /// Omitted if empty.
    pub(super) description: Cow<'static, str>,
}

/// The readiness of the process, as the page and `/-/ready` show it.
#[derive(Debug)]
pub(super) enum State {
    Ready,
    NotReady(Cow<'static, str>),
}

/// What the script of the live page fills; the page shows it once the script runs.
const LIVE: &str = include_str!("assets/live.html");

/// Renders the live page. Without the script it shows the state and the links. `exhausted` describes the pools without a
/// free connection, which `/-/ready` does not consider.
pub(super) fn landing(state: &State, exhausted: &[String], links: &[Link]) -> String {
    let (class, sentence) = match state {
        State::Ready if !exhausted.is_empty() => {
            ("bad", Cow::Owned(format!("Ready, but checkouts wait: {}", exhausted.join("; "))))
        }
        State::Ready => ("good", Cow::Borrowed("Ready")),
        State::NotReady(reason) => ("bad", Cow::Owned(format!("Not ready: {reason}"))),
    };
    let about = concat!(env!("CARGO_PKG_DESCRIPTION"), ".");
    let state = format!("<p class=\"state {class}\">{}</p>\n", Escaped(&sentence));
    let script = "<script type=\"module\" src=\"assets/main.js\"></script>\n";
    page(&Page { title: "poolscope", path: "", script, live: LIVE, class: "short", about, state: &state, links })
}

/// Renders a page of links only, one folder below the root.
pub(super) fn index(title: &str, about: &str, links: &[Link]) -> String {
    let title = format!("poolscope: {title}");
    page(&Page { title: &title, path: "../", script: "", live: "", class: "long", about, state: "", links })
}

/// What a page consists of. `script`, `live` and `state` are HTML.
struct Page<'a> {
    title: &'a str,
    /// The path to the root.
    path: &'a str,
    script: &'a str,
    live: &'a str,
    /// `short` or `long`, for the length of the links' texts.
    class: &'a str,
    about: &'a str,
    state: &'a str,
    links: &'a [Link],
}

fn page(page: &Page<'_>) -> String {
    let Page { title, path, script, live, class, about, state, links } = page;
    let links: String = links.iter().map(item).collect();
    format!(
        r#"<!doctype html>
<html lang="en" data-version="{version}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{path}assets/page.css">
{script}</head>
<body>
<header><div><h1>{title}</h1><span id="status" role="status"></span><span class="version">version {version}</span></div></header>
<main id="main">
{live}<div class="links" id="links">
<p class="about">{about}</p>
{state}<ul class="{class}">
{links}</ul>
</div>
</main>
</body>
</html>
"#,
        title = Escaped(title),
        version = Escaped(env!("CARGO_PKG_VERSION")),
        about = Escaped(about),
    )
}

fn item(link: &Link) -> String {
    let address = Escaped(&link.address);
    let text = Escaped(&link.text);
    let description = Escaped(&link.description);
    format!("<li><a href=\"{address}\">{text}</a><span>{description}</span></li>\n")
}

/// Text that is escaped for content and quoted attributes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let hostile = r#""><script>alert('&')</script>"#;
        let page = landing(
            &State::NotReady(hostile.into()),
            &[],
            &[Link { address: hostile.into(), text: hostile.into(), description: hostile.into() }],
        );
        let escaped = "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;";
        assert_eq!(page.matches(escaped).count(), 4);
        assert_eq!(page.matches("<script").count(), 1, "the page's own");
    }

    #[test]
    fn exhausted_pools_are_named() {
        let page = |exhausted: &[String]| landing(&State::Ready, exhausted, &[]);
        assert!(page(&[]).contains("<p class=\"state good\">Ready</p>"));
        let page = page(&["pool `a<b`: 1 of 1".to_owned(), "pool `c`: 2 of 2".to_owned()]);
        let expected = "<p class=\"state bad\">Ready, but checkouts wait: pool `a&lt;b`: 1 of 1; pool `c`: 2 of 2</p>";
        assert!(page.contains(expected), "{page}");
    }
}
