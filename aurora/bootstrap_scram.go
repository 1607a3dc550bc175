package aurora

// A password as PostgreSQL keeps it, so that nothing else has to be sent.

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// scramVerifier is what PostgreSQL stores of a password with password_encryption scram-sha-256:
// https://www.postgresql.org/docs/current/catalog-pg-authid.html, and RFC 5803.
func scramVerifier(password string) (string, error) {
	if password == "" {
		return "", errors.New("it is empty")
	}
	for _, r := range password {
		if r < ' ' || r > '~' {
			return "", errors.New("it has characters other than printable ASCII")
		}
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return scramVerifierWith(password, salt)
}

func scramVerifierWith(password string, salt []byte) (string, error) {
	const iterations = 4096 // PostgreSQL's own number
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	storedKey := sha256.Sum256(sign(salted, "Client Key"))
	encode := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encode(salt), encode(storedKey[:]), encode(sign(salted, "Server Key"))), nil
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
