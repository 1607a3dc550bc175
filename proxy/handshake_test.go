package proxy

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"
)

// However the network cuts a login into pieces, it is read message by message, and recorded from
// AuthenticationOk to ReadyForQuery.
func TestALoginInPieces(t *testing.T) {
	t.Parallel()
	encode := func(messages ...pgproto3.BackendMessage) (b []byte) {
		for _, m := range messages {
			var err error
			if b, err = m.Encode(b); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	before := encode(
		&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "before"},
		&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}},
		&pgproto3.AuthenticationSASLContinue{Data: []byte("r=x,s=eA==,i=4096")},
		&pgproto3.AuthenticationSASLFinal{Data: []byte("v=eA==")},
	)
	login := encode(
		&pgproto3.AuthenticationOk{},
		&pgproto3.ParameterStatus{Name: "server_version", Value: "17.9"},
		&pgproto3.BackendKeyData{ProcessID: 42, SecretKey: []byte{1, 2, 3, 4}},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	)
	behind := encode(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "behind"})
	whole := bytes.Join([][]byte{before, login, behind}, nil)

	ways := map[string]io.Reader{"byte by byte": iotest.OneByteReader(bytes.NewReader(whole))}
	for i := range len(whole) + 1 {
		ways[fmt.Sprint("cut at ", i)] = io.MultiReader(bytes.NewReader(whole[:i]), bytes.NewReader(whole[i:]))
	}
	for way, r := range ways {
		t.Run(way, func(t *testing.T) {
			var (
				l    = &loginReader{r: r}
				read []byte
				p    = make([]byte, 8192)
			)
			for l.state != recorded {
				n, err := l.Read(p)
				if err != nil {
					t.Fatal(err)
				}
				read = append(read, p[:n]...)
			}
			if !bytes.Equal(read, append(bytes.Clone(before), login...)) || !bytes.Equal(l.recorded, login) {
				t.Errorf("read %q, recorded %q", read, l.recorded)
			}
			rest, err := io.ReadAll(l.r)
			if got := append(l.buf, rest...); err != nil || !bytes.Equal(got, behind) {
				t.Errorf("behind it is %q, %v", got, err)
			}
		})
	}
}
