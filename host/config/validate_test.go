package config

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

var update = flag.Bool("update", false, "write the golden files anew; read the difference before you keep it")

// plugins are the binaries that a case's plugin_dir has.
var plugins = []string{
	"meshhost-outbox-memory", "meshhost-outbox-sqlite", "meshhost-push-inbox", "meshhost-filter-role", "meshhost-filter-rules",
	"meshhost-feature-state", "meshhost-feature-peers",
}

// schemas are what the plugins of the cases take, by ID.
var schemas = map[string]sdk.Schema{
	"outbox-sqlite": {Attributes: []sdk.Attribute{
		{Name: "path", Type: sdk.Type{Name: sdk.TypePath}, Default: jsontext.Value(`"outbox.db"`), Doc: "the database file"},
	}},
	"filter-rules": {
		Attributes: []sdk.Attribute{
			{Name: "label", Type: sdk.Type{Name: sdk.TypeString}, Required: true, Doc: "the word that lists show for what these rules hide"},
		},
		Blocks: []sdk.Block{{Name: "rule", Repeat: true, Schema: sdk.Schema{Attributes: []sdk.Attribute{
			{Name: "field", Type: sdk.Type{Name: sdk.TypeString}, Required: true},
			{Name: "pattern", Type: sdk.Type{Name: sdk.TypeString}, Required: true},
		}}}},
	},
}

// checkRules is what only the plugin knows: that a pattern is a regular expression.
func checkRules(value jsontext.Value) sdk.Diagnostics {
	var conf struct {
		Rule []struct{ Pattern string } `json:"rule"`
	}
	if err := json.Unmarshal(value, &conf, json.MatchCaseInsensitiveNames(true)); err != nil {
		return sdk.Diagnostics{sdk.Invalid(nil, err.Error(), "")}
	}
	var ds sdk.Diagnostics
	for i, r := range conf.Rule {
		if _, err := regexp.Compile(r.Pattern); err != nil {
			ds = append(ds, sdk.Invalid([]string{"rule", string(rune('0' + i)), "pattern"},
				strings.Replace(err.Error(), "error parsing regexp", "pattern is not a regular expression", 1),
				`Close the character class, such as "build-[0-9]", or write \\[ for a bracket as such.`))
		}
	}
	return ds
}

// stage copies a case to a directory of its own, with a key and plugins, and goes there.
func stage(t *testing.T, from string, keyMode os.FileMode) {
	t.Helper()
	dir := t.TempDir()
	src, err := os.ReadFile(filepath.Join(from, "mesh.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mesh.hcl"), string(src), 0o644)
	populate(t, dir, keyMode)
	t.Chdir(dir)
}

func populate(t testing.TB, dir string, keyMode os.FileMode) {
	t.Helper()
	key := filepath.Join(dir, "team.key")
	k, err := identity.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.WriteKeyFile(key, k); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, keyMode); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range plugins {
		write(t, filepath.Join(dir, "plugins", p), "#!/bin/sh\n", 0o755)
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// validate does what `meshhost validate` does, with the plugins played by schemas.
func validate(_ context.Context, path string) Diagnostics {
	c, ds := Load(path)
	if c == nil {
		return ds
	}
	for _, u := range c.Uses {
		schema := schemas[u.ID()]
		value, more := u.DecodePlugin(schema)
		ds = append(ds, more...)
		if value != nil && u.ID() == "filter-rules" {
			ds = append(ds, u.MapDiagnostics(schema, checkRules(value))...)
		}
	}
	return ds
}

func TestEveryMistakeShowsItsPlaceAndANextStep(t *testing.T) {
	if *update && os.Getenv("CI") != "" {
		t.Fatal("-update is refused where CI is set: golden files change by hand, with a look at the difference")
	}
	cases, err := filepath.Glob("testdata/validate/*/mesh.hcl")
	if err != nil || len(cases) < 12 {
		t.Fatalf("found %d cases in testdata/validate, want at least 12 (%v)", len(cases), err)
	}
	for _, file := range cases {
		dir, err := filepath.Abs(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			mode := os.FileMode(0o600)
			if name == "key-mode" {
				mode = 0o644
			}
			stage(t, dir, mode)
			ds := validate(t.Context(), "mesh.hcl")
			if !ds.HasErrors() {
				t.Error("no error")
			}
			var got strings.Builder
			if err := ds.WriteText(&got, false); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(dir, "want.txt")
			if *update {
				write(t, golden, got.String(), 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}
