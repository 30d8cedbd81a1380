package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

type testTarget struct {
	URL    string `mesh:"url,required" doc:"where to"`
	Weight uint8  `mesh:"weight" default:"1"`
}

type testLimits struct {
	Rows int   `mesh:"rows" default:"1000"`
	Size Bytes `mesh:"size" default:"1MiB"`
}

type testPair struct {
	Left  string `mesh:"left,required"`
	Right int    `mesh:"right"`
}

type testConfig struct {
	Path    Path              `mesh:"path" default:"outbox.db" doc:"the file"`
	Busy    time.Duration     `mesh:"busy_timeout" default:"5s"`
	Token   Secret            `mesh:"token"`
	Name    string            `mesh:"name,required"`
	Ratio   float64           `mesh:"ratio"`
	On      *bool             `mesh:"on"`
	Tags    []string          `mesh:"tags" default:"[\"a\"]"`
	Env     map[string]string `mesh:"env"`
	Pair    *testPair         `mesh:"pair"`
	When    Expr              `mesh:"when" variables:"push,peer"`
	Limits  testLimits        `mesh:"limits,block" doc:"bounds"`
	Tls     *testPair         `mesh:"tls,block"`
	Targets []testTarget      `mesh:"target,block"`
	Hidden  int               `mesh:"-"`
	_       int
}

func decode(t *testing.T, config string) (testConfig, Diagnostics) {
	t.Helper()
	return DecodeConfig[testConfig](jsontext.Value(config))
}

