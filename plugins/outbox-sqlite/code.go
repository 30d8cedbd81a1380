package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// states are the numbers of the states in the file, and the order of the
// columns in table total; 0 is none.
var states = []sdk.EntryState{
	"", sdk.StatePending, sdk.StateWaiting, sdk.StateAccepted, sdk.StateDelivered,
	sdk.StateDead, sdk.StateExpired, sdk.StateCancelled,
}

func stateNumber(state sdk.EntryState) int64 {
	for i, s := range states {
		if s == state {
			return int64(i)
		}
	}
	return 0
}

func stateOf(number int64) (sdk.EntryState, error) {
	if number < 1 || number >= int64(len(states)) {
		return "", damaged("state %d", number)
	}
	return states[number], nil
}

// rare reports whether column rare repeats a state: one that few rows are in.
func rare(state sdk.EntryState) bool {
	switch state {
	case sdk.StateWaiting, sdk.StateDead, sdk.StateExpired, sdk.StateCancelled:
		return true
	default:
		return false
	}
}

// damaged is the error of what this program never writes.
func damaged(format string, args ...any) error {
	return sdk.Errorf(sdk.CodeInternal, "corrupt", "outbox: the database has %s, which nothing of this program wrote; "+
		"stop the daemon, keep a copy of the file, and rescue what is readable with: sqlite3 FILE .recover", fmt.Sprintf(format, args...))
}

// uuidBytes is the value of a UUID in its usual form; ok is false for any other
// text, which is stored as it is.
func uuidBytes(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	at := 0
	for i := 0; i < 36; i += 2 {
		if s[i] == '-' {
			i++
		}
		high, low := digits[s[i]], digits[s[i+1]]
		if high|low > 15 {
			return id, false
		}
		id[at] = high<<4 | low
		at++
	}
	return id, true
}

// digits is the value of each lower-case hexadecimal digit; 255: it is none.
var digits = func() (t [256]byte) {
	for c := range t {
		t[c] = 255
	}
	for value, c := range "0123456789abcdef" {
		t[c] = byte(value)
	}
	return t
}()

func uuidText(id []byte) string {
	var s [36]byte
	hex.Encode(s[:8], id[:4])
	hex.Encode(s[9:13], id[4:6])
	hex.Encode(s[14:18], id[6:8])
	hex.Encode(s[19:23], id[8:10])
	hex.Encode(s[24:], id[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// bindIdent binds an id: a UUID as its 16 bytes, nothing as null.
func bindIdent(stmt *sqlite.Stmt, param int, s string) {
	if s == "" {
		stmt.BindNull(param)
	} else if id, ok := uuidBytes(s); ok {
		stmt.BindBytes(param, id[:])
	} else {
		stmt.BindText(param, s)
	}
}

// ident is what bindIdent binds, for sqlitefile.Bind.
func ident(s string) any {
	if s == "" {
		return nil
	}
	if id, ok := uuidBytes(s); ok {
		return id[:]
	}
	return s
}

// columnIdent reads what bindIdent wrote.
func columnIdent(stmt *sqlite.Stmt, col int) string {
	if stmt.ColumnType(col) != sqlite.TypeBlob {
		return stmt.ColumnText(col)
	}
	var id [17]byte
	if stmt.ColumnBytes(col, id[:]) != 16 {
		return "" // as damaged as an id that is missing
	}
	return uuidText(id[:16])
}

// bindNonce binds base64 as its bytes if that says the same, else the text.
func bindNonce(stmt *sqlite.Stmt, param int, s string) {
	var raw, again [64]byte
	if n := base64.StdEncoding.DecodedLen(len(s)); n <= 48 {
		if n, err := base64.StdEncoding.Decode(raw[:], []byte(s)); err == nil {
			base64.StdEncoding.Encode(again[:], raw[:n])
			if string(again[:base64.StdEncoding.EncodedLen(n)]) == s {
				stmt.BindBytes(param, raw[:n])
				return
			}
		}
	}
	stmt.BindText(param, s)
}

// columnNonce reads what bindNonce wrote.
func columnNonce(stmt *sqlite.Stmt, col int) string {
	if stmt.ColumnType(col) != sqlite.TypeBlob {
		return stmt.ColumnText(col)
	}
	raw := make([]byte, stmt.ColumnLen(col))
	stmt.ColumnBytes(col, raw)
	return base64.StdEncoding.EncodeToString(raw)
}
