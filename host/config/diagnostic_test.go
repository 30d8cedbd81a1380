package config

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/meshhost/meshhost/sdk"
)

func TestDiagnosticsAsJSON(t *testing.T) {
	home(t)
	_, ds := Parse("mesh.hcl", []byte(strings.Replace(minimal, "mesh_id ", "mesh_di ", 1)))
	got, err := json.Marshal(ds)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"severity":"error","summary":"unknown attribute \"mesh_di\" in mesh \"team\"","next":"Did you mean \"mesh_id\"?",` +
		`"file":"mesh.hcl","line":5,"column":3,"end_line":5,"end_column":10,"source":"  mesh_di         = \"mesh-1\"","caret":{"start":2,"length":7}}]`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := ds.Err(); err == nil || !strings.Contains(err.Error(), "mesh.hcl:5:3") {
		t.Errorf("as an error: %v", err)
	}
}

func TestTheCaretStandsUnderItsTokenWhateverIsBeforeIt(t *testing.T) {
	home(t)
	for name, line := range map[string]string{
		"tabs":             "\t\tdisplay_name\t= 5",
		"accents":          "  /* é ü */ display_name = 5",
		"carriage return":  "  display_name = 5\r",
		"terminal escapes": "  /* \x1b[2J */ display_name = 5",
		"a long line":      "  /* " + strings.Repeat("-", 5000) + " */ display_name = 5 /*" + strings.Repeat("-", 5000) + " */",
	} {
		t.Run(name, func(t *testing.T) {
			_, ds := Parse("mesh.hcl", []byte(strings.Replace(minimal, "  member_id", line+"\n  member_id", 1)))
			if len(ds) != 1 {
				t.Fatal(text(t, ds))
			}
			lines := strings.Split(text(t, ds), "\n")
			source, caret := []rune(lines[1]), []rune(lines[2])
			at := len(caret) - 1
			if caret[at] != '^' || source[at] != '5' || strings.Count(lines[2], "^") != 1 {
				t.Errorf("the caret is not under the 5:\n%s\n%s", lines[1], lines[2])
			}
			if strings.Count(lines[1], "\t") != strings.Count(lines[2], "\t") || strings.ContainsAny(lines[1], "\r\x1b") || len(source) > 300 {
				t.Errorf("the line is not fit to print: %q", lines[1])
			}
		})
	}
}

func TestTheCaretCountsTheColumnsOfATerminal(t *testing.T) {
	home(t)
	for name, tc := range map[string]struct{ before, value, blank, caret string }{
		"wide":      {"/* 日本語 */ ", "5", "/* ------ */ ", "^"},
		"combining": {"/* e\u0301a\u0308 */ ", "5", "/* -- */ ", "^"},
		"marked":    {"", `["日本"]`, "", "^^^^^^^^"},
	} {
		t.Run(name, func(t *testing.T) {
			_, ds := Parse("mesh.hcl", []byte(strings.Replace(minimal, "  member_id", "  "+tc.before+"display_name = "+tc.value+"\n  member_id", 1)))
			lines := strings.Split(text(t, ds), "\n")
			want := "    |   " + strings.Repeat(" ", len(tc.blank+"display_name = ")) + tc.caret
			if len(ds) != 1 || lines[2] != want {
				t.Errorf("got\n%s\nwant\n%s", text(t, ds), want)
			}
		})
	}
}

func TestColorAddsOnlyTerminalSequences(t *testing.T) {
	home(t)
	_, ds := Parse("mesh.hcl", []byte("zzz = 1\n"))
	var plain, color strings.Builder
	if err := ds.WriteText(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := ds.WriteText(&color, true); err != nil {
		t.Fatal(err)
	}
	stripped := strings.NewReplacer(ansiBold, "", ansiRed, "", ansiYellow, "", ansiReset, "").Replace(color.String())
	if stripped != plain.String() || color.String() == plain.String() {
		t.Errorf("colored %q, plain %q", color.String(), plain.String())
	}
}

func TestPluginsAreDecodedSideBySide(t *testing.T) {
	home(t)
	u := use(t, "token = \"one-two-three\"\ntxt = 1\n")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, ds := u.DecodePlugin(everything)
			if !ds.HasErrors() {
				t.Error("no error")
			}
			u.MapDiagnostics(everything, sdk.Diagnostics{sdk.Invalid([]string{"token"}, "no", "")})
		})
	}
	wg.Wait()
}

func TestSuggestions(t *testing.T) {
	known := []string{"path", "busy_timeout", "outbox", "push_handler", "send", "display_name"}
	for given, want := range map[string]string{
		"pth": "path", "paht": "path", "Path": "path", "file_path": "path", "busy_timout": "busy_timeout", "busytimeout": "busy_timeout",
		"outobx": "outbox", "push": "push_handler", "sned": "send", "name": "display_name", "x": "", "zebra": "", strings.Repeat("a", 10000): "",
	} {
		if got := suggest(given, known); got != want {
			t.Errorf("suggest(%.20q) = %q, want %q", given, got, want)
		}
	}
}

func TestDiagnosticsAreBounded(t *testing.T) {
	home(t)
	for name, src := range map[string]string{
		"a file in UTF-16":     strings.ReplaceAll(strings.Repeat(minimal, 100), "", "\x00"),
		"unknown attributes":   numbered("x%d = 1\n", 20_000),
		"one attribute often":  strings.Repeat("data_dir = \"x\"\n", 20_000),
		"options of no plugin": minimal + "peer_filter \"rules\" {\n" + numbered("x%d = 1\n", 20_000) + "}\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, ds := Parse("mesh.hcl", []byte(src))
			if c != nil || !ds.HasErrors() || len(ds) != maxShown+1 || len(text(t, ds)) > 200_000 {
				t.Fatalf("%d diagnostics, %d bytes", len(ds), len(text(t, ds)))
			}
			last := ds[len(ds)-1]
			if !strings.Contains(last.Summary, "more") || last.Next == "" || last.Severity != sdk.SeverityError {
				t.Errorf("the last one doesn't say how many are left out: %+v", last)
			}
		})
	}
	u := use(t, numbered("x%d = 1\n", 20_000))
	if _, ds := u.DecodePlugin(everything); len(ds) != maxShown+1 {
		t.Errorf("options: %d diagnostics", len(ds))
	}
	said := make(sdk.Diagnostics, 5000)
	for i := range said {
		said[i] = sdk.Diagnostic{Severity: sdk.SeverityWarning, Summary: fmt.Sprint(i, strings.Repeat(" long", 200))}
	}
	said = append(said, sdk.Invalid(nil, "the error", strings.Repeat("x", 1<<20)))
	ds := use(t, "").MapDiagnostics(everything, said)
	if len(ds) != maxShown+1 || !ds.HasErrors() {
		t.Errorf("a plugin's words: %d diagnostics, an error among them: %v", len(ds), ds.HasErrors())
	}
	if ds := use(t, "").MapDiagnostics(everything, said[5000:]); len(text(t, ds)) > 2*maxSentence {
		t.Errorf("a plugin's sentence: %d bytes", len(text(t, ds)))
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}
