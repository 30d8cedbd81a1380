package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// wanted is what one identity wants to be seen as. A nil field was never set.
type wanted struct {
	Summary *string                   `json:"summary,omitzero"`
	Status  *string                   `json:"status,omitzero"`
	Visible *bool                     `json:"visible,omitzero"`
	Profile map[string]jsontext.Value `json:"profile,omitempty"`
	Groups  map[string]string         `json:"groups,omitempty"` // name -> role
	// Left are groups that a fresh presence must be told to leave: the broker
	// begins it with those of a sibling's close (PROTOCOL 2.6).
	Left map[string]bool `json:"left,omitempty"`
}

// maxGroups bounds both Groups and Left.
const maxGroups = 256

// maxWish bounds each frame that tells a presence, in bytes: the broker takes
// 65,536 (PROTOCOL 1.2), and a request id is added. Fields of a profile that fit
// one by one need not fit together.
const maxWish = 65_000

// statuses are all that the broker takes; another makes it silent, and refuse
// the nudge (PROTOCOL 4.6).
var statuses = []string{"idle", "working", "dnd"}

// isPresence reports whether frames of a type are kept.
func isPresence(frameType string) bool {
	switch frameType {
	case "set_summary", "set_status", "set_visible", "set_profile", "join_group", "leave_group":
		return true
	}
	return false
}

// presenceFrame is the part of a presence frame that is remembered (PROTOCOL
// 7.1).
type presenceFrame struct {
	Type    string  `json:"type"`
	Summary *string `json:"summary,omitzero"`
	Status  *string `json:"status,omitzero"`
	Visible *bool   `json:"visible,omitzero"`
	Name    string  `json:"name,omitempty"`
	Role    string  `json:"role,omitempty"`
}

// profileFields are what set_profile merges (PROTOCOL 7.1).
var profileFields = []string{"avatar", "title", "bio", "capabilities"}

// take merges a frame into w; false if it is no presence frame.
func (w *wanted) take(frame jsontext.Value) (bool, error) {
	var f presenceFrame
	if err := json.Unmarshal(frame, &f); err != nil {
		return false, sdk.Errorf(sdk.CodeInvalid, "bad_frame", "the frame is not understood: %v", err)
	}
	missing := func(field string) error {
		return sdk.Errorf(sdk.CodeInvalid, "bad_frame", "%s needs the field %q", f.Type, field)
	}
	switch f.Type {
	case "set_summary":
		if f.Summary == nil {
			return true, missing("summary")
		}
		w.Summary = f.Summary
	case "set_status":
		if f.Status == nil {
			return true, missing("status")
		}
		if !slices.Contains(statuses, *f.Status) {
			return true, sdk.Errorf(sdk.CodeInvalid, "bad_status", "there is no status %q", *f.Status).
				WithNext("Use one of " + strings.Join(statuses, ", ") + ".")
		}
		w.Status = f.Status
	case "set_visible":
		if f.Visible == nil {
			return true, missing("visible")
		}
		w.Visible = f.Visible
	case "set_profile":
		return true, w.takeProfile(frame)
	case "join_group":
		if f.Name == "" {
			return true, missing("name")
		}
		if _, in := w.Groups[f.Name]; !in && len(w.Groups) >= maxGroups {
			return true, sdk.Errorf(sdk.CodeFull, "too_many_groups", "this identity is in %d groups already", maxGroups).
				WithNext("Leave one: meshhost peers leave NAME.")
		}
		if w.Groups == nil {
			w.Groups = map[string]string{}
		}
		w.Groups[f.Name] = f.Role
		delete(w.Left, f.Name)
	case "leave_group":
		if f.Name == "" {
			return true, missing("name")
		}
		delete(w.Groups, f.Name)
		if w.Left == nil {
			w.Left = map[string]bool{}
		}
		for name := range w.Left {
			if len(w.Left) < maxGroups {
				break
			}
			delete(w.Left, name)
		}
		w.Left[f.Name] = true
	default:
		return false, nil
	}
	return true, nil
}

func (w *wanted) takeProfile(frame jsontext.Value) error {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(frame, &all); err != nil {
		return sdk.Errorf(sdk.CodeInvalid, "bad_frame", "set_profile: %v", err)
	}
	for _, name := range profileFields {
		if v, ok := all[name]; ok {
			if w.Profile == nil {
				w.Profile = map[string]jsontext.Value{}
			}
			w.Profile[name] = v.Clone()
		}
	}
	return nil
}