func TestSchemaComesFromTheTags(t *testing.T) {
	c := Configured(func(context.Context, testConfig, Env) error { return nil }, nil)
	got, err := json.Marshal(c.Schema())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"attributes":[` +
		`{"name":"path","type":{"name":"path"},"default":"outbox.db","doc":"the file"},` +
		`{"name":"busy_timeout","type":{"name":"duration"},"default":"5s"},` +
		`{"name":"token","type":{"name":"secret"}},` +
		`{"name":"name","type":{"name":"string"},"required":true},` +
		`{"name":"ratio","type":{"name":"number"}},` +
		`{"name":"on","type":{"name":"bool"}},` +
		`{"name":"tags","type":{"name":"list","elem":{"name":"string"}},"default":["a"]},` +
		`{"name":"env","type":{"name":"map","elem":{"name":"string"}}},` +
		`{"name":"pair","type":{"name":"object","fields":[{"name":"left","type":{"name":"string"},"required":true},{"name":"right","type":{"name":"number"}}]}},` +
		`{"name":"when","type":{"name":"expr","variables":["push","peer"]}}],` +
		`"blocks":[` +
		`{"name":"limits","doc":"bounds","schema":{"attributes":[{"name":"rows","type":{"name":"number"},"default":1000},{"name":"size","type":{"name":"bytes"},"default":1048576}]}},` +
		`{"name":"tls","schema":{"attributes":[{"name":"left","type":{"name":"string"},"required":true},{"name":"right","type":{"name":"number"}}]}},` +
		`{"name":"target","repeat":true,"schema":{"attributes":[{"name":"url","type":{"name":"string"},"required":true,"doc":"where to"},{"name":"weight","type":{"name":"number"},"default":1}]}}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestValuesArriveAndDefaultsFillTheRest(t *testing.T) {
	c, diags := decode(t, `{"name":"n"}`)
	if diags != nil {
		t.Fatal(diags)
	}
	if c.Path != "outbox.db" || c.Busy != 5*time.Second || c.Token.Reveal() != "" || c.On != nil || fmt.Sprint(c.Tags) != "[a]" ||
		c.Pair != nil || c.Limits != (testLimits{1000, 1 << 20}) || c.Tls != nil || c.Targets != nil {
		t.Errorf("defaults: %+v", c)
	}
	c, diags = decode(t, `{"name":"n","path":"/x","busy_timeout":"250ms","token":"s3cret","ratio":0.5,"on":false,"tags":[],
		"env":{"A":"b"},"pair":{"left":"l","right":-3},"when":{"source":"push.kind == 1","file":"mesh.hcl","line":3,"column":7,"variables":["push"]},
		"limits":{"rows":5},"tls":{"left":"c"},"target":[{"url":"u1"},{"url":"u2","weight":9}]}`)
	if diags != nil {
		t.Fatal(diags)
	}
	if c.Path != "/x" || c.Busy != 250*time.Millisecond || c.Token.Reveal() != "s3cret" || c.Ratio != 0.5 || *c.On || len(c.Tags) != 0 ||
		c.Env["A"] != "b" || *c.Pair != (testPair{"l", -3}) || c.When.Source != "push.kind == 1" || c.When.Line != 3 ||
		c.Limits != (testLimits{5, 1 << 20}) || *c.Tls != (testPair{Left: "c"}) ||
		len(c.Targets) != 2 || c.Targets[0] != (testTarget{"u1", 1}) || c.Targets[1] != (testTarget{"u2", 9}) {
		t.Errorf("values: %+v", c)
	}
	if c, diags = decode(t, `{"name":"n","on":null,"tls":null,"tags":null}`); diags != nil || c.On != nil || c.Tls != nil || len(c.Tags) != 1 {
		t.Errorf("null is not \"not written\": %+v, %v", c, diags)
	}
}

func TestDecodingIsStrictAndSaysWhere(t *testing.T) {
	for name, c := range map[string]struct{ config, want string }{
		"not JSON":                  {`{"name":`, "Not an object."},
		"no object":                 {`[]`, "Not an object."},
		"two objects":               {`{"name":"n"} {}`, "Not an object."},
		"twice the same":            {`{"name":"n","name":"m"}`, "Not an object."},
		"missing":                   {`{}`, "Missing option."},
		"unknown":                   {`{"name":"n","nmae":"m"}`, "nmae: Unknown option."},
		"unknown in a block":        {`{"name":"n","limits":{"row":1}}`, "limits.row: Unknown option."},
		"unknown in a second one":   {`{"name":"n","target":[{"url":"a"},{"url":"b","x":1}]}`, "target.1.x: Unknown option."},
		"missing in a block":        {`{"name":"n","target":[{}]}`, "target.0: Missing option."},
		"missing in an object":      {`{"name":"n","pair":{"right":1}}`, "pair: Missing option."},
		"string for a number":       {`{"name":"n","ratio":"1"}`, "ratio: Wrong type of value."},
		"number for a string":       {`{"name":5}`, "name: Wrong type of value."},
		"string for a bool":         {`{"name":"n","on":"true"}`, "on: Wrong type of value."},
		"string for a list":         {`{"name":"n","tags":"a"}`, "tags: Wrong type of value."},
		"number in a list":          {`{"name":"n","tags":["a",1]}`, "tags.1: Wrong type of value."},
		"null in a list":            {`{"name":"n","tags":[null]}`, "tags.0: Wrong type of value."},
		"number in a map":           {`{"name":"n","env":{"A":1}}`, "env.A: Wrong type of value."},
		"no duration":               {`{"name":"n","busy_timeout":"5"}`, "busy_timeout: Not a duration."},
		"no whole number":           {`{"name":"n","limits":{"rows":1.5}}`, "limits.rows: Number out of range."},
		"too large a number":        {`{"name":"n","target":[{"url":"a","weight":256}]}`, "target.0.weight: Number out of range."},
		"negative where it's not":   {`{"name":"n","target":[{"url":"a","weight":-1}]}`, "target.0.weight: Number out of range."},
		"text for bytes":            {`{"name":"n","limits":{"size":"1MiB"}}`, "limits.size: Wrong type of value."},
		"object for a repeated":     {`{"name":"n","target":{"url":"a"}}`, "target: Wrong type of value."},
		"expression without source": {`{"name":"n","when":{"line":1}}`, "when: Not an expression."},
	} {
		_, diags := decode(t, c.config)
		if len(diags) != 1 || diags[0].Severity != SeverityError || !strings.HasPrefix(diags[0].Error(), c.want) {
			t.Errorf("%s: got %q, want %q", name, diags, c.want)
		}
		if len(diags) == 1 && diags[0].Detail == "" {
			t.Errorf("%s: nothing says what to do", name)
		}
	}
}

func TestABadStructPanicsWithTheField(t *testing.T) {
	type recursive struct {
		Inner []struct {
			N int `mesh:"n"`
		} `mesh:"Inner,block"`
	}
	for name, c := range map[string]struct {
		try  func()
		want string
	}{
		"no tag": {tryConfig[struct{ Path string }], "field Path has no tag mesh"},
		"not exported": {tryConfig[struct {
			p string `mesh:"p"`
		}], "field p has the tag mesh but is not exported"},
		"bad name": {tryConfig[recursive], `the name "Inner" is not snake_case`},
		"unknown option": {tryConfig[struct {
			P string `mesh:"p,optional"`
		}], `unknown option "optional"`},
		"default required": {tryConfig[struct {
			P string `mesh:"p,required" default:"x"`
		}], "choose one"},
		"bad default": {tryConfig[struct {
			P int `mesh:"p" default:"x"`
		}], `default "x"`},
		"default too big": {tryConfig[struct {
			P int8 `mesh:"p" default:"300"`
		}], `default "300"`},
		"bad duration": {tryConfig[struct {
			P time.Duration `mesh:"p" default:"5"`
		}], "Write it as"},
		"bad bytes": {tryConfig[struct {
			P Bytes `mesh:"p" default:"1 parsec"`
		}], "number of bytes"},
		"twice": {tryConfig[struct {
			P int `mesh:"p"`
			Q int `mesh:"p"`
		}], `the name "p" is there twice`},
		"a time": {tryConfig[struct {
			P time.Time `mesh:"p"`
		}], "can't be an option"},
		"a channel": {tryConfig[struct {
			P chan int `mesh:"p"`
		}], "can't be an option"},
		"a scalar block": {tryConfig[struct {
			P int `mesh:"p,block"`
		}], "a block is a struct"},
		"no struct":    {tryConfig[int], "a configuration is a struct"},
		"no configure": {func() { Configured[struct{}](nil, nil) }, "configure is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), c.want) || !strings.Contains(fmt.Sprint(r), "sdk.Configured") {
					t.Errorf("panicked with %v, want %q", r, c.want)
				}
			}()
			c.try()
		})
	}
}

