//! `--trace`: writes the spans of a run as a file for Perfetto, and adds up where the time went.

use crate::output::Output;
use crate::people::{bytes, count, say, seconds};
use cellfeed::spans::{TARGET, is_interval};
use cellfeed::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Spans that a file takes, about 400 MB of them: what comes after is added up, but not written.
const MOST: u64 = 2_000_000;

/// How a file begins.
const HEAD: &str =
    "[\n{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"args\":{\"name\":\"cellfeed\"}}";

const OUTPUT: Output = Output { option: "--trace", what: "trace", begins: HEAD };

/// What all spans of a name amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Total {
    /// Of all threads together; what happens inside of a span is that of the inner one alone.
    pub(crate) seconds: f64,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Totals by the spans' names.
pub(crate) type Totals = BTreeMap<&'static str, Total>;

/// A trace that is being written.
#[derive(Debug)]
pub(crate) struct Trace {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None once it is finished.
    file: Option<BufWriter<NamedTempFile>>,
    failed: Option<std::io::Error>,
    written: u64,
    left_out: u64,
    totals: Totals,
}

impl Trace {
    /// Starts to listen to all threads of the process. The file has its name once it is complete;
    /// before, and after a run that was killed, it has `.part` behind it, which viewers take too.
    ///
    /// # Errors
    /// Of kind `Io` if the file cannot be made; `InvalidInput` if it would take the place of one of the
    /// stores or of what is no trace, or if spans go elsewhere already.
    pub(crate) fn start(path: &Path, stores: &[String]) -> Result<Self> {
        OUTPUT.check(path, stores)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let name = path.file_name().ok_or_else(|| {
            Error::invalid_input("--trace wants the name of a file").with("file", path.display())
        })?;
        let mut prefix = name.to_owned();
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // As any new file: the umask says who may read it.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder);
        let file = file.map_err(|e| cannot_write(e, path))?;
        let state = State {
            file: Some(BufWriter::with_capacity(1 << 16, file)),
            failed: None,
            written: 0,
            left_out: 0,
            totals: Totals::new(),
        };
        let shared = Arc::new(Shared { began: Instant::now(), state: Mutex::new(state) });
        shared.lock().write(HEAD);
        let layer = Recorder(Arc::clone(&shared));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
            .map_err(|_| Error::invalid_input("--trace: the spans of this process go elsewhere"))?;
        Ok(Self { path: path.to_owned(), shared })
    }

    /// Takes no more spans, gives the file its name, and answers the totals.
    ///
    /// # Errors
    /// Of kind `Io` if any of it could not be written; then there is no file.
    pub(crate) fn finish(self) -> Result<Totals> {
        let mut state = self.shared.lock();
        state.write("\n]\n");
        let totals = std::mem::take(&mut state.totals);
        if state.left_out > 0 {
            // If nobody reads, nothing can be said.
            let _ = writeln!(
                std::io::stderr(),
                "{}: of {} spans the first {} were written; all are in the totals",
                self.path.display(),
                count(state.written + state.left_out),
                count(state.written)
            );
        }
        let (file, failed) = (state.file.take(), state.failed.take());
        drop(state);
        // Something may have come there meanwhile.
        OUTPUT.check_replaceable(&self.path)?;
        let write = || -> std::io::Result<()> {
            failed.map_or(Ok(()), Err)?;
            let Some(file) = file else { return Ok(()) };
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|e| cannot_write(e, &self.path))?;
        Ok(totals)
    }
}

fn cannot_write(error: std::io::Error, path: &Path) -> Error {
    Error::io("cannot write the trace", error).with("file", path.display())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the beginning, as the format wants them.
    fn at(&self, time: Instant) -> f64 {
        micros(time.saturating_duration_since(self.began))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl State {
    fn write(&mut self, text: &str) {
        let Some(file) = &mut self.file else { return };
        if self.failed.is_none() {
            self.failed = file.write_all(text.as_bytes()).err();
        }
    }

    /// Writes one span, and adds it up.
    fn add(&mut self, name: &'static str, own: Duration, bytes: u64, lines: &[Value]) {
        let total = self.totals.entry(name).or_default();
        total.seconds += own.as_secs_f64();
        total.count += 1;
        total.bytes += bytes;
        if self.written >= MOST {
            self.left_out += 1;
            return;
        }
        self.written += 1;
        for line in lines {
            self.write(&format!(",\n{line}"));
        }
    }
}

thread_local! {
    /// The number of this thread in the file, once it has one.
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
    /// The spans that this thread is in: when it entered each, and how long it was in inner ones.
    static INSIDE: RefCell<Vec<(Id, Instant, Duration)>> = const { RefCell::new(Vec::new()) };
}

/// What is known of a span.
struct Known {
    args: Map<String, Value>,
    began: Instant,
    entered: bool,
}

/// Keeps the fields of a span as JSON.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

/// Turns what happens to spans into lines of the file.
struct Recorder(Arc<Shared>);

impl Recorder {
    /// The number of the calling thread. A new one gets a line with its name.
    fn thread(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NUMBER.get().unwrap_or_else(|| {
            let number = NEXT.fetch_add(1, Relaxed);
            NUMBER.set(Some(number));
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed");
            let line = json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": number,
                "args": {"name": name}});
            self.0.lock().write(&format!(",\n{line}"));
            number
        })
    }
}

