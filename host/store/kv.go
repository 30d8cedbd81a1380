package store

import (
	"context"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meshhost/meshhost/sdk"
)

// The bounds of a plugin's key-value space (sdk.Host).
const (
	MaxKVKey   = 512      // bytes
	MaxKVValue = 64 << 10 // bytes
	MaxKVKeys  = 10_000   // per plugin
)

// KVGet returns a value of a plugin's space; [sdk.ErrNotFound] without one.
func (s *Store) KVGet(ctx context.Context, plugin, key string) ([]byte, error) {
	var value []byte
	found := false
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT value FROM kv WHERE plugin = ? AND key = ?", &sqlitex.ExecOptions{
			Args: []any{plugin, key},
			ResultFunc: func(stmt *sqlite.Stmt) error {
				found = true
				value = make([]byte, stmt.ColumnLen(0))
				stmt.ColumnBytes(0, value)
				return nil
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("get %q: %w", key, err)
	}
	if !found {
		return nil, sdk.Errorf(sdk.CodeNotFound, "no_key", "no key %q", key)
	}
	return value, nil
}

// KVPut stores a value durably. [sdk.ErrInvalid]: an empty or too long key, or a value over 64 KiB; [sdk.ErrFull]: a new key
// beyond 10,000.
func (s *Store) KVPut(ctx context.Context, plugin, key string, value []byte) error {
	if key == "" || len(key) > MaxKVKey {
		return sdk.Errorf(sdk.CodeInvalid, "bad_key", "a key has 1 to %d bytes, this one %d", MaxKVKey, len(key))
	}
	if len(value) > MaxKVValue {
		return sdk.Errorf(sdk.CodeInvalid, "too_large", "a value has at most %d bytes, this one %d", MaxKVValue, len(value))
	}
	if value == nil {
		value = []byte{}
	}
	full := false
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		full = false // the transaction may run twice
		n, err := execN(conn, "UPDATE kv SET value = ? WHERE plugin = ? AND key = ?", value, plugin, key)
		if err != nil || n > 0 {
			return err
		}
		count := 0
		err = sqlitex.Execute(conn, "SELECT count(*) FROM kv WHERE plugin = ?", &sqlitex.ExecOptions{
			Args: []any{plugin}, ResultFunc: func(stmt *sqlite.Stmt) error { count = stmt.ColumnInt(0); return nil },
		})
		if full = count >= MaxKVKeys; err != nil || full {
			return err
		}
		_, err = execN(conn, "INSERT INTO kv (plugin, key, value) VALUES (?, ?, ?)", plugin, key, value)
		return err
	})
	if err != nil {
		return fmt.Errorf("put %q: %w", key, err)
	}
	if full {
		return sdk.Errorf(sdk.CodeFull, "too_many_keys", "the space holds %d keys already", MaxKVKeys).WithNext("delete keys that are not needed")
	}
	return nil
}

// KVDelete removes a key; one that is not there is no error.
func (s *Store) KVDelete(ctx context.Context, plugin, key string) error {
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		_, err := execN(conn, "DELETE FROM kv WHERE plugin = ? AND key = ?", plugin, key)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	return nil
}

// KVList returns the keys that begin with prefix, sorted by their bytes.
func (s *Store) KVList(ctx context.Context, plugin, prefix string) ([]string, error) {
	keys := []string{}
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT key FROM kv WHERE plugin = ?1 AND substr(CAST(key AS BLOB), 1, ?3) = CAST(?2 AS BLOB) ORDER BY key", &sqlitex.ExecOptions{
			Args:       []any{plugin, prefix, len(prefix)},
			ResultFunc: func(stmt *sqlite.Stmt) error { keys = append(keys, stmt.ColumnText(0)); return nil },
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return keys, nil
}
