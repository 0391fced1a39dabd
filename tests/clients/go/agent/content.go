package main

import (
	"encoding/json"
	"time"

	rpc "google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	fanfare "example.com/agent/fanfare/v1"
)

// content is what the model gets to read: the observation, or what is wrong and whether to try again.
func content(result *fanfare.ToolExecutionResult) string {
	if result.GetError() == nil {
		return string(must(json.Marshal(result.GetObservation())))
	}
	failure := status.FromProto(result.GetError())
	told := object{"error": failure.Message(), "retryable": retryable(failure)}
	if wrong := detail[*rpc.BadRequest](failure).GetFieldViolations(); len(wrong) > 0 {
		told["violations"] = wrong
	}
	return string(must(json.Marshal(told)))
}

// retryDelay is after which time a failed request may be sent again, if at all.
func retryDelay(err error) (delay time.Duration, again bool) {
	failure := status.Convert(err)
	delay = detail[*rpc.RetryInfo](failure).GetRetryDelay().AsDuration()
	return max(delay, 100*time.Millisecond), retryable(failure)
}

func retryable(failure *status.Status) bool {
	return detail[*rpc.ErrorInfo](failure).GetMetadata()["retryable"] == "true"
}

// detail is the first detail of this kind that a failure has, or nil.
func detail[T any](failure *status.Status) (none T) {
	for _, each := range failure.Details() {
		if found, ok := each.(T); ok {
			return found
		}
	}
	return none
}
