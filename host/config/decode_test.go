package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
)

func attribute(name string, t sdk.Type) sdk.Attribute { return sdk.Attribute{Name: name, Type: t} }

func listOf(t sdk.Type) sdk.Type { return sdk.Type{Name: sdk.TypeList, Elem: &t} }

var (
	str    = sdk.Type{Name: sdk.TypeString}
	secret = sdk.Type{Name: sdk.TypeSecret}
)

// everything is a schema with every type in it.
var everything = sdk.Schema{
	Attributes: []sdk.Attribute{
		attribute("text", str),
		attribute("count", sdk.Type{Name: sdk.TypeNumber}),
		attribute("flag", sdk.Type{Name: sdk.TypeBool}),
		attribute("tags", listOf(str)),
		attribute("limits", sdk.Type{Name: sdk.TypeMap, Elem: &sdk.Type{Name: sdk.TypeBytes}}),
		attribute("server", sdk.Type{Name: sdk.TypeObject, Fields: []sdk.Attribute{
			{Name: "host", Type: str, Required: true},
			{Name: "port", Type: sdk.Type{Name: sdk.TypeNumber}, Default: jsontext.Value("443")},
		}}),
		attribute("wait", sdk.Type{Name: sdk.TypeDuration}),
		attribute("size", sdk.Type{Name: sdk.TypeBytes}),
		attribute("db", sdk.Type{Name: sdk.TypePath}),
		attribute("token", secret),
		attribute("when", sdk.Type{Name: sdk.TypeExpr, Variables: []string{"peer", "event"}}),
		{Name: "level", Type: str, Default: jsontext.Value(`"info"`)},
		{Name: "cache", Type: sdk.Type{Name: sdk.TypePath}, Default: jsontext.Value(`"cache"`)},
		{Name: "pages", Type: sdk.Type{Name: sdk.TypeBytes}, Default: jsontext.Value(`"4KiB"`)},
		{Name: "if", Type: sdk.Type{Name: sdk.TypeExpr, Variables: []string{"peer"}}, Default: jsontext.Value(`"peer.ok"`)},
	},
	Blocks: []sdk.Block{
		{Name: "one", Schema: sdk.Schema{Attributes: []sdk.Attribute{attribute("text", str), attribute("token", secret)}}},
		{Name: "many", Repeat: true, Schema: sdk.Schema{
			Attributes: []sdk.Attribute{{Name: "wait", Type: sdk.Type{Name: sdk.TypeDuration}, Default: jsontext.Value(`"1s"`)}},
			Blocks:     []sdk.Block{{Name: "deep", Repeat: true, Schema: sdk.Schema{Attributes: []sdk.Attribute{attribute("tags", listOf(str))}}}},
		}},
	},
}

// use loads a configuration whose peer filter has this body in its config block. The body's first line is line 13.
func use(t testing.TB, body string) *Use {
	t.Helper()
	return loaded(t, minimal+"peer_filter \"rules\" {\n  config {\n"+body+"  }\n}\n").Of(sdk.KindPeerFilter)[0]
}

func TestValuesCrossAsJSON(t *testing.T) {
	dir := home(t)
	t.Setenv("PORT", "8443")
	t.Setenv("TOKEN", "s3cr3t-value")
	got, ds := use(t, `    text   = "a\n\"b\""
    count  = env("PORT")
    flag   = true
    tags   = ["x", hostname() == "" ? "" : "y"]
    limits = { mem = "64MiB", disk = 1000 }
    server = { host = "h" }
    wait   = "1h30m"
    size   = "1.5kB"
    db     = "sub/x.db"
    token  = env("TOKEN")
    when   = peer.role == "x" && event.kind != "dm"
    one {
      text  = "t"
      token = "t"
    }
    many {
      wait = "5s"
      deep {
        tags = ["a"]
      }
      deep {}
    }
    many {}
`).DecodePlugin(everything)
	if ds.HasErrors() {
		t.Fatal(text(t, ds))
	}
	data := filepath.Join(dir, "data/plugins/filter-rules")
	want := `{"cache":"` + data + `/cache","count":8443,"db":"` + data + `/sub/x.db","flag":true,` +
		`"if":{"column":0,"file":"","line":0,"source":"peer.ok","variables":["peer"]},` +
		`"level":"info","limits":{"disk":1000,"mem":67108864},` +
		`"many":[{"deep":[{"tags":["a"]},{}],"wait":"5s"},{"wait":"1s"}],"one":{"text":"t","token":"t"},"pages":4096,` +
		`"server":{"host":"h","port":443},"size":1500,"tags":["x","y"],"text":"a\n\"b\"","token":"s3cr3t-value","wait":"1h30m",` +
		`"when":{"column":14,"file":"mesh.hcl","line":23,"source":"peer.role == \"x\" && event.kind != \"dm\"","variables":["event","peer"]}}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNoConfigBlockIsAnEmptyOne(t *testing.T) {
	home(t)
	u := loaded(t, minimal).Uses[0]
	got, ds := u.DecodePlugin(schemas["outbox-sqlite"])
	if ds.HasErrors() || !strings.HasSuffix(string(got), `/data/plugins/outbox-sqlite/outbox.db"}`) {
		t.Errorf("%s %s", got, text(t, ds))
	}
	_, ds = u.DecodePlugin(schemas["filter-rules"])
	if got := text(t, ds); !strings.HasPrefix(got, "mesh.hcl:9:1: error: outbox \"sqlite\" needs the option \"label\"\n  9 | outbox \"sqlite\" {}\n    | ^^^^^^^^^^^^^^^\n  Add label = ") {
		t.Error(got)
	}
}

