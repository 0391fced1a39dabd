//! Whose failure it was, and whether the tool may have run, of a call over gRPC.
//!
//! A caller must learn UNAVAILABLE of a tool that died, and whether anything was
//! sent: gRPC libraries say UNKNOWN, CANCELLED or INTERNAL here.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::not_grpc;
use crate::{
    core::{
        error::{Effect, Reason, ToolStatus},
        status::Code,
    },
    net::AddressHealth,
    policy::{Failure, Pushback, Resend, Stage},
};

/// The setting that bounds replies.
const MAX_RESULT: &str = "limits.max_result_bytes";

/// Why there is no observation of a request that was sent.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The tool answered with a status.
    Tool {
        status: ToolStatus,
        message: String,
        pushback: Option<Pushback>,
    },
    /// The service said, before anything else, that it did not look at the call.
    Unprocessed(h2::Error),
    /// The transport failed after the request was handed to it.
    Transport(h2::Error),
    /// An HTTP response without a gRPC status, and what it says.
    NotGrpc {
        status: StatusCode,
        quote: String,
        /// Whether it came to its end.
        is_complete: bool,
    },
    /// The message is longer than it may be; how long, if that is known.
    TooLarge { bytes: Option<usize> },
    /// There is no memory for it: this process holds as much as it may.
    NoMemory { bytes: usize },
    /// The reply breaks off before all of it is there.
    Incomplete(&'static str),
    /// The reply is something that gRPC does not allow here.
    Invalid(&'static str),
    /// The message is not of the type that the contract says.
    Garbage(prost::DecodeError),
    /// The message is not of that type, and why.
    NoMessage(String, String),
    /// What is made of it is longer than it may be.
    Outgrown,
    /// A stream has more messages than may be collected.
    TooMany(usize),
}

/// What a failed attempt means: for its call, and for the connection that it was on.
#[derive(Debug)]
pub(crate) struct Classified {
    pub(crate) failure: Failure,
    /// What it says of the address that was called.
    pub(crate) address: AddressHealth,
    /// Whether its stream had ended by then: there is nothing to reset.
    pub(crate) ends_stream: bool,
    /// Whether it ended more than its own stream.
    pub(crate) ends_connection: bool,
    /// Whether a deadline that ran out at the other side, at the tool or on the way to
    /// it, may have ended the attempt so: each library and proxy has its own way, from
    /// a status to a bare RST_STREAM or a stream that just stops. What a tool says
    /// with any other status it says for a reason of its own.
    pub(crate) may_be_of_expiry: bool,
}

/// What the value of `grpc-retry-pushback-ms` says. What is no number of milliseconds
/// means never.
pub(crate) fn pushback(value: &HeaderValue) -> Pushback {
    let text = value.to_str().unwrap_or_default();
    text.parse().map_or(Pushback::Never, |ms: u32| {
        Pushback::After(Duration::from_millis(ms.into()))
    })
}

impl Fault {
    /// As no response headers have come. These commit a call (gRFC A6): what fails
    /// later is [`Fault::Transport`], whatever the service says of it.
    pub(crate) fn unanswered(error: h2::Error) -> Self {
        if is_unprocessed(&error) {
            Self::Unprocessed(error)
        } else {
            Self::Transport(error)
        }
    }

    /// What it means. Replies may have `max_bytes`.
    pub(crate) fn classify(self, max_bytes: usize) -> Classified {
        match self {
            Self::Tool {
                status,
                message,
                pushback,
            } => of_tool(status, message, pushback),
            Self::Unprocessed(error) => of_unprocessed(&error),
            Self::Transport(error) => of_transport(&error),
            Self::NotGrpc {
                status,
                quote,
                is_complete,
            } => Classified {
                ends_stream: is_complete,
                ..of_http(status, &quote)
            },
            Self::TooLarge { bytes } => {
                let what = match bytes {
                    None => format!("inflates to more than {max_bytes} bytes"),
                    Some(bytes) => format!("of {bytes} bytes is over {max_bytes}"),
                };
                let message = format!("the tool's reply {what} ({MAX_RESULT})");
                Classified {
                    ends_stream: false,
                    ..too_large(message)
                }
            }
            Self::NoMemory { bytes } => {
                let message = format!(
                    "there is no room for the tool's reply of {bytes} bytes: this server holds \
                     as many as it may for its callers (limits.max_buffered_bytes)"
                );
                let mut classified = too_large(message);
                // Unlike the others of this reason.
                classified.failure.may_pass = true;
                Classified {
                    ends_stream: false,
                    ..classified
                }
            }
            Self::Incomplete(what) => Classified {
                may_be_of_expiry: true,
                ..no_answer(Effect::Maybe, &format!("is incomplete: {what}"))
            },
            Self::Invalid(what) => Classified {
                ends_stream: false,
                ..no_answer(Effect::Done, &format!("is invalid: {what}"))
            },
            Self::Garbage(error) => {
                no_answer(Effect::Done, &format!("is no CallToolResponse: {error}"))
            }
            Self::NoMessage(name, why) => Classified {
                ends_stream: false,
                ..no_answer(Effect::Done, &format!("is no {name}: {why}"))
            },
            Self::Outgrown => Classified {
                ends_stream: false,
                ..too_large(format!(
                    "the tool's reply makes an observation of more than {max_bytes} bytes \
                     ({MAX_RESULT})"
                ))
            },
            Self::TooMany(max) => Classified {
                ends_stream: false,
                ..too_large(format!(
                    "the tool's reply is a stream of more than {max} messages"
                ))
            },
        }
    }
}

/// As of an answer that was read to its end.
fn answered(failure: Failure) -> Classified {
    Classified {
        failure,
        address: AddressHealth::Works,
        ends_stream: true,
        ends_connection: false,
        may_be_of_expiry: false,
    }
}

fn of_tool(status: ToolStatus, message: String, pushback: Option<Pushback>) -> Classified {
    let code = status.code;
    // gRPC C-core says in words only, in place of the tool, that the request got no
    // further than its headers.
    let is_of_headers =
        code == Code::ResourceExhausted && message.starts_with("received metadata size exceeds ");
    let (stage, effect) = if is_of_headers {
        (Stage::Refused, Effect::NotStarted)
    } else {
        (Stage::Answered, Effect::Done)
    };
    let what = (Reason::ToolFailed(status), effect);
    Classified {
        // UNAVAILABLE is what gRPC calls a proxy's 504.
        may_be_of_expiry: matches!(
            code,
            Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable
        ),
        ..answered(Failure {
            resend: Resend::ByStatus(pushback),
            public_message: Some(format!("it answered {}", code.name())),
            ..Failure::new(stage, what, code, message)
        })
    }
}

fn of_unprocessed(error: &h2::Error) -> Classified {
    let reason = reason(error);
    let message = if reason == h2::Reason::NO_ERROR {
        "the tool service refused the call unseen, as it shuts down".to_owned()
    } else {
        format!("the tool service refused the call unseen: {error}")
    };
    let what = (Reason::ToolUnavailable, Effect::NotStarted);
    Classified {
        address: if error.is_go_away() && reason != h2::Reason::NO_ERROR {
            AddressHealth::Fails
        } else {
            AddressHealth::Unknown
        },
        ..answered(Failure::new(
            Stage::Refused,
            what,
            Code::Unavailable,
            message,
        ))
    }
}

fn of_transport(error: &h2::Error) -> Classified {
    let (is_broken, was_unprocessed) = (is_broken_http(error), is_unprocessed(error));
    let is_of_stream = error.is_reset();
    let reason = reason(error);
    let message = if was_unprocessed {
        "the tool service dropped the call after it had begun to answer".to_owned()
    } else if is_broken {
        format!("the tool's reply breaks HTTP/2: {reason}")
    } else if let Some(io) = error.get_io() {
        format!("the connection broke: {io}")
    } else if is_of_stream {
        format!("the tool service reset the call: {reason}")
    } else {
        format!("the connection was shut: {error}")
    };
    let (stage, reason, code) = if is_broken {
        let reason = Reason::InvalidResponse(Code::Internal);
        (Stage::Answered, reason, Code::Internal)
    } else if is_of_stream || was_unprocessed {
        (Stage::Reset, Reason::ToolUnavailable, Code::Unavailable)
    } else {
        (Stage::Lost, Reason::ToolUnavailable, Code::Unavailable)
    };
    Classified {
        failure: Failure::new(stage, (reason, Effect::Maybe), code, message),
        address: if was_unprocessed || is_of_stream {
            AddressHealth::Unknown
        } else {
            AddressHealth::Fails
        },
        ends_stream: true,
        ends_connection: !is_of_stream,
        may_be_of_expiry: !is_broken,
    }
}

/// Of an answer without a gRPC status, and the beginning of what it says.
fn of_http(status: StatusCode, quote: &str) -> Classified {
    let code = not_grpc::code(status);
    let is_unavailable = code == Code::Unavailable;
    let is_of_headers = status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let stage = if is_of_headers {
        Stage::Refused
    // What is too much for a proxy, too.
    } else if status.is_server_error() || is_unavailable {
        Stage::Reset
    } else {
        Stage::Answered
    };
    let what = match (is_unavailable, is_of_headers) {
        (true, _) => (Reason::ToolUnavailable, Effect::Maybe),
        (false, true) => (Reason::InvalidResponse(code), Effect::NotStarted),
        (false, false) => (Reason::InvalidResponse(code), Effect::Maybe),
    };
    let public = format!("not gRPC, but HTTP status {status}, came back");
    let colon = if quote.is_empty() { "" } else { ": " };
    let message = format!("{public}{colon}{quote}");
    Classified {
        address: if status.is_server_error() {
            AddressHealth::Fails
        } else {
            AddressHealth::Works
        },
        may_be_of_expiry: is_unavailable || status == StatusCode::REQUEST_TIMEOUT,
        ..answered(Failure {
            // As for a tool's own status, the code decides.
            resend: if is_unavailable {
                Resend::ByStage
            } else {
                Resend::Never
            },
            public_message: Some(public),
            ..Failure::new(stage, what, code, message)
        })
    }
}

fn too_large(message: String) -> Classified {
    let what = (Reason::ResultTooLarge, Effect::Done);
    let code = Code::ResourceExhausted;
    answered(Failure::new(Stage::Answered, what, code, message))
}

/// Of a reply that is wrong in that way.
fn no_answer(effect: Effect, what: &str) -> Classified {
    let message = format!("the tool's reply {what}");
    let what = (Reason::InvalidResponse(Code::Internal), effect);
    answered(Failure::new(Stage::Answered, what, Code::Internal, message))
}

fn reason(error: &h2::Error) -> h2::Reason {
    error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR)
}

/// Whether the service says that it did not look at the call: by REFUSED_STREAM, or by
/// a GOAWAY, whatever its code (RFC 9113, 8.7 and 6.8). Of a GOAWAY h2 tells only the
/// streams above its last id; the others go on, or end with the connection.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away() || (error.is_reset() && reason(error) == h2::Reason::REFUSED_STREAM))
}

fn is_broken_http(error: &h2::Error) -> bool {
    error.is_reset() && error.is_library()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_milliseconds_means_never() {
        let parsed = |value| pushback(&HeaderValue::from_static(value));
        for millis in [500, 0] {
            let value = Pushback::After(Duration::from_millis(millis));
            let text = HeaderValue::from(millis);
            assert_eq!(pushback(&text), value);
        }
        for never in ["-1", "", "soon", "1.5", "4294967296"] {
            assert_eq!(parsed(never), Pushback::Never, "{never}");
        }
    }
}
