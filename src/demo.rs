//! What a newcomer sees first: a tool service to call, and a scenario that
//! shows what Fanfare does with it.
//!
//! The tools are a real remote tool service, for tests, benches and compose
//! too. Ports, servers and the command line are left to the caller, and so is
//! the logger that the tools' ledger goes to.

pub mod json;
mod render;
mod text;
pub mod view;

use tonic::Code;

/// The codes of gRPC by their numbers, as <https://grpc.io/docs/guides/status-codes/> writes them.
const CODE_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn code_name(code: Code) -> &'static str {
    CODE_NAMES[code as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name() {
        for (number, name) in (0..).zip(CODE_NAMES) {
            let code = Code::from_i32(number);
            assert_eq!(code_name(code), name);
            // `InvalidArgument` and `INVALID_ARGUMENT` are the same word.
            let debug = format!("{code:?}").to_uppercase();
            assert_eq!(debug, name.replace('_', ""));
        }
    }
}
