/// Requests that are answered: every span of them, to the nanosecond.
mod answered;
/// Lines in the log about calls that succeeded, and for those who ask for more.
mod call_lines;
/// Arguments and results on spans, for those who ask for them.
mod content;
/// Calls that fail, each in its own way, beside others that do not.
mod failed;
/// Tools that are killed or hang, of the real service: a trace for each request.
mod faults;
/// Callers that go before they have their answer.
mod gone;
/// Context that is too large for the tools.
mod left_out;
/// Lines in the log: one for each RPC and each failed call.
mod lines;
/// What is measured, on the page and as it is pushed.
mod metrics;
/// The tables of names, the README, and what is sent: all the same.
mod names;
/// Collectors that are down, silent, slow or refuse, and the real service.
mod outage;
/// The trace that tools are told of.
mod passed_on;
/// Requests that are not taken on.
mod rejected;
/// Who we are, on the page for Prometheus.
mod resource;
/// Which traces are kept.
mod sampling;
/// How the tool services fare.
mod services;
