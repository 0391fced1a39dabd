//! The line in the log about one call: of those that failed or were slow at `info`, of
//! the others at `debug`.

use tracing::Level;

use super::BatchTelemetry;
use crate::core::{
    call::Completion,
    error::{Effect, Reason},
};

/// Writes it if it is wanted. `caller_is_gone`: the RPC's own line is enough for most.
pub(super) fn write(batch: &BatchTelemetry, completion: &Completion, caller_is_gone: bool) {
    let duration = completion.end.saturating_duration_since(batch.started);
    let slow = batch.record.telemetry.0.slow_call.get();
    let (level, message) = match &completion.outcome {
        Err(_) if caller_is_gone => (Level::DEBUG, "a call was cancelled"),
        Err(_) => (Level::INFO, "a call failed"),
        Ok(_) if slow.is_some_and(|slow| duration >= *slow) => (Level::INFO, "a call was slow"),
        Ok(_) => (Level::DEBUG, "a call succeeded"),
    };
    // What most calls come to.
    if level == Level::DEBUG && !tracing::enabled!(target: "fanfare::access", Level::DEBUG) {
        return;
    }
    let call = &batch.calls[completion.index];
    let state = &batch.states[completion.index];
    let error = completion.outcome.as_ref().err();
    let reason = error.map(|error| error.reason.as_str());
    let limit = match error.map(|error| &error.reason) {
        Some(Reason::DeadlineExceeded(limit)) => Some(limit.as_str()),
        _ => None,
    };
    let about = match &state.span {
        Some(span) => span.context(),
        None => batch.record.context(),
    };
    let _about = about.clone().attach();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "fanfare::access",
                throttle = format_args!("{} {}", state.gauges.name(), reason.unwrap_or_default()),
                tool = state.tool(call),
                id = call.id.as_str(),
                index = completion.index,
                reason,
                limit,
                effect = error.map(|error| error.effect).map(Effect::as_str),
                attempts = completion.attempts,
                queued = completion.queued.as_secs_f64(),
                duration = duration.as_secs_f64(),
                error = error.map(|error| error.message.as_str()),
                "{message}"
            )
        };
    }
    if level == Level::INFO {
        line!(info);
    } else {
        line!(debug);
    }
}
