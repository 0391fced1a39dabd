//! Why an attempt at a call has no observation, in the words of no protocol: how far it
//! got, whether the tool may have run, and what the caller may read. Each protocol for
//! tools makes these out of what its peers say; the policies read nothing else.

use std::time::Duration;

use crate::core::{
    error::{CallError, Effect, Reason},
    status::Code,
};

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How far it got.
    pub(crate) stage: Stage,
    /// What the caller is told has happened.
    pub(crate) reason: Reason,
    /// Whether this attempt may have run.
    pub(crate) effect: Effect,
    /// The status of the attempt: the tool's own, or the one that says best what went
    /// wrong.
    pub(crate) code: Code,
    /// Whether what failed says anything of sending the call again.
    pub(crate) resend: Resend,
    /// When that may first help, if that is known.
    pub(crate) retry_after: Option<Duration>,
    /// Whether it may pass although its reason says otherwise.
    pub(crate) may_pass: bool,
    /// For the caller, and the span of the attempt.
    pub(crate) message: String,
    /// For those whose call it was not: without the words of whoever answered. `None`
    /// if the message has none.
    pub(crate) public_message: Option<String>,
}

/// How far a failed attempt got, which tells whom it speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A policy did not let it go.
    NotAdmitted,
    /// It could not be sent. How many attempts at a connection had failed by then: calls
    /// that meet the same count were stopped by the same failure.
    Unsent(u32),
    /// The service refused it unseen.
    Refused,
    /// It was sent, and its connection was lost.
    Lost,
    /// It was sent, and the service, or what is in front of it, ended it without an
    /// answer of the tool.
    Reset,
    /// Somebody answered.
    Answered,
}

/// What a failure says of sending the call again although it may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resend {
    /// Nothing: how far the attempt got decides.
    ByStage,
    /// The tool's own status decides, and when the tool says that it wants the next.
    ByStatus(Option<Pushback>),
    /// It would fail again.
    Never,
}

/// When a tool wants to be asked again (gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Not at all.
    Never,
    /// After so long.
    After(Duration),
}

impl Failure {
    /// A failure of that kind about which there is no more to say.
    pub(crate) fn new(
        stage: Stage,
        (reason, effect): (Reason, Effect),
        code: Code,
        message: String,
    ) -> Self {
        Self {
            stage,
            reason,
            effect,
            code,
            resend: Resend::ByStage,
            retry_after: None,
            may_pass: false,
            message,
            public_message: None,
        }
    }

    /// The tool has no room for the call, for that reason.
    pub(crate) fn overloaded(reason: &str, retry_after: Option<Duration>) -> Self {
        let what = (Reason::Overloaded, Effect::NotStarted);
        let message = format!("the tool is busy: {reason}");
        Self {
            retry_after,
            ..Self::new(Stage::NotAdmitted, what, Code::ResourceExhausted, message)
        }
    }

    /// Its message, for those whose call it was not.
    pub(crate) fn public_message(&self) -> &str {
        self.public_message.as_deref().unwrap_or(&self.message)
    }

    /// As the error of a call to a tool that is `idempotent` or not, which some attempt
    /// `may_have_run`.
    pub(crate) fn into_call_error(self, idempotent: bool, may_have_run: bool) -> CallError {
        // An earlier attempt may have run where the last one did not.
        let effect = match self.effect {
            Effect::NotStarted if may_have_run => Effect::Maybe,
            effect => effect,
        };
        let error = CallError::new(self.reason, effect, idempotent, self.message);
        CallError {
            retryable: error.retryable || (self.may_pass && idempotent),
            ..error.retry_after(self.retry_after)
        }
    }
}
