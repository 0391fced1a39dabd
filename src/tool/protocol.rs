//! What a protocol for tools has to write: how the arguments of a call become bytes on
//! the wire, and how what comes back becomes an observation or a failure with its effect.
//! When an attempt is made, how often, and how long the call may take, is decided around
//! it.

use bytes::Bytes;

use super::attempt::Attempt;
use crate::{
    core::{
        call::Arguments,
        error::{Effect, Reason, Violation},
        observer::Target,
        status::Code,
    },
    net::NoConnection,
    policy::{Failure, Stage},
};

/// A protocol, as one tool speaks it.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// What is to be sent for a call with these arguments, which [`Attempt::payload`] gives
    /// back: once for all attempts, before anything of the call's request runs.
    ///
    /// # Errors
    /// With all that is wrong with them.
    fn prepare(&self, arguments: &Arguments) -> Result<Option<Bytes>, Vec<Violation>>;

    /// What observers are told of where an attempt goes while it has no address.
    fn target(&self) -> &Target;

    /// Makes one attempt at a call. Dropping the future cancels it on the wire.
    ///
    /// [`Attempt::sent`] is to be called as soon as the tool may have got it. The
    /// observation is the encoded `google.protobuf.Value`.
    ///
    /// # Errors
    /// If the attempt failed: how far it got, and whether the tool may have run. One that
    /// may have ended because its time ran out at the other side ends with
    /// [`Attempt::expire`] instead.
    fn attempt(
        &self,
        attempt: &mut Attempt<'_>,
    ) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}

impl From<NoConnection> for Failure {
    fn from(error: NoConnection) -> Self {
        let NoConnection {
            service,
            reason,
            connect_epoch,
        } = error;
        let what = (Reason::ToolUnavailable, Effect::NotStarted);
        let message = format!("can't connect to tool service {service}: {reason}");
        Self::new(
            Stage::Unsent(connect_epoch),
            what,
            Code::Unavailable,
            message,
        )
    }
}
