//! How a command ends that does not end well.

use std::fmt;

/// What the caller sees of a failure.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The exit code.
    pub(crate) code: u8,
    /// What is wrong; empty if that was said already.
    pub(crate) message: String,
}

impl Exit {
    /// Some of what was asked for failed.
    pub(super) const FAILED: u8 = 1;
    /// It could not even be asked for: the usage, or the whole request.
    pub(super) const REFUSED: u8 = 2;
    /// Cut short by a signal, as shells say it of SIGINT.
    pub(super) const INTERRUPTED: u8 = 130;

    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::new(Self::REFUSED, message)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
