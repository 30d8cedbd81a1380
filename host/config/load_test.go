package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	dirsText = "data_dir = \"data\"\nplugin_dir = \"plugins\"\n"
	meshText = `mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = "mesh-1"
  member_id       = "member-1"
  secret_key_file = "team.key"
}
`
	usesText = "outbox \"sqlite\" {}\npush_handler \"inbox\" {}\n"
	minimal  = dirsText + meshText + usesText
)

// home is a directory with a key and plugins; it becomes the working directory.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	populate(t, dir, 0o600)
	t.Chdir(dir)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	return dir
}

// text is what diagnostics print.
func text(t testing.TB, ds Diagnostics) string {
	t.Helper()
	var b strings.Builder
	if err := ds.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// loaded parses what must be right.
func loaded(t testing.TB, src string) *Config {
	t.Helper()
	c, ds := Parse("mesh.hcl", []byte(src))
	if c == nil || ds.HasErrors() {
		t.Fatalf("does not load:\n%s", text(t, ds))
	}
	return c
}

func TestMinimalConfigGetsTheDefaults(t *testing.T) {
	dir := home(t)
	c := loaded(t, minimal)
	if c.DataDir != filepath.Join(dir, "data") || c.PluginDir != filepath.Join(dir, "plugins") {
		t.Errorf("directories %q and %q don't start at the file", c.DataDir, c.PluginDir)
	}
	m := c.Meshes[0]
	if m.Name != "team" || m.MeshID != "mesh-1" || m.MemberID != "member-1" || m.Outbox != "sqlite" || m.Key == nil || m.SecretKeyFile != filepath.Join(dir, "team.key") {
		t.Errorf("mesh %+v", m)
	}
	if len(c.Uses) != 2 {
		t.Fatalf("%d uses, want 2", len(c.Uses))
	}
	u := c.Uses[1]
	if u.ID() != "push-inbox" || u.DataDir != filepath.Join(dir, "data/plugins/push-inbox") || u.Process.Path != filepath.Join(dir, "plugins/meshhost-push-inbox") {
		t.Errorf("use %+v", u)
	}
	want := Restart{Initial: 250 * time.Millisecond, Max: 30 * time.Second, Crashes: 5, Window: 10 * time.Minute}
	if u.Process.Restart != want {
		t.Errorf("restart %+v, want %+v", u.Process.Restart, want)
	}
	if c.Control.Socket != "/run/user/1000/meshhost/meshhost.sock" || c.Log != (Log{Level: "info", Format: "auto"}) {
		t.Errorf("control %+v, log %+v", c.Control, c.Log)
	}
}

func TestEveryAttributeArrives(t *testing.T) {
	dir := home(t)
	t.Setenv("LEVEL", "debug")
	write(t, "name.txt", "build box\n", 0o644)
	c := loaded(t, dirsText+strings.Replace(meshText, "}\n", "  display_name    = file(\"name.txt\")\n  outbox          = \"main\"\n}\n", 1)+`
outbox "sqlite" {
  name = "main"
  restart {
    initial = "50ms"
    max     = "500ms"
    crashes = 0
  }
}
outbox "memory" {}
push_handler "inbox" {
  plugin = "own"
  allow  = ["send", "vault_get", "mcp_*"]
  timeouts {
    call = "3s"
  }
}
peer_filter "role" {
  on_error = "hide"
}
rpc_feature "peers" {}
plugin "own" {
  path   = "plugins/meshhost-push-inbox"
  sha256 = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"
  args   = ["-v", hostname()]
  env    = { TOKEN = env("NOT_SET", "none") }
  timeouts {
    start = "2s"
    call  = "9s"
  }
  restart {
    window = "1m"
  }
}
control {
  socket = "run/x.sock"
}
log {
  level  = env("LEVEL")
  format = "json"
}
`)
	if m := c.Meshes[0]; m.DisplayName != "build box" || m.Outbox != "main" {
		t.Errorf("mesh %+v", m)
	}
	if u := c.Of(sdk.KindOutbox)[0]; u.Name != "main" || u.Process.Restart != (Restart{50 * time.Millisecond, 500 * time.Millisecond, 0, 10 * time.Minute}) || u.ID() != "outbox-main" ||
		u.Process.Path != filepath.Join(dir, "plugins/meshhost-outbox-sqlite") {
		t.Errorf("outbox %+v", u)
	}
	u := c.Of(sdk.KindPushHandler)[0]
	p := u.Process
	if u.Plugin != "own" || len(u.Allow) != 3 || p.SHA256 != "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" || len(p.Args) != 2 ||
		p.Env["TOKEN"] != "none" || p.Timeouts != (Timeouts{2 * time.Second, 3 * time.Second}) || p.Restart.Window != time.Minute {
		t.Errorf("push handler %+v", u)
	}
	if c.Programs["own"].Process.Timeouts.Call != 9*time.Second {
		t.Error("a use changed the plugin block that it names")
	}
	if f := c.Of(sdk.KindPeerFilter)[0]; f.OnError != OnErrorHide {
		t.Errorf("on_error %q", f.OnError)
	}
	if c.Control.Socket != filepath.Join(dir, "run/x.sock") || c.Log != (Log{Level: "debug", Format: "json"}) {
		t.Errorf("control %+v, log %+v", c.Control, c.Log)
	}
}

// mistakes that need no golden file of their own: the first line and the next step.
func TestMistakes(t *testing.T) {
	mesh := func(old, new string) string {
		return dirsText + strings.Replace(meshText, old, new, 1) + usesText
	}
	add := func(s string) string { return minimal + s }
	for name, tc := range map[string]struct{ src, summary, next string }{
		"no mesh":            {dirsText + usesText, "mesh.hcl: error: no mesh block", `Add: mesh "team"`},
		"no outbox":          {dirsText + meshText + "push_handler \"inbox\" {}\n", "mesh.hcl: error: no outbox block", `Add: outbox "sqlite" {}`},
		"no push handler":    {dirsText + meshText + "outbox \"sqlite\" {}\n", "mesh.hcl: error: no push_handler block", `Add: push_handler "inbox" {}`},
		"which outbox":       {add("outbox \"memory\" {}\n"), "mesh.hcl:3:1: error: mesh \"team\" doesn't say which outbox", `Add outbox = "sqlite"`},
		"unknown outbox":     {mesh("}\n", "  outbox = \"sqlit\"\n}\n"), "mesh.hcl:8:12: error: there is no outbox", `Did you mean "sqlite"?`},
		"remote ws":          {mesh("127.0.0.1", "mesh.example"), "mesh.hcl:4:21: error: broker_url would send everything unencrypted", `Use wss://: "wss://mesh.example:7900/ws"`},
		"no such port":       {mesh("7900", "79000"), "mesh.hcl:4:21: error: broker_url has no usable port", "1 to 65535"},
		"http":               {mesh("ws://127.0.0.1", "http://127.0.0.1"), "mesh.hcl:4:21: error: broker_url must begin with", `Did you mean "ws://127.0.0.1:7900/ws"?`},
		"no key file":        {mesh("team.key", "tem.key"), "mesh.hcl:7:21: error: there is no key file tem.key", "Put the member's secret key there"},
		"bad key":            {mesh("team.key", "bad.key"), "mesh.hcl:7:21: error: key file bad.key is not usable", "128 or 64 hex digits"},
		"env unset":          {mesh(`"mesh-1"`, `env("NOT_SET")`), "mesh.hcl:5:21: error: the environment variable NOT_SET is not set", "Set it, or give a default"},
		"no such file":       {mesh(`"mesh-1"`, `file("nix")`), `mesh.hcl:5:21: error: file("nix") can't be read`, "Check the path"},
		"unknown function":   {mesh(`"mesh-1"`, `evn("X")`), `mesh.hcl:5:21: error: there is no function "evn"`, `Did you mean "env"?`},
		"bare word":          {mesh(`"mesh-1"`, `team`), `mesh.hcl:5:21: error: there is no variable "team"`, "double quotes"},
		"open string":        {mesh(`"mesh-1"`, `"mesh-1`), "mesh.hcl:5:28: error: syntax:", "Close the string"},
		"number for text":    {mesh(`"mesh-1"`, `5`), "mesh.hcl:5:21: error: mesh_id must be a string, this is a number", `mesh_id = "…"`},
		"empty id":           {mesh(`"mesh-1"`, `""`), `mesh.hcl:5:21: error: mesh_id of mesh "team" is empty`, "Write mesh_id"},
		"one line":           {add("rpc_feature \"state\" {\n  restart { initial = \"1s\" max = \"2s\" }\n}\n"), "mesh.hcl:12:28: error: syntax:", "a line of its own"},
		"no label":           {add("rpc_feature {}\n"), "mesh.hcl:11:1: error: rpc_feature takes one label", `Write rpc_feature "NAME"`},
		"two labels":         {add("rpc_feature \"state\" \"x\" {}\n"), "mesh.hcl:11:21: error: rpc_feature takes one label", `Write rpc_feature "NAME"`},
		"label as path":      {add("rpc_feature \"../state\" {}\n"), "mesh.hcl:11:13: error: the label of rpc_feature can't be", "Use 1 to 64 letters"},
		"mesh twice":         {add(meshText), `mesh.hcl:11:1: error: mesh "team" is there twice`, "another label"},
		"same member":        {add(strings.Replace(meshText, "team", "second", 1)), `mesh.hcl:11:1: error: mesh "second" is the same member as mesh "team"`, "Remove one"},
		"name twice":         {add("outbox \"memory\" {\n  name = \"sqlite\"\n}\n"), `mesh.hcl:11:1: error: outbox "sqlite" is there twice`, `name = "sqlite-2"`},
		"block as attribute": {add("log = 1\n"), "mesh.hcl:11:1: error: log is a block, not an attribute", "Write log { … }"},
		"attribute as block": {"data_dir = \"data\"\nplugin_dir {}\n" + meshText + usesText, "mesh.hcl:2:1: error: plugin_dir is an attribute, not a block", "Write plugin_dir ="},
		"option outside":     {dirsText + meshText + "outbox \"sqlite\" {\n  path = \"x\"\n}\npush_handler \"inbox\" {}\n", `mesh.hcl:10:3: error: unknown attribute "path" in outbox "sqlite"`, "inside config { … }"},
		"on_error elsewhere": {add("rpc_feature \"state\" {\n  on_error = \"skip\"\n}\n"), `mesh.hcl:12:3: error: unknown attribute "on_error"`, "inside config"},
		"on_error value":     {add("peer_filter \"role\" {\n  on_error = \"skp\"\n}\n"), `mesh.hcl:12:14: error: on_error can't be "skp"`, `Did you mean "skip"?`},
		"allow":              {add("rpc_feature \"state\" {\n  allow = [\"vault_set\", \"sned\"]\n}\n"), `mesh.hcl:12:25: error: "sned" is nothing that can be allowed`, `Did you mean "send"?`},
		"never allowed":      {add("rpc_feature \"state\" {\n  allow = [\"hello\"]\n}\n"), `mesh.hcl:12:12: error: "hello" is nothing that can be allowed`, "What can be allowed"},
		"no plugin block":    {add("rpc_feature \"state\" {\n  plugin = \"stte\"\n}\nplugin \"state\" {}\n"), `mesh.hcl:12:12: error: there is no plugin block "stte"`, `Did you mean "state"?`},
		"no binary":          {add("plugin \"x\" {\n  path = \"nix\"\n}\n"), "mesh.hcl:12:10: error: there is no file nix", "Build or install"},
		"not executable":     {add("plugin \"x\" {\n  path = \"mode.sh\"\n}\n"), "mesh.hcl:12:10: error: mode.sh is not executable", "chmod +x mode.sh"},
		"sha256":             {add("plugin \"x\" {\n  sha256 = \"abc\"\n}\n"), "mesh.hcl:12:12: error: sha256 must be 64 hex digits", "sha256sum"},
		"no plugin_dir":      {"plugin_dir = \"nix\"\n" + meshText + usesText, "mesh.hcl:8:8: error: no such plugin: nix/meshhost-outbox-sqlite", "Run make build"},
		"duration unit":      {add("rpc_feature \"state\" {\n  timeouts {\n    call = 5\n  }\n}\n"), "mesh.hcl:13:12: error: call must be a duration, this is a number", `call = "30s"`},
		"zero wait":          {add("rpc_feature \"state\" {\n  restart {\n    initial = \"0s\"\n  }\n}\n"), "mesh.hcl:13:15: error: initial must be longer than nothing", "default"},
		"long socket":        {add("control {\n  socket = \"/" + strings.Repeat("s", 100) + "\"\n}\n"), "mesh.hcl:12:12: error: the socket's path has 101 bytes, at most 100 work", "shorter path"},
		"control twice":      {add("control {}\ncontrol {}\n"), "mesh.hcl:12:1: error: control is there twice", "one of them"},
		"open data_dir":      {strings.Replace(minimal, `"data"`, `"open"`, 1), "mesh.hcl:1:12: error: data_dir " + "", "chmod go-w"},
		"too deep":           {add("a = " + strings.Repeat("(", 5000)), "mesh.hcl:11:105: error: more than 100 levels", "flatter"},
		"not UTF-8":          {add("\xff"), "mesh.hcl:11:1: error: syntax: invalid character encoding", "validate again"},
	} {
		t.Run(name, func(t *testing.T) {
			home(t)
			write(t, "bad.key", "1234\n", 0o600)
			write(t, "mode.sh", "", 0o644)
			if err := os.Mkdir("open", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod("open", 0o777); err != nil {
				t.Fatal(err)
			}
			c, ds := Parse("mesh.hcl", []byte(tc.src))
			got := text(t, ds)
			if c != nil {
				t.Error("a Config in spite of the mistake")
			}
			if first, _, _ := strings.Cut(got, "\n"); !strings.HasPrefix(first, tc.summary) {
				t.Errorf("first line\n%s\nwant\n%s", first, tc.summary)
			}
			if !strings.Contains(got, tc.next) {
				t.Errorf("no next step %q in\n%s", tc.next, got)
			}
			if len(ds) != 1 && name != "no plugin_dir" && name != "not UTF-8" {
				t.Errorf("one mistake gave %d diagnostics:\n%s", len(ds), got)
			}
		})
	}
}

func TestADirectoryIsOneConfigurationInNameOrder(t *testing.T) {
	dir := home(t)
	if err := os.Mkdir("mesh.d", 0o755); err != nil {
		t.Fatal(err)
	}
	top := strings.ReplaceAll(strings.ReplaceAll(dirsText, `"data"`, `"../data"`), `"plugins"`, `"../plugins"`)
	write(t, "mesh.d/10-mesh.hcl", top+strings.Replace(meshText, "team.key", "../team.key", 1), 0o644)
	write(t, "mesh.d/30-last.hcl", "peer_filter \"rules\" {}\n", 0o644)
	write(t, "mesh.d/20-uses.hcl.json", `{"outbox": {"sqlite": {}}, "push_handler": {"inbox": {"name": "main"}}, "peer_filter": {"role": {}}}`, 0o644)
	write(t, "mesh.d/.#30-last.hcl", "what an editor leaves", 0o644)
	write(t, "mesh.d/README.md", "not HCL", 0o644)
	c, ds := Load("mesh.d")
	if c == nil {
		t.Fatal(text(t, ds))
	}
	var ids []string
	for _, u := range c.Uses {
		ids = append(ids, u.ID())
	}
	if got := strings.Join(ids, " "); got != "outbox-sqlite push-main filter-role filter-rules" {
		t.Errorf("uses %s", got)
	}
	if c.DataDir != filepath.Join(dir, "data") {
		t.Errorf("data_dir %s", c.DataDir)
	}

	write(t, "mesh.d/40-again.hcl", "data_dir = \"x\"\noutbx \"sqlite\" {}\npush_handler \"main\" {}\ncontrol {}\n", 0o644)
	write(t, "mesh.d/50-again.hcl", "control {}\n", 0o644)
	_, ds = Load("mesh.d")
	got := text(t, ds)
	for _, want := range []string{
		"mesh.d/40-again.hcl:1:1: error: data_dir is set twice", "The first one is at mesh.d/10-mesh.hcl:1:1.",
		"mesh.d/40-again.hcl:2:1: error: unknown block \"outbx\"", "Did you mean \"outbox\"?",
		"mesh.d/40-again.hcl:3:1: error: push_handler \"main\" is there twice", "The first one is at mesh.d/20-uses.hcl.json:1:",
		"mesh.d/50-again.hcl:1:1: error: control is there twice", "The first one is at mesh.d/40-again.hcl:4:1.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestJSONSyntaxHasPositionsToo(t *testing.T) {
	home(t)
	_, ds := Parse("mesh.hcl.json", []byte("{\n \"mesh\": {\"team\": {\"mesh_id\": 5, \"membr_id\": \"x\"}},\n \"outbox\": {\"sqlite\": {}}, \"push_hndler\": {}\n}"))
	got := text(t, ds)
	for _, want := range []string{
		"mesh.hcl.json:2:31: error: mesh_id must be a string, this is a number",
		"mesh.hcl.json:2:34: error: unknown attribute \"membr_id\" in mesh \"team\"", "Did you mean \"member_id\"?",
		"mesh.hcl.json:3:28: error: unknown block or attribute \"push_hndler\"", "Did you mean \"push_handler\"?",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestAPathThatIsNoConfiguration(t *testing.T) {
	home(t)
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, "big.hcl", strings.Repeat("#", maxFile+1), 0o644)
	for _, dir := range []string{"pipe.d", "link.d"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo("pipe.d/mesh.hcl", 0o600); err != nil { // nobody writes to it: reading would not end
		t.Fatal(err)
	}
	if err := os.Symlink("../empty", "link.d/mesh.hcl"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"nix": "nix: error: no such file or directory\n", "empty": "empty: error: no *.hcl or *.hcl.json file", "big.hcl": "big.hcl: error: is larger than",
		"pipe.d": "pipe.d/mesh.hcl: error: is not a file\n", "link.d": "link.d/mesh.hcl: error: is not a file\n",
	} {
		if _, ds := Load(path); !strings.HasPrefix(text(t, ds), want) {
			t.Errorf("%s: %s", path, text(t, ds))
		}
	}
}

func TestAnUnusedPluginBlockIsAWarning(t *testing.T) {
	home(t)
	c, ds := Parse("mesh.hcl", []byte(minimal+"plugin \"x\" {}\n"))
	if c == nil || len(ds) != 1 || ds[0].Severity != sdk.SeverityWarning {
		t.Fatal(text(t, ds))
	}
}

func TestControlSocketNeedsNothingElse(t *testing.T) {
	dir := home(t)
	write(t, "mesh.hcl", strings.Replace(minimal, "team.key", "unreadable.key", 1)+"control {\n  socket = \"x.sock\"\n}\n", 0o644)
	got, ds := ControlSocket("mesh.hcl")
	if got != filepath.Join(dir, "x.sock") || ds.HasErrors() {
		t.Errorf("socket %q, %s", got, text(t, ds))
	}
	write(t, "mesh.hcl", minimal, 0o644)
	if got, _ := ControlSocket("mesh.hcl"); got != "/run/user/1000/meshhost/meshhost.sock" {
		t.Errorf("default socket %q", got)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_STATE_HOME", "/var/state")
	if got, _ := ControlSocket("mesh.hcl"); got != "/var/state/meshhost/run/meshhost.sock" {
		t.Errorf("default socket without a runtime directory %q", got)
	}
	t.Setenv("XDG_STATE_HOME", "/var/"+strings.Repeat("long/", 20))
	if _, ds := ControlSocket("mesh.hcl"); !strings.Contains(text(t, ds), "the default socket's path has") {
		t.Errorf("a path too long for a socket passed: %s", text(t, ds))
	}
}

func TestAChecksumIsShown(t *testing.T) {
	home(t)
	sum := strings.Repeat("5a", 32)
	_, ds := Parse("mesh.hcl", []byte(minimal+"plugin \"x\" {\n  sha265 = \""+sum+"\"\n}\nrpc_feature \"state\" {\n  sha256 = \""+sum+"\"\n}\n"))
	if got := text(t, ds); strings.Count(got, sum) != 1 || len(ds) != 2 { // misspelt, it might be anything
		t.Error(got)
	}
	u := loaded(t, minimal).Uses[0]
	if d := u.Diagnose("can't be asked", "checksum of x is "+sum+", correct sha256", "Do it."); !strings.Contains(d.Detail, sum) {
		t.Error(d.Detail)
	}
}

func TestAKeyOrPasswordInTheWrongPlaceIsNotShown(t *testing.T) {
	const key = "b332a6f8fccc2942e24b390bf95d550f43739bd1db7787002c8bfea8df5dc958"
	home(t)
	t.Setenv("KEY", key)
	mesh := func(old, new string) string { return strings.Replace(minimal, old, new, 1) }
	for name, tc := range map[string]struct{ src, secret, next string }{
		"the key as its file":        {mesh(`"team.key"`, `"`+key+`"`), key, "Put the key into a file"},
		"with the public key":        {mesh(`"team.key"`, `"`+strings.ToUpper(key+key)+`"`), strings.ToUpper(key), "Put the key into a file"},
		"from the environment":       {mesh(`"team.key"`, `env("KEY")`), key, "Put the key into a file"},
		"with blanks":                {mesh(`"team.key"`, `" `+key+` "`), key, "Put the key into a file"},
		"a URL with a password":      {mesh(`ws://127`, `wss://bob:hunter2@127`), "hunter2", "Remove it"},
		"a broken URL with one":      {mesh(`ws://127`, `wss://bob:hunter2 x@127`), "hunter2", `Write it as "wss://HOST/ws"`},
		"an escape in the password":  {mesh(`ws://127`, `wss://bob:hunter2%zz@127`), "hunter2", `Write it as "wss://HOST/ws"`},
		"no scheme, with a password": {mesh(`ws://127`, `bob:hunter2@127`), "hunter2", `Write it as "wss://HOST/ws"`},
		"a key of another name":      {mesh(`"team.key"`, `"team.key"`+"\n  key = \""+key+`"`), key, `Did you mean "secret_key_file"?`},
		"a longer name":              {mesh(`member_id       = "member-1"`, `member_id = "member-1"`+"\n  member_key = \""+key+key+`"`), key, "Did you mean"},
		"without the closing quote":  {mesh(`"team.key"`, `"`+key), key, "Close the string"},
		"without quotes":             {mesh(`"team.key"`, key), key, "Put a text in double quotes"},
		"without the equals sign":    {mesh(`= "team.key"`, `"`+key+`"`), key, "validate again"},
		"on a line of its own":       {mesh(`secret_key_file = "team.key"`, key), key, "VALUE"},
		"in a list":                  {mesh(`"team.key"`, `["`+key+`"]`), key, "double quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, ds := Parse("mesh.hcl", []byte(tc.src))
			got := text(t, ds)
			if strings.Contains(got, tc.secret) {
				t.Errorf("shown in\n%s", got)
			}
			if len(ds) != 1 || !strings.Contains(got, tc.next) {
				t.Errorf("no next step %q in\n%s", tc.next, got)
			}
		})
	}
}

// A broker hangs up on any other path; a proxy before it may not.
func TestAnUnusualPathOfTheBrokerIsAWarning(t *testing.T) {
	for url, warned := range map[string]bool{
		"ws://127.0.0.1:7900/ws": false, "ws://127.0.0.1:7900/team/ws": false,
		"ws://127.0.0.1:7900": true, "ws://127.0.0.1:7900/ws/": true, "ws://127.0.0.1:7900/ws?": true, "ws://127.0.0.1:7900/ws?a=b": true,
	} {
		home(t)
		c, ds := Parse("mesh.hcl", []byte(strings.Replace(minimal, "ws://127.0.0.1:7900/ws", url, 1)))
		if got := text(t, ds); c == nil || strings.Contains(got, "warning: broker_url does not end in /ws") != warned {
			t.Errorf("%s: %s", url, got)
		}
	}
}
