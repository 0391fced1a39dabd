//! The status codes of RPCs, as every protocol of tools is told in
//! (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).

macro_rules! codes {
    ($($(#[doc = $docs:literal])* $code:ident = $number:literal, $name:literal;)*) => {
        /// A status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $docs])* $code = $number,)*
        }

        impl Code {
            /// All of them, by number.
            pub const ALL: [Self; 17] = [$(Self::$code),*];

            /// As it is written in configurations, logs and telemetry.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                }
            }
        }
    };
}

codes! {
    /// It succeeded.
    Ok = 0, "OK";
    /// It was cancelled, mostly by the caller.
    Cancelled = 1, "CANCELLED";
    /// Nothing else fits.
    Unknown = 2, "UNKNOWN";
    /// The request is wrong, whatever the state of the service.
    InvalidArgument = 3, "INVALID_ARGUMENT";
    /// The deadline passed before it was done.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED";
    /// What was asked for is not there.
    NotFound = 5, "NOT_FOUND";
    /// What was to be created is there.
    AlreadyExists = 6, "ALREADY_EXISTS";
    /// The caller may not do this.
    PermissionDenied = 7, "PERMISSION_DENIED";
    /// A quota is used up, or something is too large.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED";
    /// The service is not in the state for it.
    FailedPrecondition = 9, "FAILED_PRECONDITION";
    /// It conflicted with something else.
    Aborted = 10, "ABORTED";
    /// Past the end.
    OutOfRange = 11, "OUT_OF_RANGE";
    /// The service does not have this.
    Unimplemented = 12, "UNIMPLEMENTED";
    /// The service or something below it is broken.
    Internal = 13, "INTERNAL";
    /// The service is not there right now.
    Unavailable = 14, "UNAVAILABLE";
    /// Data is lost for good.
    DataLoss = 15, "DATA_LOSS";
    /// Nobody knows who the caller is.
    Unauthenticated = 16, "UNAUTHENTICATED";
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The code with this number; [`Code::Unknown`] if there is none, as gRPC says
    /// (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
    pub fn from_number(number: i32) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!(code.number(), number);
            assert_eq!(Code::from_number(number), code);
            // `InvalidArgument` and `INVALID_ARGUMENT` are the same word.
            let debug = format!("{code:?}");
            assert_eq!(debug.to_uppercase(), code.name().replace('_', ""));
        }
        for number in [-1, 17, i32::MAX] {
            assert_eq!(Code::from_number(number), Code::Unknown);
        }
    }
}