fn bytes_of(args: &Map<String, Value>) -> u64 {
    args.get("bytes").and_then(Value::as_u64).unwrap_or(0)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        // Libraries below have spans of their own.
        match metadata.target() == TARGET && metadata.is_span() {
            true => tracing::subscriber::Interest::always(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == TARGET && metadata.is_span()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut args = Map::new();
        // Whatever is done for a fetch has its number.
        if let Some(parent) = span.parent()
            && let Some(known) = parent.extensions().get::<Known>()
        {
            for name in ["epoch", "fetch"] {
                if let Some(value) = known.args.get(name) {
                    args.insert(name.to_owned(), value.clone());
                }
            }
        }
        attributes.record(&mut Fields(&mut args));
        span.extensions_mut().insert(Known { args, began: Instant::now(), entered: false });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(known) = span.extensions_mut().get_mut::<Known>() {
            values.record(&mut Fields(&mut known.args));
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if is_interval(span.name()) {
            return;
        }
        if let Some(known) = span.extensions_mut().get_mut::<Known>() {
            known.entered = true;
        }
        INSIDE.with_borrow_mut(|inside| inside.push((id.clone(), Instant::now(), Duration::ZERO)));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let now = Instant::now();
        let Some(span) = context.span(id) else { return };
        if is_interval(span.name()) {
            return;
        }
        let left = INSIDE.with_borrow_mut(|inside| {
            let at = inside.iter().rposition(|(inner, ..)| inner == id)?;
            let (_, began, within) = inside.remove(at);
            let took = now.saturating_duration_since(began);
            if let Some((.., within)) = at.checked_sub(1).and_then(|outer| inside.get_mut(outer)) {
                *within += took;
            }
            Some((began, took, took.saturating_sub(within)))
        });
        let Some((began, took, own)) = left else { return };
        let thread = self.thread();
        let (args, bytes) = match span.extensions().get::<Known>() {
            Some(known) => (known.args.clone(), bytes_of(&known.args)),
            None => return,
        };
        let line = json!({"ph": "X", "name": span.name(), "cat": TARGET, "pid": 1, "tid": thread,
            "ts": self.0.at(began), "dur": micros(took), "args": args});
        self.0.lock().add(span.name(), own, bytes, &[line]);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let now = Instant::now();
        let Some(span) = context.span(&id) else { return };
        let extensions = span.extensions();
        let Some(known) = extensions.get::<Known>() else { return };
        if known.entered {
            return;
        }
        let name = span.name();
        let thread = self.thread();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Relaxed);
        let end = |ph: &str, time, args: &Map<String, Value>| {
            json!({"ph": ph, "name": name, "cat": name, "pid": 1, "tid": thread,
                "id": number, "ts": self.0.at(time), "args": args})
        };
        let lines = [end("b", known.began, &known.args), end("e", now, &Map::new())];
        let took = now.saturating_duration_since(known.began);
        self.0.lock().add(name, took, bytes_of(&known.args), &lines);
    }
}

/// Says where the time of a run went.
pub(crate) fn print(totals: &Totals, elapsed: f64) -> Result<()> {
    say(
        "  where the time went, all threads together; shares are of the run, in brackets what no thread does",
    )?;
    let mut totals: Vec<_> = totals.iter().collect();
    totals.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    for (name, total) in totals {
        // What is on no thread overlaps with itself, and with what is.
        let name = if is_interval(name) { format!("({name})") } else { (*name).to_owned() };
        say(format_args!(
            "  {name:<9} {:>8} {:>6} {:>9} times {}",
            seconds(total.seconds),
            format!("{:.0} %", 100.0 * total.seconds / elapsed.max(1e-9)),
            count(total.count),
            if total.bytes > 0 { bytes(total.bytes) } else { String::new() }
        ))?;
    }
    Ok(())
}
