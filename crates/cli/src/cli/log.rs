//! The log: filter, format, and the trace of each line.

use std::env;
use std::fmt;
use std::io::IsTerminal;
use std::panic::{self, PanicHookInfo};
use std::thread;

use clap::ValueEnum;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use poolscope::text::{Printable, printable};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Format, Full, Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The environment variable with the filter.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// The target that is never logged: its lines are not rate limited and contain the endpoint. The pipeline logs its
/// failures itself.
const EXCLUDED_TARGET: &str = "opentelemetry-otlp";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Human-readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber: writes the log to `writer`, and passes spans to `traces`. `default` is the filter unless the
/// environment has one.
pub(super) fn init<W, T>(writer: W, format: LogFormat, default: &str, traces: Option<T>) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    T: Layer<Registry> + Send + Sync + 'static,
{
    let filter = filter(default)?;
    let ansi = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let ansi = ansi && std::io::stderr().is_terminal() && format == LogFormat::Text;
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(writer);
    let lines = match format {
        LogFormat::Text => {
            lines.event_format(Text(Format::default().with_ansi(ansi))).fmt_fields(text_fields()).boxed()
        }
        LogFormat::Json => lines.event_format(Json).boxed(),
    };
    tracing_subscriber::registry()
        .with(traces)
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|error| error.to_string())?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic. The default hook writes to standard error, which may block the thread that panics.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let thread = thread::current();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let problem = text.unwrap_or("unknown");
    tracing::error!(thread = thread.name(), location, problem, "a thread panicked");
}

fn filter(default: &str) -> Result<EnvFilter, String> {
    let directives = match env::var(FILTER_VARIABLE) {
        Ok(directives) if !directives.trim().is_empty() => directives,
        Ok(_) | Err(env::VarError::NotPresent) => default.to_owned(),
        Err(env::VarError::NotUnicode(_)) => {
            return Err(format!("environment variable {FILTER_VARIABLE}: the value is not Unicode: give it in UTF-8"));
        }
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        format!(
            "environment variable {FILTER_VARIABLE}: invalid \"{}\": {error}: give levels by target, such as \
             poolscope=debug,warn",
            directives.escape_debug()
        )
    })?;
    let excluded = format!("{EXCLUDED_TARGET}=off").parse().map_err(|error| format!("{EXCLUDED_TARGET}: {error}"))?;
    Ok(filter.add_directive(excluded))
}

/// Returns the ids of the current span if it is sampled, because only then a trace store has it.
fn sampled_ids() -> Option<(TraceId, SpanId)> {
    let context = opentelemetry::Context::current();
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled()).then(|| (span.trace_id(), span.span_id()))
}

/// Returns the format of a line's fields: as that of `tracing_subscriber`, and each value printable, since messages of
/// servers, clients and collectors are among them.
fn text_fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let value = Printable(format_args!("{value:?}")).to_string();
        match field.name() {
            "message" => write!(writer, "{value}"),
            name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
            name => write!(writer, "{name}={value}"),
        }
    };
    debug_fn(field).delimited(" ")
}

/// Human-readable lines, which end with the ids of the span.
struct Text(Format<Full, SystemTime>);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((trace_id, span_id)) = sampled_ids() else {
            return self.0.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        writeln!(writer, "{} trace_id={trace_id} span_id={span_id}", line.trim_end_matches('\n'))
    }
}

/// `{"timestamp": …, "level": …, "target": …, "message": …, "fields": {…}, "trace_id": …, "span_id": …}`
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        write!(
            writer,
            r#"{{"timestamp":"{time}","level":"{}","target":{},"message":{}"#,
            metadata.level(),
            Quoted(metadata.target()),
            Quoted(&fields.message),
        )?;
        if !fields.others.is_empty() {
            write!(writer, r#","fields":{}"#, serde_json::Value::Object(fields.others))?;
        }
        if let Some((trace_id, span_id)) = sampled_ids() {
            write!(writer, r#","trace_id":"{trace_id}","span_id":"{span_id}""#)?;
        }
        writeln!(writer, "}}")
    }
}