func tryConfig[C any]() { Configured(func(context.Context, C, Env) error { return nil }, nil) }

func TestASecretIsNeverShown(t *testing.T) {
	s := NewSecret("hunter2")
	nested := struct{ s Secret }{s}
	shown := []string{
		s.String(), fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v %+v %#v", nested, nested, nested), fmt.Sprintf("%v", []any{&s, map[string]Secret{"k": s}}),
	}
	for _, v := range []any{s, map[string]any{"k": s}, testConfig{Token: s}.Token} {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, string(out))
	}
	for _, text := range shown {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("shown: %s", text)
		}
	}
	if s.Reveal() != "hunter2" || (Secret{}).Reveal() != "" {
		t.Error("Reveal does not give the value")
	}
}

func TestWhatConfigureReturnsBecomesDiagnostics(t *testing.T) {
	type options struct {
		N int `mesh:"n"`
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nil":                      {nil, "[]"},
		"an error":                 {errors.New("disk full"), "[The plugin can't start with this configuration. disk full]"},
		"an Error with next":       {fmt.Errorf("open: %w", Errorf(CodePermission, "x", "no access").WithNext("chmod it.")), "[The plugin can't start with this configuration. open: no access chmod it.]"},
		"a diagnostic":             {fmt.Errorf("wrapped: %w", Invalid([]string{"n"}, "Bad.", "Mend it.")), "[n: Bad. Mend it.]"},
		"several":                  {Diagnostics{Invalid([]string{"n"}, "A.", ""), Invalid(nil, "B.", "")}.Err(), "[n: A. B.]"},
		"without a severity":       {Diagnostic{Summary: "No."}, "[No.]"},
		"warnings are not errors":  {Diagnostics{{Severity: SeverityWarning, Summary: "Hm."}}.Err(), "[]"},
		"warnings returned anyway": {Diagnostics{{Severity: SeverityWarning, Summary: "Hm."}}, "[Hm.]"},
	} {
		conf := Configured(func(context.Context, options, Env) error { return c.err }, nil)
		diags, err := conf.Configure(t.Context(), nil, Env{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := fmt.Sprint([]Diagnostic(diags)); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
		if fine := c.want == "[]" || strings.HasPrefix(name, "warnings"); diags.HasErrors() == fine {
			t.Errorf("%s: HasErrors is %v", name, !fine)
		}
		for i, d := range diagnosticsToProto(diags) {
			if word, err := wire.Severities.Word(d.GetSeverity()); err != nil || (word == "warning") != (diags[i].Severity == SeverityWarning) {
				t.Errorf("%s: crosses as %q, %v", name, word, err)
			}
		}
	}
}

// What may pass by itself is no fault of the configuration.
func TestWhatMayPassIsAnErrorAndNoDiagnostic(t *testing.T) {
	for _, passing := range []error{
		Errorf(CodeUnavailable, "disk_full", "no room"), fmt.Errorf("open: %w", Errorf(CodeTimeout, "slow", "no answer")), ErrFull,
	} {
		conf := Configured(func(context.Context, struct{}, Env) error { return passing }, nil)
		if diags, err := conf.Configure(t.Context(), nil, Env{}); !errors.Is(err, passing) || len(diags) != 0 {
			t.Errorf("%v: %v, %v", passing, diags, err)
		}
	}
}

func TestConfigureSeesOnlyWhatValidateAccepted(t *testing.T) {
	type options struct {
		N int  `mesh:"n"`
		P Path `mesh:"p"`
	}
	var seen []options
	conf := Configured(func(_ context.Context, o options, _ Env) error {
		seen = append(seen, o)
		return nil
	}, func(_ context.Context, o options) Diagnostics {
		if o.N < 0 {
			return Diagnostics{Invalid([]string{"n"}, "Negative.", "Use 0 or more.")}
		}
		return nil
	})
	env := Env{DataDir: "/data"}
	if d, err := conf.Configure(t.Context(), jsontext.Value(`{"n":-1}`), env); !d.HasErrors() || err != nil {
		t.Errorf("got %v, %v", d, err)
	}
	if d, err := conf.Configure(t.Context(), jsontext.Value(`{"n":1,"p":"x.db"}`), env); d != nil || err != nil {
		t.Errorf("got %v, %v", d, err)
	}
	if len(seen) != 1 || seen[0] != (options{1, "/data/x.db"}) {
		t.Errorf("configured with %+v", seen)
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"name":"n","target":[{"url":"a","weight":2}],"limits":{"rows":1}}`))
	f.Add([]byte(`{"name":"n","when":{"source":"x"},"env":{"a":"b"},"on":true}`))
	f.Add([]byte(`{"name":`))
	f.Add([]byte(`{"name":"0"}A0`))
	f.Add([]byte("\u00a0"))
	f.Fuzz(func(t *testing.T, config []byte) {
		c, diags := DecodeConfig[testConfig](config)
		valid := jsontext.Value(config).IsValid() || strings.Trim(string(config), " \t\r\n") == ""
		if !valid && !diags.HasErrors() {
			t.Fatalf("accepted what is not JSON: %q", config)
		}
		if !diags.HasErrors() && !strings.Contains(string(config), `"name"`) && !strings.Contains(string(config), `\u`) {
			t.Fatalf("accepted without the required option: %q gave %+v", config, c)
		}
	})
}
