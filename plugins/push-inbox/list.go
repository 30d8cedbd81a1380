package main

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// message is a row of the feature's results: the items of PROTOCOL 10.3, with
// what the host knows besides. Absent is unknown, or not yet.
type message struct {
	ID                 string `json:"id"`
	ClientMessageID    string `json:"client_message_id,omitempty"`
	BrokerMessageID    string `json:"broker_message_id,omitempty"`
	Mesh               string `json:"mesh"`
	Kind               string `json:"kind" doc:"direct, broadcast or webhook"`
	SenderPubkey       string `json:"sender_pubkey"`
	SenderMemberPubkey string `json:"sender_member_pubkey,omitempty"`
	SenderName         string `json:"sender_name,omitempty"`
	RecipientPubkey    string `json:"recipient_pubkey,omitempty"`
	RecipientKind      string `json:"recipient_kind,omitempty" doc:"member or session"`
	Priority           string `json:"priority,omitempty"`
	Subtype            string `json:"subtype,omitempty"`
	ReplyToID          string `json:"reply_to_id,omitempty"`
	Body               string `json:"body" doc:"The text; empty if it is not text or cannot be opened."`
	BodyBase64         string `json:"body_base64,omitempty" doc:"The body where it is not UTF-8."`
	Undecryptable      bool   `json:"undecryptable,omitempty" doc:"True if no key of ours opens the message."`
	CreatedAt          string `json:"created_at,omitempty" doc:"By the broker's clock."`
	ReceivedAt         string `json:"received_at,omitempty"`
	SeenAt             string `json:"seen_at,omitempty"`
}

// readMessage reads a row of columns.
func readMessage(stmt *sqlite.Stmt) message {
	m := message{
		ID: stmt.ColumnText(1), ClientMessageID: stmt.ColumnText(2), BrokerMessageID: stmt.ColumnText(3),
		Mesh: stmt.ColumnText(4), Kind: stmt.ColumnText(5), SenderPubkey: stmt.ColumnText(6),
		SenderMemberPubkey: stmt.ColumnText(7), SenderName: stmt.ColumnText(8), RecipientPubkey: stmt.ColumnText(9),
		RecipientKind: stmt.ColumnText(10), Priority: stmt.ColumnText(11), Subtype: stmt.ColumnText(12),
		ReplyToID: stmt.ColumnText(13), Undecryptable: stmt.ColumnInt64(15) == 1,
		CreatedAt: stamp(stmt.ColumnInt64(16)), ReceivedAt: stamp(stmt.ColumnInt64(17)), SeenAt: stamp(stmt.ColumnInt64(18)),
	}
	switch body := sqlitefile.Blob(stmt, 14); {
	case m.Undecryptable: // never shown as text, whatever is stored
	case utf8.Valid(body):
		m.Body = string(body)
	default:
		m.BodyBase64 = base64.StdEncoding.EncodeToString(body)
	}
	return m
}

// stamp is a time as the local API writes it; 0 is "".
func stamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// scope is which messages a caller sees: of a mesh, and as a session only its
// own and the member's (PROTOCOL 10.2).
type scope struct {
	mesh, identity string
}

func (w scope) conditions(where []string, args []any) ([]string, []any) {
	if w.mesh != "" {
		args = append(args, w.mesh)
		where = append(where, "mesh = ?"+strconv.Itoa(len(args)))
	}
	if w.identity != "" {
		args = append(args, w.identity)
		where = append(where, "(recipient_kind <> 'session' OR recipient_pubkey = ?"+strconv.Itoa(len(args))+")")
	}
	return where, args
}

// query chooses messages.
type query struct {
	scope
	limit  int
	unread bool
	after  string // id of a message; then the order is oldest first
	since  int64
	from   string
}

// maxAnswer bounds the messages of one answer as JSON: what passes between two
// processes has at most 16 MiB.
const maxAnswer = 8 << 20

// list returns messages, newest first; behind a cursor oldest first. It stops
// where the next one would not fit; more says so.
func (s *store) list(ctx context.Context, q query) (found []message, more bool, err error) {
	err = s.file.Read(ctx, func(conn *sqlite.Conn) error {
		found, more = []message{}, false
		size := 0
		after := int64(-1)
		if q.after != "" {
			var err error
			if after, err = arrivalOf(conn, q.after); err != nil {
				return err
			}
		}
		sql, args := q.statement(after)
		return sqlitefile.Each(conn, sql, func(stmt *sqlite.Stmt) (bool, error) {
			m := readMessage(stmt)
			raw, err := json.Marshal(m)
			if err != nil {
				return false, err
			}
			if size += len(raw) + 1; size > maxAnswer && len(found) > 0 {
				more = true
				return false, nil
			}
			found = append(found, m)
			return true, nil
		}, args...)
	})
	return found, more, err
}

func (q query) statement(after int64) (string, []any) {
	where, args := q.conditions(nil, nil)
	mark := func(v any) string {
		args = append(args, v)
		return "?" + strconv.Itoa(len(args))
	}
	order := "DESC"
	if after >= 0 {
		order = "ASC"
		where = append(where, "n > "+mark(after))
	}
	if q.unread {
		where = append(where, "seen_at = 0")
	}
	if q.since > 0 {
		where = append(where, "received_at >= "+mark(q.since))
	}
	if q.from != "" {
		m := mark(q.from)
		or := "sender_pubkey = " + m + " OR sender_member_pubkey = " + m + " OR sender_name = " + m + " COLLATE NOCASE"
		if isKeyPrefix(q.from) {
			low := mark(strings.ToLower(q.from) + "%")
			or += " OR sender_pubkey LIKE " + low + " OR sender_member_pubkey LIKE " + low
		}
		where = append(where, "("+or+")")
	}
	sql := "SELECT " + columns + " FROM messages"
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	return sql + " ORDER BY n " + order + " LIMIT " + mark(q.limit), args
}

// isKeyPrefix reports whether s can name a public key: 8 hex digits or more.
func isKeyPrefix(s string) bool {
	return len(s) >= 8 && len(s) <= 64 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// arrivalOf finds the place of a message, even of one that was deleted.
func arrivalOf(conn *sqlite.Conn, id string) (n int64, err error) {
	k := keyOf("id|", id)
	found, err := sqlitefile.One(conn, sqlFind, func(stmt *sqlite.Stmt) { n = stmt.ColumnInt64(0) }, k[:])
	if err == nil && !found {
		err = notFound(id)
	}
	return n, err
}

func notFound(id string) error {
	return sdk.Errorf(sdk.CodeNotFound, "no_message", "the inbox has no message %q", id).
		WithNext("list the ids with: meshhost inbox list")
}

// show returns one message.
func (s *store) show(ctx context.Context, id string, w scope) (m message, err error) {
	err = s.file.Read(ctx, func(conn *sqlite.Conn) error {
		n, err := arrivalOf(conn, id)
		if err != nil {
			return err
		}
		where, args := w.conditions([]string{"n = ?1", "id = ?2"}, []any{n, id})
		found, err := sqlitefile.One(conn, "SELECT "+columns+" FROM messages WHERE "+strings.Join(where, " AND "),
			func(stmt *sqlite.Stmt) { m = readMessage(stmt) }, args...)
		if err == nil && !found {
			err = notFound(id)
		}
		return err
	})
	return m, err
}