func TestMistakesInAPluginsOptions(t *testing.T) {
	for name, tc := range map[string]struct{ body, first, next string }{
		"typo":               {`txt = "x"`, `mesh.hcl:13:1: error: peer_filter "rules" has no option "txt"`, `Did you mean "text"?`},
		"swapped letters":    {`cuont = 5`, `mesh.hcl:13:1: error: peer_filter "rules" has no option "cuont"`, `Did you mean "count"?`},
		"unlike any":         {`zzzzzz = 5`, `mesh.hcl:13:1: error: peer_filter "rules" has no option "zzzzzz"`, `What may stand here: text, count,`},
		"block typo":         {"mny {}", `mesh.hcl:13:1: error: peer_filter "rules" has no block "mny"`, `Did you mean "many"?`},
		"block twice":        {"one {}\none {}", `mesh.hcl:14:1: error: one is there twice`, `into one of them`},
		"block as value":     {"one = {}", `mesh.hcl:13:1: error: one is a block, not an attribute`, `Write one { … }`},
		"value as block":     {"text {}", `mesh.hcl:13:1: error: text is an attribute, not a block`, `Write text = "…"`},
		"nested typo":        {"many {\n  wiat = \"1s\"\n}", `mesh.hcl:14:3: error: many of peer_filter "rules" has no option "wiat"`, `Did you mean "wait"?`},
		"nested type":        {"many {}\nmany {\n  deep {\n    tags = [\"a\", 5]\n  }\n}", `mesh.hcl:16:18: error: tags[1] must be a string, this is a number`, `tags[1] = "…"`},
		"string":             {`text = 5`, `mesh.hcl:13:8: error: text must be a string, this is a number`, `double quotes`},
		"number":             {`count = "many"`, `mesh.hcl:13:9: error: count must be a number, this is a string`, `without quotes`},
		"bool":               {`flag = "yes"`, `mesh.hcl:13:8: error: flag must be a bool, this is a string`, `flag = true`},
		"list":               {`tags = "x"`, `mesh.hcl:13:8: error: tags must be a list, this is a string`, `[A, B]`},
		"map":                {`limits = ["x"]`, `mesh.hcl:13:10: error: limits must be an object, this is a list`, `braces`},
		"map part":           {`limits = { a = 1, b = "1 parsec" }`, `mesh.hcl:13:23: error: limits.b is not a size`, `MiB`},
		"object field":       {`server = { host = "x", prt = 1 }`, `mesh.hcl:13:30: error: server has no field "prt"`, `Did you mean "port"?`},
		"object missing":     {`server = { port = 1 }`, `mesh.hcl:13:10: error: server needs the field "host"`, `Add host = "…"`},
		"duration":           {`wait = "soon"`, `mesh.hcl:13:8: error: wait is not a duration`, `wait = "30s"`},
		"negative duration":  {`wait = "-5s"`, `mesh.hcl:13:8: error: wait is not a duration`, `units are`},
		"bare duration":      {`wait = 30`, `mesh.hcl:13:8: error: wait must be a duration, this is a number`, `units are`},
		"size":               {`size = -1`, `mesh.hcl:13:8: error: size is not a size`, `whole number of bytes`},
		"empty path":         {`db = ""`, `mesh.hcl:13:6: error: db is no file name`, `data directory`},
		"expr variable":      {`when = per.role`, `mesh.hcl:13:8: error: when has no variable "per"`, `Did you mean "peer"?`},
		"env":                {`text = env("NOT_SET")`, `mesh.hcl:13:8: error: the environment variable NOT_SET is not set`, `DEFAULT`},
		"variable":           {`text = peer`, `mesh.hcl:13:8: error: there is no variable "peer" here`, `double quotes`},
		"infinite":           {`count = 1/0`, `mesh.hcl:13:9: error: count must be a number, this is infinite`, `without quotes`},
		"block with a label": {"one \"x\" {}", `mesh.hcl:13:5: error: one takes no label`, `Write one { … }`},
		"null in a list":     {`tags = [null]`, `mesh.hcl:13:9: error: tags[0] must be a string, this is null`, `double quotes`},
	} {
		t.Run(name, func(t *testing.T) {
			home(t)
			value, ds := use(t, tc.body+"\n").DecodePlugin(everything)
			got := text(t, ds)
			if value != nil || len(ds) != 1 {
				t.Errorf("value %s, %d diagnostics", value, len(ds))
			}
			if first, _, _ := strings.Cut(got, "\n"); first != tc.first {
				t.Errorf("first line\n%s\nwant\n%s", first, tc.first)
			}
			if !strings.Contains(got, tc.next) {
				t.Errorf("no next step %q in\n%s", tc.next, got)
			}
		})
	}
}