// frames are what tells a fresh presence all of it.
func (w *wanted) frames() ([]jsontext.Value, error) {
	var out []jsontext.Value
	add := func(v any) error {
		raw, err := json.Marshal(v, json.Deterministic(true))
		out = append(out, raw)
		return err
	}
	var errs []error
	if len(w.Profile) > 0 {
		f := map[string]jsontext.Value{"type": jsontext.Value(`"set_profile"`)}
		maps.Copy(f, w.Profile)
		errs = append(errs, add(f))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Left)) {
		errs = append(errs, add(presenceFrame{Type: "leave_group", Name: name}))
	}
	for _, name := range slices.Sorted(maps.Keys(w.Groups)) {
		errs = append(errs, add(presenceFrame{Type: "join_group", Name: name, Role: w.Groups[name]}))
	}
	if w.Summary != nil {
		errs = append(errs, add(presenceFrame{Type: "set_summary", Summary: w.Summary}))
	}
	if w.Status != nil {
		errs = append(errs, add(presenceFrame{Type: "set_status", Status: w.Status}))
	}
	if w.Visible != nil {
		errs = append(errs, add(presenceFrame{Type: "set_visible", Visible: w.Visible}))
	}
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("encode presence: %w", err)
		}
	}
	return out, nil
}

// fits reports whether a presence can be told all of it.
func (w *wanted) fits() error {
	frames, err := w.frames()
	if err != nil {
		return err
	}
	for _, f := range frames {
		if typ, _ := splitFrame(f); len(f) > maxWish {
			return sdk.Errorf(sdk.CodeInvalid, "presence_too_large", "%s would take %d bytes with what was set before, at most %d are possible", typ, len(f), maxWish).
				WithNext("Shorten it; of a profile, any of its fields.")
		}
	}
	return nil
}

// presences keeps what each identity wants, on disk before it is told to the
// mesh: the broker's own memory of it is overwritten by any sibling's close
// (PROTOCOL 2.6).
type presences struct {
	store *store.Store

	mu sync.Mutex
	m  map[presenceKey]*wanted
}

type presenceKey struct{ mesh, identity string }

// loadPresences reads what earlier runs kept.
func loadPresences(ctx context.Context, st *store.Store) (*presences, error) {
	rows, err := st.Presences(ctx)
	if err != nil {
		return nil, err
	}
	p := &presences{store: st, m: map[presenceKey]*wanted{}}
	for _, row := range rows {
		w := &wanted{}
		if err := json.Unmarshal(row.Doc, w); err != nil {
			return nil, fmt.Errorf("presence of %s on mesh %q: %w", row.Identity, row.Mesh, err)
		}
		p.m[presenceKey{row.Mesh, row.Identity}] = w
	}
	return p, nil
}

// record keeps a presence frame; false if it is another kind of frame.
func (p *presences) record(ctx context.Context, mesh, identity string, frame jsontext.Value) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := presenceKey{mesh, identity}
	next := &wanted{}
	if w := p.m[key]; w != nil {
		*next = *w
		next.Profile, next.Groups, next.Left = maps.Clone(w.Profile), maps.Clone(w.Groups), maps.Clone(w.Left)
	}
	is, err := next.take(frame)
	if !is || err != nil {
		return is, err
	}
	if err := next.fits(); err != nil {
		return true, err
	}
	doc, err := json.Marshal(next, json.Deterministic(true))
	if err != nil {
		return true, fmt.Errorf("encode presence: %w", err)
	}
	if err := p.store.PutPresence(ctx, store.Presence{Mesh: mesh, Identity: identity, Doc: doc}); err != nil {
		return true, err
	}
	p.m[key] = next
	return true, nil
}

// frames are what a fresh presence of an identity must be told.
func (p *presences) frames(mesh, identity string) ([]jsontext.Value, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.m[presenceKey{mesh, identity}]; w != nil {
		return w.frames()
	}
	return nil, nil
}

// status is the one that is wanted, for the nudge (PROTOCOL 4.6); idle by default.
func (p *presences) status(mesh, identity string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.m[presenceKey{mesh, identity}]; w != nil && w.Status != nil {
		return *w.Status
	}
	return "idle"
}
