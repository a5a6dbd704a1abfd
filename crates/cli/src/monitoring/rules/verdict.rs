//! The description of a diagnosed cause: a template that begins with the verdict.

use poolscope::causes::{OPERATION_PLACEHOLDER, descriptions};
use poolscope::labels::Cause;

use crate::monitoring::names::{DIAGNOSIS_SECONDS, POOL_LABEL};

/// Returns the finding with operation, call site and duration, the advice, and the pool.
pub(super) fn description(cause: Cause) -> String {
    let description = descriptions().find(|description| description.cause == cause);
    let (finding, advice) = description.map_or(("", ""), |description| (description.finding, description.advice));
    let names_operation = finding.contains(OPERATION_PLACEHOLDER);
    let (variables, site) = if names_operation { (&*responsible(cause), SITE) } else { ("", "") };
    let filled = |text: &str| text.replace(OPERATION_PLACEHOLDER, "{{ $operation }}");
    format!(
        "{variables}{} ({site}for {{{{ $value | humanizeDuration }}}}). {} Pool {{{{ $labels.{POOL_LABEL} }}}} of {{{{ \
         $labels.instance }}}}.",
        capitalized(&filled(finding)),
        filled(advice)
    )
}

/// The call site with a comma, if it is known.
const SITE: &str = "{{ with $site }}{{ . }}, {{ end }}";

/// Returns the template that sets `$operation` and `$site`, and prints nothing.
fn responsible(cause: Cause) -> String {
    let cause = cause.as_str();
    format!(
        "{{{{ $operation := \"an operation\" }}}}{{{{ $site := \"\" }}}}{{{{ with printf \
         `sort_desc(({DIAGNOSIS_SECONDS}{{cause=\"{cause}\",job=%[1]q,instance=%[2]q,{POOL_LABEL}=%[3]q}}) >= 0)` \
         $labels.job $labels.instance $labels.{POOL_LABEL} | query }}}}{{{{ $site = . | first | label \"call_site\" \
         }}}}{{{{ with . | first | label \"operation\" }}}}{{{{ $operation = . }}}}{{{{ end }}}}{{{{ end }}}}"
    )
}

/// Returns a text whose first letter is a capital.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