func TestOptionsInJSONHavePositionsToo(t *testing.T) {
	home(t)
	src := `{"plugin_dir": "plugins", "mesh": {"team": {"broker_url": "ws://127.0.0.1:1/ws", "mesh_id": "m", "member_id": "u", "secret_key_file": "team.key"}},
"outbox": {"sqlite": {}}, "push_handler": {"inbox": {}},
"peer_filter": {"rules": {"config": {
  "when": "per.x",
  "tags": ["a", 5],
  "txt": 1,
  "many": [{"wait": "1s"}, {"wait": 1}]
}}}}`
	c, ds := Parse("mesh.hcl.json", []byte(src))
	if c == nil {
		t.Fatal(text(t, ds))
	}
	u := c.Of(sdk.KindPeerFilter)[0]
	_, ds = u.DecodePlugin(everything)
	got := text(t, ds)
	for _, want := range []string{
		`mesh.hcl.json:4:11: error: when has no variable "per"`,
		`mesh.hcl.json:5:17: error: tags[1] must be a string, this is a number`,
		`mesh.hcl.json:6:3: error: peer_filter "rules" has no option "txt"`,
		`mesh.hcl.json:7:37: error: wait must be a duration, this is a number`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if len(ds) != 4 {
		t.Errorf("%d diagnostics, want 4:\n%s", len(ds), got)
	}
	ds = u.MapDiagnostics(everything, sdk.Diagnostics{sdk.Invalid([]string{"many", "1", "wait"}, "too long", "Make it shorter.")})
	if got := text(t, ds); !strings.HasPrefix(got, "mesh.hcl.json:7:37: error: too long\n") {
		t.Error(got)
	}
}

func TestWhatAPluginSaysFindsItsPlace(t *testing.T) {
	home(t)
	u := use(t, `    tags = ["a", "b"]
    limits = { mem = 1, "disk" = 2 }
    many {
      wait = "1s"
    }
    many {
      deep {
        tags = ["x"]
      }
    }
`)
	for name, tc := range map[string]struct {
		path []string
		at   string
	}{
		"no path":              {nil, "12:3"},
		"attribute":            {[]string{"tags"}, "13:12"},
		"element":              {[]string{"tags", "1"}, "13:18"},
		"element not there":    {[]string{"tags", "7"}, "13:12"},
		"map value":            {[]string{"limits", "mem"}, "14:22"},
		"quoted key":           {[]string{"limits", "disk"}, "14:34"},
		"block":                {[]string{"many", "1"}, "18:5"},
		"in a block":           {[]string{"many", "0", "wait"}, "16:14"},
		"deep":                 {[]string{"many", "1", "deep", "0", "tags", "0"}, "20:17"},
		"absent in a block":    {[]string{"many", "1", "wait"}, "18:5"},
		"block not there":      {[]string{"many", "2", "wait"}, "12:3"},
		"absent":               {[]string{"text"}, "12:3"},
		"nothing of that name": {[]string{"nix", "0"}, "12:3"},
		"negative":             {[]string{"many", "-1"}, "15:5"},
	} {
		t.Run(name, func(t *testing.T) {
			ds := u.MapDiagnostics(everything, sdk.Diagnostics{{Severity: sdk.SeverityWarning, Summary: "so\nso", Path: tc.path}})
			if got := text(t, ds); !strings.HasPrefix(got, "mesh.hcl:"+tc.at+": warning: so so\n") {
				t.Errorf("want %s, got %s", tc.at, got)
			}
			if ds[0].Next == "" || ds.HasErrors() {
				t.Errorf("%+v", ds)
			}
		})
	}
}

func TestASecretIsInNoDiagnostic(t *testing.T) {
	const value = "hunter2-hunter2"
	home(t)
	t.Setenv("TOKEN", value)
	write(t, "token.txt", value, 0o600)
	for name, body := range map[string]string{
		"wrong type":           "token = [\"" + value + "\"]\n",
		"typo beside":          "one {\n token = \"" + value + "\"\n txt = 1\n}\n",
		"on the same line":     "one { token = upper(\"" + value + "\") }\n",
		"heredoc":              "token = <<EOT\n" + value + "\nEOT\ntxt = 1\n",
		"misspelt":             "tokn = \"" + value + "\"\ntoken = 5\n",
		"from the environment": "token = env(\"TOKEN\")\n",
		"from a file":          "token = file(\"token.txt\")\n",
		"in a list":            "tokens = [\"" + value + "\", 5]\n",
		"in an object":         "login = { user = \"x\", password = \"" + value + "\", typo = 1 }\n",
		"as a number":          "token = 1234567890123\n",
	} {
		t.Run(name, func(t *testing.T) {
			schema := everything
			schema.Attributes = append([]sdk.Attribute{
				attribute("tokens", listOf(secret)),
				attribute("login", sdk.Type{Name: sdk.TypeObject, Fields: []sdk.Attribute{attribute("user", str), attribute("password", secret)}}),
			}, everything.Attributes...)
			u := use(t, body)
			_, ds := u.DecodePlugin(schema)
			all := text(t, ds)
			for _, path := range [][]string{{"token"}, {"one", "token"}, {"tokens", "0"}, {"login", "password"}} {
				more := u.MapDiagnostics(schema, sdk.Diagnostics{{Severity: sdk.SeverityError, Summary: "bad " + value, Detail: "Not \"" + value + "\"!", Path: path}})
				if name != "misspelt" && name != "as a number" { // there no secret is set that could be known
					all += text(t, more)
				} else {
					all += more[0].Source
				}
			}
			if strings.Contains(all, value) || strings.Contains(all, "1234567890123") {
				t.Errorf("shown in\n%s", all)
			}
		})
	}
	for name, src := range map[string]string{
		"no closing quote": minimal + "peer_filter \"rules\" {\n config {\n  api_token = \"" + value + "\n }\n}\n",
		"on one line":      minimal + "peer_filter \"rules\" {\n config { token: \"" + value + "\" }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, ds := Parse("mesh.hcl", []byte(src))
			if got := text(t, ds); strings.Contains(got, value) || !strings.Contains(got, "***") {
				t.Errorf("shown in\n%s", got)
			}
		})
	}
}

