/// Requests that are answered: every span of them, to the nanosecond.
mod answered;
/// Calls that fail, each in its own way, beside others that do not.
mod failed;
/// Callers that go before they have their answer.
mod gone;
/// The trace that tools are told of.
mod passed_on;
/// Requests that are not taken on.
mod rejected;
