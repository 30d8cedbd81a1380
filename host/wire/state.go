package wire

import "github.com/go-json-experiment/json/jsontext"

// SetState writes a key of the mesh's shared state (PROTOCOL 7.2). No reply, and a null value is dropped in silence.
type SetState struct {
	Key   string         `json:"key"`
	Value jsontext.Value `json:"value,omitzero"`
}

// FrameType returns "set_state".
func (SetState) FrameType() string { return TypeSetState }

// GetState reads a key of the mesh's shared state.
type GetState struct {
	Key   string `json:"key"`
	ReqID string `json:"_reqId,omitzero"`
}

// FrameType returns "get_state".
func (GetState) FrameType() string { return TypeGetState }

// StateResult answers get_state; a missing key has the value null and an empty UpdatedAt.
type StateResult struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
	UpdatedAt string         `json:"updatedAt"` // ISO or ""
	ReqID     string         `json:"_reqId,omitzero"`
}

// FrameType returns "state_result".
func (StateResult) FrameType() string { return TypeStateResult }

// ListState reads the whole shared state.
type ListState struct {
	ReqID string `json:"_reqId,omitzero"`
}

// FrameType returns "list_state".
func (ListState) FrameType() string { return TypeListState }

// StateEntry is one row of a [StateList].
type StateEntry struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
	UpdatedAt string         `json:"updatedAt"` // ISO
}

// StateList answers list_state, sorted by key.
type StateList struct {
	Entries []StateEntry `json:"entries"`
	ReqID   string       `json:"_reqId,omitzero"`
}

// FrameType returns "state_list".
func (StateList) FrameType() string { return TypeStateList }

// StateChange tells all other connections of a write to the shared state (PROTOCOL 5.2).
type StateChange struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
}

// FrameType returns "state_change".
func (StateChange) FrameType() string { return TypeStateChange }
