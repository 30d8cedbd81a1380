package config

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// options are what an author writes: every type with a default, and each also as it stands in a file.
type options struct {
	Text   string            `mesh:"text" default:"a \"b\""`
	Count  int64             `mesh:"count" default:"9007199254740993"`
	Share  float64           `mesh:"share" default:"0.5"`
	Flag   bool              `mesh:"flag" default:"true"`
	Wait   time.Duration     `mesh:"wait" default:"1m30s"`
	Size   sdk.Bytes         `mesh:"size" default:"64 kB"`
	Path   sdk.Path          `mesh:"path" default:"x.db"`
	Token  sdk.Secret        `mesh:"token" default:"none"`
	When   sdk.Expr          `mesh:"when" default:"peer.ok && now > 5" variables:"peer,now"`
	Tags   []string          `mesh:"tags" default:"[\"a\", \"b\"]"`
	Limits map[string]uint16 `mesh:"limits" default:"{\"a\": 1}"`
	One    struct {
		When sdk.Expr `mesh:"when" default:"peer.ok" variables:"peer"`
	} `mesh:"one,block"`
	Many []struct {
		Wait time.Duration `mesh:"wait" default:"5s"`
	} `mesh:"many,block"`
}

func TestWhatTheSDKDeclaresTheHostUnderstands(t *testing.T) {
	home(t)
	schema := sdk.Configured(func(context.Context, options, sdk.Env) error { return nil }, nil).Schema()
	read := func(body string) options {
		t.Helper()
		u := use(t, body)
		value, ds := u.DecodePlugin(schema)
		if ds.HasErrors() {
			t.Fatal(text(t, ds))
		}
		c, diags := sdk.DecodeConfig[options](value)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", value, diags)
		}
		if c.Path != sdk.Path(filepath.Join(u.DataDir, "x.db")) || c.Token.Reveal() != "none" {
			t.Errorf("path %q, token %q", c.Path, c.Token.Reveal())
		}
		c.When.File, c.When.Line, c.When.Column, c.Path, c.Token = "", 0, 0, "", sdk.Secret{}
		c.One.When.File, c.One.When.Line, c.One.When.Column = "", 0, 0
		return c
	}
	defaults := read("one {}\nmany {}\n")
	want := options{Text: `a "b"`, Count: 9007199254740993, Share: 0.5, Flag: true, Wait: 90 * time.Second, Size: 64_000, Tags: []string{"a", "b"}, Limits: map[string]uint16{"a": 1}}
	want.When = sdk.Expr{Source: "peer.ok && now > 5", Variables: []string{"now", "peer"}}
	want.One.When = sdk.Expr{Source: "peer.ok", Variables: []string{"peer"}}
	want.Many = append(want.Many, struct {
		Wait time.Duration `mesh:"wait" default:"5s"`
	}{5 * time.Second})
	if !reflect.DeepEqual(defaults, want) {
		t.Errorf("the defaults arrive as\n%+v, want\n%+v", defaults, want)
	}
	written := read(`
text = "a \"b\""
count = 9007199254740993
share = 0.5
flag = true
wait = "1m30s"
size = "64 kB"
path = "x.db"
token = "none"
when = peer.ok && now > 5
tags = ["a", "b"]
limits = { a = 1 }
one {
  when = peer.ok
}
many {
  wait = "5s"
}
`)
	if !reflect.DeepEqual(written, want) {
		t.Errorf("what is written arrives as\n%+v, want\n%+v", written, want)
	}
}
