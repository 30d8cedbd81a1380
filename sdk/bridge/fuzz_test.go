package bridge

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/meshhost/meshhost/sdk"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
)

// What a plugin says of itself is read without a panic, and what is accepted has
// a name, a kind, and an object wherever a JSON Schema belongs.
func FuzzDescriptionFromProto(f *testing.F) {
	seed, err := proto.Marshal(&lifecyclev1.DescribeResponse{
		Name: "n", Version: "1", Kinds: []lifecyclev1.Kind{1, 4},
		Schema: &lifecyclev1.Schema{
			Attributes: []*lifecyclev1.Attribute{{Name: "a", Type: &lifecyclev1.Type{Name: 4, Elem: &lifecyclev1.Type{Name: 1}}, DefaultJson: []byte(`["x"]`)}},
			Blocks:     []*lifecyclev1.Block{{Name: "b", Repeat: true}},
		},
		Methods: []*lifecyclev1.Method{{Name: "m", ParamsJson: []byte(`{}`), Cli: &lifecyclev1.Cli{Follow: &lifecyclev1.Follow{Key: "k"}}}},
		Wants:   []*lifecyclev1.Want{{Kinds: []string{"system"}, Events: []string{"peer_joined"}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p lifecyclev1.DescribeResponse
		if proto.Unmarshal(raw, &p) != nil {
			return
		}
		d, err := descriptionFromProto(&p)
		if err != nil {
			return
		}
		if d.Name == "" || len(d.Kinds) == 0 {
			t.Fatalf("accepted %+v", d)
		}
		for _, m := range d.Methods {
			if len(m.Params) > 0 && !isObject(m.Params) {
				t.Fatalf("accepted the schema %q", m.Params)
			}
		}
	})
}

// Entries that are accepted come back the same when they cross once more, so
// nothing half-read is accepted; a result has a code.
func FuzzOutboxRepliesFromProto(f *testing.F) {
	seed, err := proto.Marshal(&outboxv1.ListResponse{Entries: []*outboxv1.Entry{{Id: "e", State: 3, Body: []byte{1}, Seq: 4, DueAtUnixMs: -1}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var page outboxv1.ListResponse
		if proto.Unmarshal(raw, &page) == nil {
			if entries, err := entriesFromProto(page.GetEntries()); err == nil {
				for i := range entries {
					var again sdk.Entry
					var wire outboxv1.Entry
					entryToProto(&wire, &entries[i])
					if err := entryFromProto(&again, &wire); err != nil || !reflect.DeepEqual(again, entries[i]) {
						t.Fatalf("%+v came back as %+v, %v", entries[i], again, err)
					}
				}
			}
		}
		var reply outboxv1.ApplyResponse
		if proto.Unmarshal(raw, &reply) == nil {
			for _, r := range reply.GetResults() {
				var res sdk.OpResult
				if err := opResultFromProto(&res, r); err == nil && res.Code == "" {
					t.Fatalf("accepted a result without a code: %v", r)
				}
			}
		}
	})
}
