package secrets

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Error is a secret that cannot be read, or cannot be used: it names the secret, the
// field where it is about one, and what was expected. It never holds a value out of
// the secret.
type Error struct {
	Secret  string // the secret's name or ARN, or the path of a file
	Field   string // "" if it is about the secret as a whole
	Problem string // what is wrong
	Fix     string // what to do about it

	err       error // the SDK's, or the file system's
	temporary bool
}

func (e *Error) Error() string {
	s := "secrets: secret " + strconv.Quote(e.Secret) + ": "
	if e.Field != "" {
		s += "field " + strconv.Quote(e.Field) + " "
	}
	s += e.Problem
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// Unwrap is the SDK's error, or the file system's, where there is one.
func (e *Error) Unwrap() error { return e.err }

// Temporary reports whether reading the secret again may succeed: Secrets Manager
// throttled, was not reachable or failed.
func (e *Error) Temporary() bool { return e.temporary }

// fetchError says what a failed GetSecretValue means. The texts of the API's errors do not
// quote secrets. An answer that cannot be decoded may: nothing of that error is kept.
// Codes: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
func fetchError(name string, err error) *Error {
	e := &Error{Secret: name, err: err}
	var (
		undecoded *smithy.DeserializationError
		api       smithy.APIError
	)
	switch {
	case errors.As(err, &undecoded):
		e.err, e.temporary = nil, true
		e.Problem = "Secrets Manager's answer could not be decoded"
		e.Fix = "something else may answer in its place: check the endpoint and any HTTP proxy"
	case errors.As(err, &api):
		e.explain(api)
	default:
		e.temporary = true
		e.Problem = "Secrets Manager cannot be asked: " + err.Error()
		e.Fix = "check AWS credentials and region, and that this subnet reaches Secrets Manager, by a NAT gateway or a VPC endpoint"
	}
	return e
}

func (e *Error) explain(api smithy.APIError) {
	code := api.ErrorCode()
	e.Problem = "Secrets Manager says " + code + ": " + api.ErrorMessage()
	var response *smithyhttp.ResponseError
	if code == "UnknownError" && errors.As(e.err, &response) { // an answer without a body, of a load balancer for instance
		e.Problem = fmt.Sprintf("Secrets Manager answers with the HTTP status %d", response.HTTPStatusCode())
	}
	switch code {
	case "ResourceNotFoundException":
		e.Fix = "check the name, the region, and that the secret has a version with this stage"
	case "AccessDeniedException":
		e.Fix = "allow secretsmanager:GetSecretValue on this secret, in the role's policy and in the secret's own; with a key of your own, kms:Decrypt as well"
	case "DecryptionFailure", "DecryptionFailureException":
		e.Fix = "allow kms:Decrypt on the secret's KMS key, and check that the key is enabled"
	case "InvalidRequestException":
		e.Fix = "the secret may be scheduled for deletion: restore it, or name another"
	case "InvalidParameterException", "ValidationException":
		e.Fix = "write the secret's name or its whole ARN"
	case "UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId", "IncompleteSignature":
		e.Fix = "check the AWS credentials"
	case "ExpiredTokenException", "RequestExpired":
		e.temporary = true
		e.Fix = "the AWS credentials have expired"
	default:
		e.temporary = true // throttling, 5xx, and what is not known to be for good
	}
}
