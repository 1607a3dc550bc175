package secretstest

// The HTTP side: one request, from its signature to its answer, in the AWS JSON 1.1
// protocol (https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html).

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const maxRequest = 1 << 20

// apiError is an error of the API's.
type apiError struct {
	status        int
	code, message string
}

var errNotFound = &apiError{http.StatusBadRequest, "ResourceNotFoundException", "Secrets Manager can't find the specified secret."}

// request is what the four operations are asked with.
type request struct {
	SecretID            string   `json:"SecretId"`
	VersionID           string   `json:"VersionId"`
	VersionStage        string   `json:"VersionStage"`
	ClientRequestToken  string   `json:"ClientRequestToken"`
	SecretString        string   `json:"SecretString"`
	VersionStages       []string `json:"VersionStages"`
	MoveToVersionID     string   `json:"MoveToVersionId"`
	RemoveFromVersionID string   `json:"RemoveFromVersionId"`
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return
	}
	s.mu.Lock()
	s.stats.Requests++
	latency := s.latency
	s.mu.Unlock()
	if latency > 0 {
		delay := time.NewTimer(latency)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
	if refused := s.checkSignature(r, body); refused != nil {
		s.mu.Lock()
		s.stats.Unsigned++
		s.mu.Unlock()
		answerError(w, refused)
		return
	}
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")
	if s.misbehave(w, r, operation) {
		return
	}
	var in request
	if json.Unmarshal(body, &in) != nil {
		answerError(w, &apiError{http.StatusBadRequest, "SerializationException", "The request is not valid JSON."})
		return
	}
	out, failed := s.operate(operation, &in)
	if failed != nil {
		answerError(w, failed)
		return
	}
	answer(w, http.StatusOK, out)
}

// operate performs the operation.
func (s *Server) operate(operation string, in *request) (map[string]any, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	perform, ok := map[string]func(*secret, *request) (map[string]any, *apiError){
		"GetSecretValue":           (*secret).getSecretValue,
		"DescribeSecret":           (*secret).describe,
		"PutSecretValue":           (*secret).putSecretValue,
		"UpdateSecretVersionStage": (*secret).updateStage,
	}[operation]
	if !ok {
		return nil, &apiError{http.StatusBadRequest, "UnknownOperationException", "secretstest does not know the operation " + operation + "."}
	}
	s.count(operation)
	if in.SecretID == "" {
		return nil, &apiError{http.StatusBadRequest, "InvalidParameterException", "You must provide a SecretId."}
	}
	sec := s.find(in.SecretID)
	if sec == nil {
		return nil, errNotFound
	}
	return perform(sec, in)
}

// count counts a request for an operation. mu is held.
func (s *Server) count(operation string) {
	switch operation {
	case "GetSecretValue":
		s.stats.GetSecretValue++
	case "DescribeSecret":
		s.stats.DescribeSecret++
	case "PutSecretValue":
		s.stats.PutSecretValue++
	case "UpdateSecretVersionStage":
		s.stats.UpdateSecretVersionStage++
	}
}

// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
func (sec *secret) getSecretValue(in *request) (map[string]any, *apiError) {
	var v *version
	switch {
	case in.VersionID != "":
		v = sec.versions[in.VersionID]
		if v != nil && in.VersionStage != "" && !slices.Contains(v.stages, in.VersionStage) {
			v = nil
		}
	case in.VersionStage != "":
		v = sec.staged(in.VersionStage)
	default:
		v = sec.staged(stageCurrent)
	}
	if v == nil {
		return nil, &apiError{http.StatusBadRequest, "ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: " + in.VersionStage}
	}
	return map[string]any{
		"ARN": sec.arn, "Name": sec.name, "VersionId": v.id, "SecretString": v.value,
		"VersionStages": slices.Clone(v.stages), "CreatedDate": epoch(v.created),
	}, nil
}

// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html
func (sec *secret) describe(*request) (map[string]any, *apiError) {
	return map[string]any{
		"ARN": sec.arn, "Name": sec.name, "CreatedDate": epoch(sec.created), "VersionIdsToStages": sec.stages(),
	}, nil
}

// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html
func (sec *secret) putSecretValue(in *request) (map[string]any, *apiError) {
	id := in.ClientRequestToken
	if id == "" {
		id = newID()
	}
	v := sec.versions[id]
	switch {
	case v == nil:
		v = sec.add(id, in.SecretString)
	case v.value != in.SecretString:
		return nil, &apiError{http.StatusBadRequest, "ResourceExistsException", "The operation failed because the secret version " + id + " already exists."}
	}
	stages := in.VersionStages
	if len(stages) == 0 {
		stages = []string{stageCurrent}
	}
	for _, stage := range stages {
		sec.move(stage, v)
	}
	return map[string]any{"ARN": sec.arn, "Name": sec.name, "VersionId": v.id, "VersionStages": slices.Clone(v.stages)}, nil
}

// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html
func (sec *secret) updateStage(in *request) (map[string]any, *apiError) {
	holder := sec.staged(in.VersionStage)
	if holder != nil && in.MoveToVersionID != "" && holder.id != in.MoveToVersionID && in.RemoveFromVersionID != holder.id {
		return nil, &apiError{http.StatusBadRequest, "InvalidParameterException", "The parameter RemoveFromVersionId can't be empty. Staging label " + in.VersionStage + " is currently attached to version " + holder.id + "."}
	}
	if in.MoveToVersionID == "" {
		if holder == nil || holder.id != in.RemoveFromVersionID {
			return nil, &apiError{http.StatusBadRequest, "InvalidParameterException", "The staging label is not attached to this version."}
		}
		sec.remove(in.VersionStage)
		return map[string]any{"ARN": sec.arn, "Name": sec.name}, nil
	}
	v := sec.versions[in.MoveToVersionID]
	if v == nil {
		return nil, &apiError{http.StatusBadRequest, "ResourceNotFoundException", "Secrets Manager can't find the specified secret version."}
	}
	sec.move(in.VersionStage, v)
	return map[string]any{"ARN": sec.arn, "Name": sec.name}, nil
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func answerError(w http.ResponseWriter, e *apiError) {
	w.Header().Set("X-Amzn-Errortype", e.code)
	answer(w, e.status, map[string]any{"__type": e.code, "Message": e.message, "message": e.message})
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", newID())
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
