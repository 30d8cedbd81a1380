package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestItWorksBehindTheWire(t *testing.T) {
	p := plugintest.Start(t, (&inbox{}).plugin())
	p.MustConfigure("")
	pushes := []sdk.Push{push(1), push(2)}
	for range 2 {
		out, err := p.PushHandler().Handle(t.Context(), pushes)
		if err != nil || len(out) != 2 || out[0].Decision != sdk.Ack || out[1].Decision != sdk.Ack {
			t.Fatalf("%+v %v", out, err)
		}
	}
	raw, err := p.Feature().Call(t.Context(), sdk.Call{Method: "list"})
	if err != nil {
		t.Fatal(err)
	}
	var res listResult
	if err := json.Unmarshal(raw, &res); err != nil || len(res.Messages) != 2 || res.Messages[0].Body != "text 2" {
		t.Fatalf("%s %v", raw, err)
	}
	if _, err := os.Stat(filepath.Join(p.DataDir, "inbox.db")); err != nil {
		t.Fatal(err)
	}
}
