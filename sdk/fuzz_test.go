package sdk

import (
	"testing"

	"google.golang.org/protobuf/proto"

	outboxv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/outbox/v1"
	pushv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/push/v1"
)

// What a host sends is read without a panic, and what is accepted has a kind.
func FuzzRequestsFromProto(f *testing.F) {
	seed, err := proto.Marshal(&outboxv1.ApplyRequest{Ops: []*outboxv1.Op{{Kind: 1, Entry: &outboxv1.Entry{Id: "e"}}, {Kind: 6, Lane: "l", Target: "t"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var apply outboxv1.ApplyRequest
		if proto.Unmarshal(raw, &apply) == nil {
			ops, err := opsFromProto(apply.GetOps())
			for i := range ops {
				if err == nil && (ops[i].Kind == "" || ops[i].Kind == OpAppend && ops[i].Entry == nil) {
					t.Fatalf("accepted op %+v", ops[i])
				}
			}
		}
		var handle pushv1.HandleRequest
		if proto.Unmarshal(raw, &handle) == nil {
			for _, p := range handle.GetPushes() {
				var push Push
				if pushFromProto(&push, p) == nil && push.Kind == "" {
					t.Fatalf("accepted push %+v", push)
				}
			}
		}
	})
}
