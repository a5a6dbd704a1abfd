//! Renders the landing page, in the style of Prometheus' own exporters.

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

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5a6675; --line: #dde3ea; --paper: #fff;
  --head: #1f4e79; --link: #1a5fa8; --good: #1a7f4b; --bad: #b3470b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #9aa7b5; --line: #2c3642;
  --paper: #12171d; --head: #17344f; --link: #7ab8f5; --good: #5fd39a; --bad: #ffa566; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif; }
header { background: var(--head); color: #fff; }
header > div, main { max-width: 44rem; margin: 0 auto; padding: 1rem 1.5rem; }
header > div { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; }
h1 { margin: 0; font-size: 1.25rem; font-weight: 600; }
.version { font-size: .875rem; opacity: .85; }
p { margin: .75rem 0; text-wrap: balance; }
.about { color: var(--soft); }
.state { font-weight: 600; overflow-wrap: anywhere; }
.good { color: var(--good); }
.bad { color: var(--bad); }
ul { list-style: none; margin: 1rem 0 0; padding: 0; border-top: 1px solid var(--line); }
li { padding: .625rem 0; border-bottom: 1px solid var(--line); display: grid;
  grid-template-columns: 8rem 1fr; gap: 0 1rem; overflow-wrap: anywhere; }
li span { color: var(--soft); }
a { color: var(--link); text-underline-offset: .15em; }
.long li { grid-template-columns: 1fr; }
@media (max-width: 30rem) { li { grid-template-columns: 1fr; } }
";

/// Renders the landing page. `exhausted` describes the pools without a free connection, which `/-/ready` does not consider.
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
    page("poolscope", "short", about, &state, links)
}

/// Renders a page of links only.
pub(super) fn index(title: &str, about: &str, links: &[Link]) -> String {
    page(&format!("poolscope: {title}"), "long", about, "", links)
}

/// Renders a page. `class` is `short` or `long`, for the length of the links' texts; `state` is HTML.
fn page(title: &str, class: &str, about: &str, state: &str, links: &[Link]) -> String {
    let links: String = links.iter().map(item).collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header><div><h1>{title}</h1><span class="version">version {version}</span></div></header>
<main>
<p class="about">{about}</p>
{state}<ul class="{class}">
{links}</ul>
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
        assert!(!page.contains("<script"));
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
