package proxytest

// The server side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	scramMechanism  = "SCRAM-SHA-256"
	scramIterations = 4096 // as PostgreSQL uses
)

var (
	errSCRAMProtocol = errors.New("malformed SCRAM message")
	errWrongPassword = errors.New("wrong password")
)

// scramVerifier is what a server keeps of a password. To make one takes thousands of hashes, by
// design, so there is one for each password and not for each sign-in.
type scramVerifier struct {
	password             string
	salt                 []byte
	storedKey, serverKey []byte
}

func newSCRAMVerifier(password string) (*scramVerifier, error) {
	v := &scramVerifier{password: password, salt: make([]byte, 16)}
	if _, err := rand.Read(v.salt); err != nil {
		return nil, err
	}
	salted, err := pbkdf2.Key(sha256.New, password, v.salt, scramIterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	storedKey := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	v.storedKey, v.serverKey = storedKey[:], hmacSHA256(salted, "Server Key")
	return v, nil
}

// scramExchange is one sign-in: first, then final.
type scramExchange struct {
	verifier    *scramVerifier
	gs2Header   string
	clientFirst string // without the GS2 header
	serverFirst string
	nonce       string
}

// first answers the client-first-message.
func (x *scramExchange) first(message string) (string, error) {
	// gs2-cbind-flag "," [authzid] "," client-first-message-bare. A flag of "y" says that the client
	// could bind the channel and believes we cannot, which is true; "p" wants what was not offered.
	parts := strings.SplitN(message, ",", 3)
	if len(parts) != 3 || (parts[0] != "n" && parts[0] != "y") {
		return "", errSCRAMProtocol
	}
	x.gs2Header = parts[0] + "," + parts[1] + ","
	x.clientFirst = parts[2]
	clientNonce := scramAttribute(x.clientFirst, 'r')
	if clientNonce == "" {
		return "", errSCRAMProtocol
	}
	x.nonce = clientNonce + rand.Text()
	x.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.verifier.salt), scramIterations)
	return x.serverFirst, nil
}

// final checks the client-final-message and answers it.
func (x *scramExchange) final(message string) (string, error) {
	withoutProof, proof64, ok := strings.Cut(message, ",p=")
	if !ok {
		return "", errSCRAMProtocol
	}
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != sha256.Size {
		return "", errSCRAMProtocol
	}
	binding := base64.StdEncoding.EncodeToString([]byte(x.gs2Header))
	if scramAttribute(withoutProof, 'c') != binding || scramAttribute(withoutProof, 'r') != x.nonce {
		return "", errSCRAMProtocol
	}
	authMessage := x.clientFirst + "," + x.serverFirst + "," + withoutProof
	signature := hmacSHA256(x.verifier.storedKey, authMessage)
	for i := range proof {
		proof[i] ^= signature[i]
	}
	if clientKey := sha256.Sum256(proof); !hmac.Equal(clientKey[:], x.verifier.storedKey) {
		return "", errWrongPassword
	}
	return "v=" + base64.StdEncoding.EncodeToString(hmacSHA256(x.verifier.serverKey, authMessage)), nil
}

// scramAttribute is the value of one attribute of a SCRAM message, or "".
func scramAttribute(message string, name byte) string {
	for part := range strings.SplitSeq(message, ",") {
		if len(part) > 2 && part[0] == name && part[1] == '=' {
			return part[2:]
		}
	}
	return ""
}
