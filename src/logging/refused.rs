//! Logs what h2 refuses. It resets malformed requests, and closes connections that break the
//! rules of HTTP/2, without telling this service or the peer why. The reason is only in events
//! of level `DEBUG`, among those about each frame. These few are taken whatever `RUST_LOG`
//! says, and become lines of level `WARN`.

use std::sync::OnceLock;

use tracing::{Event, Level, Metadata, Subscriber, span, subscriber::Interest};
use tracing_subscriber::{EnvFilter, Layer, filter::LevelFilter, layer::Context};

use super::{
    fields::Fields,
    gate::{Gate, LIBRARY},
    throttle::Origin,
};
use crate::transport::peer;

/// The target of these lines.
const TARGET: &str = "fanfare::http2";
/// The longest message, in bytes: it may quote what the peer sent.
const MAX_BYTES: usize = 400;

/// The targets with which h2 0.4.20 says why it refuses something. Events about frames have
/// other fields.
const PLACES: [&str; 9] = [
    "h2::server",
    "h2::codec::framed_read",
    "h2::frame::settings",
    "h2::proto::peer",
    "h2::proto::settings",
    "h2::proto::streams::recv",
    "h2::proto::streams::send",
    "h2::proto::streams::state",
    "h2::proto::streams::streams",
];
/// How the messages of such events begin: about a stream, and about a connection.
const OF_STREAMS: [&str; 4] = [
    "malformed headers",
    "stream error ",
    "recv_stream_window_update !!",
    "stream ID implicitly closed",
];
const OF_CONNECTIONS: [&str; 4] = [
    "connection error ",
    "too_many_continuations",
    "too many small DATA frames",
    "invalid settings payload length",
];
/// These follow messages about a connection, once or twice; some connections have no others.
const CLOSING: &str = "h2::proto::connection";
const CLOSED: &str = "Connection::poll; connection error";

/// The filter by `RUST_LOG`, except that it also takes what h2 refuses.
#[derive(Debug)]
pub(super) struct Select {
    filter: EnvFilter,
    gate: Gate,
    /// Whether `RUST_LOG` allows lines of [`TARGET`].
    wanted: OnceLock<bool>,
}

impl Select {
    pub(super) fn new(filter: EnvFilter, gate: Gate) -> Self {
        Self {
            filter,
            gate,
            wanted: OnceLock::new(),
        }
    }

    fn hear(&self, event: &Event<'_>) {
        let wanted = || tracing::enabled!(target: TARGET, Level::WARN);
        if !*self.wanted.get_or_init(wanted) {
            return;
        }
        let Some((reason, closes)) = reason(Fields::of(event)) else {
            return;
        };
        let connection = peer::current();
        if closes && connection.as_ref().is_some_and(|it| !it.ends()) {
            return;
        }
        let mut message = format!("HTTP/2 refused what a peer sent: {reason}");
        message.truncate(message.floor_char_boundary(MAX_BYTES));
        let origin = Origin {
            place: event.metadata().callsite(),
            level: Level::WARN,
            target: TARGET,
        };
        if self.gate.lets(&origin, 0, LIBRARY, || message.clone()) {
            let peer = connection.as_ref().and_then(|it| it.peer());
            let rest = peer.map(|peer| ("peer", peer.into()));
            let rest = rest.into_iter().collect();
            let fields = Fields { message, rest };
            self.gate.sink.line(origin.level, origin.target, &fields);
        }
    }
}

/// Whether such events may be about something that h2 refuses.
fn may_tell(metadata: &Metadata<'_>) -> bool {
    if *metadata.level() != Level::DEBUG || !metadata.is_event() {
        return false;
    }
    let has = |names: &[&str]| {
        let fields = metadata.fields();
        fields.len() == names.len() && names.iter().all(|name| fields.field(name).is_some())
    };
    match metadata.target() {
        CLOSING => has(&["message", "error"]),
        target => PLACES.contains(&target) && has(&["message"]),
    }
}

/// Why something was refused, if the event is about that, and whether the connection ends.
fn reason(Fields { message, rest }: Fields) -> Option<(String, bool)> {
    let begins = |with: &[&str]| with.iter().any(|begin| message.starts_with(begin));
    if message == CLOSED {
        let error = rest.into_iter().find(|(name, _)| *name == "error");
        let error = error.and_then(|(_, error)| Some(error.as_str()?.to_owned()))?;
        // The event also comes when the peer ends the connection, or when it ends without an
        // error.
        let ours = !error.contains("Remote") && !error.contains("NO_ERROR");
        return ours.then(|| (format!("closed with {error}"), true));
    }
    let closes = begins(&OF_CONNECTIONS);
    (closes || begins(&OF_STREAMS)).then_some((message, closes))
}

impl<S: Subscriber> Layer<S> for Select {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = Layer::<S>::register_callsite(&self.filter, metadata);
        if interest.is_never() && may_tell(metadata) {
            return Interest::always();
        }
        interest
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.filter.enabled(metadata, context) || may_tell(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if !may_tell(metadata) {
            return true;
        }
        self.hear(event);
        self.filter.enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // `None` stays: the filter wants to be asked each time.
        let hint = self.filter.max_level_hint()?;
        Some(hint.max(LevelFilter::DEBUG))
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        self.filter.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        self.filter.on_record(id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        self.filter.on_enter(id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        self.filter.on_exit(id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        self.filter.on_close(id, context);
    }
}