/// A string as JSON.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_text(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.insert(field, value);
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_text(field, printable(value).into_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_text(field, Printable(format_args!("{value:?}")).to_string());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use poolscope::otlp::{Pipeline, Settings};
    use poolscope::text::MAX_CHARS;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `emit` logs. All traces are sampled with a ratio of 1, none with 0.
    fn logged(json: bool, ratio: f64, emit: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let mut settings = Settings::new("test");
        settings.sampling.ratio = ratio;
        let pipeline = Pipeline::start(&settings).unwrap();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = if json {
            layer.event_format(Json).boxed()
        } else {
            layer.event_format(Text(Format::default().with_ansi(false))).fmt_fields(text_fields()).boxed()
        };
        // As in `init`, the filter applies to lines only, and not to spans.
        let layer = layer.with_filter(EnvFilter::new("warn"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(pipeline.layer()).with(layer), emit);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn warn() {
        let error = "not \"a\"\n7 digits".parse::<u8>().unwrap_err();
        tracing::warn!(pool = "shop", suppressed = 3_u64, seconds = 0.5, open = true, %error, "connection error");
    }

    #[test]
    fn text_line_has_ids_of_a_sampled_span_only() {
        let within = || tracing::info_span!("request").in_scope(warn);
        let line = &logged(false, 1.0, within)[0];
        let (begin, ids) = line.split_once(" trace_id=").unwrap();
        assert!(begin.contains(" WARN ") && begin.contains("connection error pool=\"shop\" suppressed=3"), "{line}");
        let (trace_id, span_id) = ids.split_once(" span_id=").unwrap();
        assert_eq!((trace_id.len(), span_id.len()), (32, 16), "{line}");
        for lines in [logged(false, 1.0, warn), logged(false, 0.0, within)] {
            assert!(lines[0].contains("connection error") && !lines[0].contains("trace_id"), "{lines:?}");
        }
    }

    #[test]
    fn json_line_is_an_object_with_ids() {
        let lines = logged(true, 1.0, || {
            warn();
            tracing::info_span!("request").in_scope(warn);
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(r#"{"timestamp":"2"#), "{lines:?}");
        let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"connection error".into()));
            assert_eq!(line["target"], concat!(env!("CARGO_CRATE_NAME"), "::cli::log::tests"));
            let fields = serde_json::json!({
                "pool": "shop", "suppressed": 3, "seconds": 0.5, "open": true,
                "error": "invalid digit found in string",
            });
            assert_eq!(line["fields"], fields);
        }
        assert_eq!(lines[0].get("trace_id"), None);
        assert_eq!(lines[1]["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(lines[1]["span_id"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn foreign_values_are_escaped_and_cut() {
        const HOSTILE: &str = "\"}\n{\"level\":\"INFO\"\u{1b}[31m\u{9b}m\u{202e}";
        let emit = || {
            tracing::warn!(pool = HOSTILE, error = %HOSTILE, nan = f64::NAN, "{HOSTILE}");
            let long = "\n".repeat(300_000);
            tracing::warn!(error = %long, pool = long, "{long}");
            tracing::warn_span!("probe", pool = %HOSTILE).in_scope(|| tracing::warn!("within"));
        };
        let hostile = printable(HOSTILE);
        let lines = logged(true, 1.0, emit);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        for value in [&line["message"], &line["fields"]["pool"], &line["fields"]["error"]] {
            assert_eq!(*value, *hostile);
        }
        let texts = logged(false, 1.0, emit);
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].contains(&format!(" {hostile} pool=")) && texts[0].contains(&format!(" error={hostile} ")));
        assert!(texts[2].contains(&format!("{{pool={hostile}}}")), "{texts:?}");
        for line in lines.iter().chain(&texts) {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert!(line.len() < 3 * 2 * MAX_CHARS + 200, "{line:?}");
        }
    }
}
