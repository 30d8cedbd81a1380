package main

import (
	"sync"

	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"zombiezen.com/go/sqlite"
)

// maxNames bounds the texts that are kept in memory, of each of the two maps;
// the rest is read again.
const maxNames = 1 << 16

// nameSpan is how many seqs ahead a name is promised to be in use, so that its
// row is written once for so many.
const nameSpan = 1 << 16

// name is a text's place in table name.
type name struct {
	id    int64
	until int64
}

// names are the texts by number, for readers. A number is never given to
// another text once it is committed, so what was read stays true; what the
// writer read of a transaction that was undone is forgotten.
type names struct {
	mu   sync.RWMutex
	text map[int64]string
}

// of reads the text of a number.
func (n *names) of(conn *sqlite.Conn, id int64) (string, error) {
	n.mu.RLock()
	text, ok := n.text[id]
	n.mu.RUnlock()
	if ok {
		return text, nil
	}
	found, err := sqlitefile.One(conn, sqlNameText, func(stmt *sqlite.Stmt) { text = stmt.ColumnText(0) }, id)
	if err != nil {
		return "", err
	}
	if !found {
		return "", damaged("a row with text %d, which is missing", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.text == nil || len(n.text) >= maxNames {
		n.text = map[int64]string{}
	}
	n.text[id] = text
	return text, nil
}

func (n *names) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = nil
}

// findName is the number of a text; 0 if no row ever had it.
func findName(conn *sqlite.Conn, text string) (id int64, err error) {
	_, err = sqlitefile.One(conn, sqlName, func(stmt *sqlite.Stmt) { id = stmt.ColumnInt64(0) }, text)
	return id, err
}

// name is the number of a text for a row of that seq; a new text gets one.
func (t *tx) name(text string, seq int64) (int64, error) {
	n, ok := t.names[text]
	if !ok {
		_, err := sqlitefile.One(t.conn, sqlName, func(stmt *sqlite.Stmt) {
			n = name{id: stmt.ColumnInt64(0), until: stmt.ColumnInt64(1)}
		}, text)
		if err != nil {
			return 0, err
		}
	}
	if n.id != 0 && seq <= n.until {
		if !ok {
			t.keepName(text, n)
		}
		return n.id, nil
	}
	query := sqlSetName
	if n.id == 0 {
		t.lastName++
		t.dirty = true
		n.id, query = t.lastName, sqlAddName
	}
	n.until = seq + nameSpan
	if err := sqlitefile.Run(t.conn, query, n.id, n.until, text); err != nil {
		return 0, err
	}
	t.keepName(text, n)
	return n.id, nil
}

// stretchNames promises the names of a row for the seq to which it moves.
func (t *tx) stretchNames(from, seq int64) error {
	texts := make([]string, 0, 5)
	found, err := sqlitefile.One(t.conn, sqlNamesOf, func(stmt *sqlite.Stmt) {
		for col := range 5 {
			texts = append(texts, stmt.ColumnText(col))
		}
	}, from)
	if err == nil && !found {
		err = damaged("row %d with a text that is missing", from)
	}
	for i := 0; i < len(texts) && err == nil; i++ {
		_, err = t.name(texts[i], seq)
	}
	return err
}

func (t *tx) keepName(text string, n name) {
	if len(t.names) >= maxNames {
		clear(t.names)
	}
	t.names[text] = n
}

// forgetNames drops the texts that no row can have any more.
func (s *store) forgetNames(conn *sqlite.Conn) error {
	first := s.lastSeq + 1
	if _, err := sqlitefile.One(conn, sqlFirstSeq, func(stmt *sqlite.Stmt) { first = stmt.ColumnInt64(0) }); err != nil {
		return err
	}
	if err := sqlitefile.Ints(conn, sqlForgetTops, first); err != nil {
		return err
	}
	if err := sqlitefile.Ints(conn, sqlForgetNames, first); err != nil {
		return err
	}
	if conn.Changes() > 0 {
		clear(s.names)
		s.tops = nil
	}
	return nil
}
