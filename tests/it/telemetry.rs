/// Requests that are answered: every span of them, to the nanosecond.
mod answered;
