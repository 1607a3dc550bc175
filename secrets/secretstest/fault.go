package secretstest

// Misbehaviour on demand.

import (
	"net/http"
	"time"
)

// Fault is a way to fail.
type Fault int

// What [Server.Fail] can make the service do.
const (
	None             Fault = iota
	Throttled              // 400 ThrottlingException
	InternalError          // 500 InternalServiceError
	Unavailable            // 503 with no body, as a load balancer answers
	AccessDenied           // 400 AccessDeniedException
	DecryptionFailed       // 400 DecryptionFailure
	NotFound               // 400 ResourceNotFoundException
	Scheduled              // 400 InvalidRequestException: scheduled for deletion
	Silent                 // no answer until the client gives up
	Cut                    // the connection is closed without an answer
	Garbled                // 200 and a body that is cut off within the secret
)

// Fail makes all further requests fail in this way, until Fail(None). Those of [Server.Rotate]
// fail too.
func (s *Server) Fail(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.faulty = f, -1
}

// FailNext makes the next n requests fail in this way.
func (s *Server) FailNext(n int, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.faulty = f, n
}

// SetLatency delays each answer by d.
func (s *Server) SetLatency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// nextFault takes one from the budget of faults.
func (s *Server) nextFault(operation string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == None || s.faulty == 0 {
		return None
	}
	if s.faulty > 0 {
		s.faulty--
	}
	s.stats.Faults++
	s.count(operation)
	return s.fault
}

// misbehave answers as the fault of the hour wants, and reports whether there is one.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, operation string) bool {
	switch s.nextFault(operation) {
	case None:
		return false
	case Throttled:
		answerError(w, &apiError{http.StatusBadRequest, "ThrottlingException", "Rate exceeded"})
	case InternalError:
		answerError(w, &apiError{http.StatusInternalServerError, "InternalServiceError", "An error occurred on the server side."})
	case Unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case AccessDenied:
		answerError(w, &apiError{http.StatusBadRequest, "AccessDeniedException", "User: arn:aws:iam::" + account + ":user/test is not authorized to perform: secretsmanager:" + operation + " on resource: the secret because no identity-based policy allows the action"})
	case DecryptionFailed:
		answerError(w, &apiError{http.StatusBadRequest, "DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key."})
	case NotFound:
		answerError(w, errNotFound)
	case Scheduled:
		answerError(w, &apiError{http.StatusBadRequest, "InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion."})
	case Silent:
		select {
		case <-r.Context().Done():
		case <-s.closed:
		}
	case Cut:
		panic(http.ErrAbortHandler) // net/http's way to close the connection
	case Garbled:
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_, _ = w.Write([]byte(`{"Name":"garbled","SecretString":"{\"username\":\"app\",\"password\":\"gar-bled-Passw0rd`))
	}
	return true
}
