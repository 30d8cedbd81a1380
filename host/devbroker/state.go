package devbroker

import (
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// maxState bounds the bytes of shared state of a mesh. The reference has no bound but the frame; past this one a
// set_state fails in silence, as it does there when the database refuses.
const maxState = 128 << 20

// stateEntry is one key of a mesh's shared state.
type stateEntry struct {
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"by"`
	UpdatedAt time.Time      `json:"at"`
}

type stateChange struct {
	Type      string         `json:"type"`
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
}

type stateRow struct {
	Type      string         `json:"type,omitzero"`
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
	UpdatedAt string         `json:"updatedAt"`
	ReqID     reqID          `json:"_reqId,omitzero"`
}

// onSetState stores and tells all other connections; the setter hears nothing. Null or no value does nothing (PROTOCOL 7.2).
func (t *turn) onSetState(msg []byte, _ reqID) {
	var f struct {
		Key   text           `json:"key"`
		Value jsontext.Value `json:"value"`
	}
	if unmarshal(msg, &f) != nil || !f.Key.OK || len(f.Value) == 0 || f.Value.Kind() == 'n' {
		return
	}
	if f.Value = plain(f.Value); f.Value == nil {
		return
	}
	p := t.c.presence
	grown := t.m.sized + len(f.Key.S) + len(f.Value) - t.m.state[f.Key.S].size(f.Key.S)
	if grown > maxState {
		t.m.b.log.Warn("shared state full: set_state ignored", "mesh", t.m.slug, "limit_bytes", maxState)
		return
	}
	t.m.sized = grown
	e := stateEntry{Value: f.Value, UpdatedBy: p.member.DisplayName, UpdatedAt: t.now}
	t.m.state[f.Key.S] = e
	t.record(record{Op: opState, Key: f.Key.S, State: &e})
	var frame []byte
	for _, q := range t.m.live {
		if q == p || q.conn == nil || !q.conn.open() {
			continue
		}
		if frame == nil {
			frame = t.encode(stateChange{"state_change", f.Key.S, f.Value, e.UpdatedBy})
		}
		t.raw(q.conn, frame)
	}
}

// size is what an entry counts for; a missing one counts nothing.
func (e stateEntry) size(key string) int {
	if e.Value == nil {
		return 0
	}
	return len(key) + len(e.Value)
}

func (e stateEntry) row(key string) stateRow {
	return stateRow{Key: key, Value: e.Value, UpdatedBy: e.UpdatedBy, UpdatedAt: iso(e.UpdatedAt)}
}

func (t *turn) onGetState(msg []byte, r reqID) {
	var f struct {
		Key text `json:"key"`
	}
	if unmarshal(msg, &f) != nil || !f.Key.OK {
		return
	}
	out := stateRow{Key: f.Key.S, Value: jsontext.Value("null")}
	if e, ok := t.m.state[f.Key.S]; ok {
		out = e.row(f.Key.S)
	}
	out.Type, out.ReqID = "state_result", echo(r)
	t.reply(out)
}

func (t *turn) onListState(_ []byte, r reqID) {
	out := struct {
		Type    string     `json:"type"`
		Entries []stateRow `json:"entries"`
		ReqID   reqID      `json:"_reqId,omitzero"`
	}{Type: "state_list", Entries: []stateRow{}, ReqID: echo(r)}
	for _, key := range slices.Sorted(maps.Keys(t.m.state)) {
		out.Entries = append(out.Entries, t.m.state[key].row(key))
	}
	t.reply(out)
}
