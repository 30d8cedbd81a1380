package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
)

func TestALongTextLeavesTheTableReadable(t *testing.T) {
	var out bytes.Buffer
	c := &call{a: &app{stdout: &out}, feature: "inbox", method: &sdk.Method{Name: "list", CLI: sdk.CLI{Columns: []string{"body", "id"}}}}
	long := strings.Repeat("é", 48_000)
	err := c.table([]jsontext.Value{jsontext.Value(`{"body":"` + long + `","id":"m2"}`), jsontext.Value(`{"body":"hi","id":"m1"}`)}, true)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3", len(lines))
	}
	for i, end := range []string{"ID", "é…  m2", "m1"} {
		if !strings.HasSuffix(lines[i], end) || len([]rune(lines[i])) > maxCell+10 {
			t.Errorf("line %d has %d characters and ends in %q, want at most %d and %q", i, len([]rune(lines[i])), lines[i][max(0, len(lines[i])-20):], maxCell+10, end)
		}
	}
}

func TestAnOutboxThatDoesNotAnswerIsNotCalledEmpty(t *testing.T) {
	for want, o := range map[string]control.OutboxStatus{
		"unknown": {Name: "sqlite", Durable: true, Error: "no answer"},
		"empty":   {Name: "sqlite", Durable: true},
	} {
		if got := queueWords(&o); got != want {
			t.Errorf("%+v is shown as %q, want %q", o, got, want)
		}
	}
}