func TestABrokenSchemaIsThePluginsFault(t *testing.T) {
	home(t)
	u := use(t, "")
	self := sdk.Type{Name: sdk.TypeList}
	self.Elem = &self
	for name, schema := range map[string]sdk.Schema{
		"no such type":    {Attributes: []sdk.Attribute{attribute("x", sdk.Type{Name: "date"})}},
		"no element":      {Attributes: []sdk.Attribute{attribute("x", sdk.Type{Name: sdk.TypeList})}},
		"endless":         {Attributes: []sdk.Attribute{attribute("x", self)}},
		"bad name":        {Attributes: []sdk.Attribute{attribute("a b", str)}},
		"twice":           {Attributes: []sdk.Attribute{attribute("x", str)}, Blocks: []sdk.Block{{Name: "x"}}},
		"expr in a list":  {Attributes: []sdk.Attribute{attribute("x", listOf(sdk.Type{Name: sdk.TypeExpr}))}},
		"default no JSON": {Attributes: []sdk.Attribute{{Name: "x", Type: str, Default: jsontext.Value(`{`)}}},
		"default's type":  {Attributes: []sdk.Attribute{{Name: "x", Type: str, Default: jsontext.Value(`5`)}}},
	} {
		t.Run(name, func(t *testing.T) {
			value, ds := u.DecodePlugin(schema)
			if value != nil || !ds.HasErrors() {
				t.Fatalf("%s passed as %s", name, value)
			}
			if ds[0].Line == 0 || ds[0].Next == "" {
				t.Errorf("%+v", ds)
			}
			if ds := u.MapDiagnostics(schema, sdk.Diagnostics{sdk.Invalid([]string{"x"}, "no", "")}); len(ds) != 1 || ds[0].Line == 0 {
				t.Errorf("%+v", ds)
			}
		})
	}
}
