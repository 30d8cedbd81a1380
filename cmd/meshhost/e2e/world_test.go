package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// world is a broker and its members, each a process.
type world struct {
	t       testing.TB
	bin     built
	dir     string
	addr    string
	args    []string // of the broker, beyond -listen and -seed
	members []member
	broker  *process
}

// member is one of the seed.
type member struct {
	MemberID    string `json:"member_id"`
	DisplayName string `json:"display_name"`
	PublicKey   string `json:"public_key"`
	meshID      string
}

// newWorld writes a seed and starts the broker without limits.
func newWorld(t testing.TB, bin built, members int, args ...string) *world {
	t.Helper()
	w := &world{t: t, bin: bin, dir: shortDir(t), addr: freePort(t)}
	w.args = append([]string{"-send-burst", "0", "-send-per-minute", "0", "-capacity", "0"}, args...)
	for i, a := range w.args {
		w.args[i] = strings.ReplaceAll(a, "DIR", w.dir)
	}
	seed := filepath.Join(w.dir, "seed.json")
	if out, err := exec.Command(bin.meshhost, "devbroker", "-new", seed, "-members", fmt.Sprint(members)).CombinedOutput(); err != nil {
		t.Fatalf("new seed: %v\n%s", err, out)
	}
	var s struct {
		Meshes []struct {
			MeshID  string   `json:"mesh_id"`
			Members []member `json:"members"`
		} `json:"meshes"`
	}
	raw, err := os.ReadFile(seed)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Meshes[0].Members {
		m.meshID = s.Meshes[0].MeshID
		w.members = append(w.members, m)
	}
	w.startBroker()
	return w
}

func (w *world) startBroker() {
	w.t.Helper()
	args := append([]string{"devbroker", "-listen", w.addr, "-seed", filepath.Join(w.dir, "seed.json")}, w.args...)
	w.broker = start(w.t, "broker", nil, w.bin.meshhost, args...)
	await(w.t, 10*time.Second, "the broker listens", func() error {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// daemon is one member's daemon.
type daemon struct {
	w      *world
	name   string
	member member
	dir    string
	config string
	socket string
	proc   *process
	http   *http.Client
}

// newDaemon writes the configuration of a member; extra goes into each block
// of a plugin that is called with its kind and label.
func (w *world) newDaemon(i int, inBlock func(kind, label string) string) *daemon {
	w.t.Helper()
	m := w.members[i]
	d := &daemon{w: w, name: m.DisplayName, member: m, dir: filepath.Join(w.dir, m.DisplayName)}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	d.config, d.socket = filepath.Join(d.dir, "mesh.hcl"), filepath.Join(d.dir, "s")
	var b strings.Builder
	fmt.Fprintf(&b, "data_dir   = \"data\"\nplugin_dir = %q\ncontrol { socket = \"s\" }\nlog { format = \"text\" }\n", w.bin.plugins)
	fmt.Fprintf(&b, "mesh \"team\" {\n  broker_url = \"ws://%s/ws\"\n  mesh_id = %q\n  member_id = %q\n  secret_key_file = %q\n}\n",
		w.addr, m.meshID, m.MemberID, filepath.Join(w.dir, m.DisplayName+".key"))
	for _, use := range [][2]string{{"outbox", "sqlite"}, {"push_handler", "inbox"}, {"peer_filter", "role"}, {"rpc_feature", "state"}, {"rpc_feature", "peers"}} {
		extra := ""
		if inBlock != nil {
			extra = inBlock(use[0], use[1])
		}
		fmt.Fprintf(&b, "%s %q {\n%s\n}\n", use[0], use[1], extra)
	}
	if err := os.WriteFile(d.config, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	d.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		},
		MaxIdleConns: 256, MaxIdleConnsPerHost: 256,
	}}
	w.t.Cleanup(d.http.CloseIdleConnections)
	return d
}

// launch starts the process and returns at once.
func (d *daemon) launch() {
	d.w.t.Helper()
	d.proc = start(d.w.t, d.name, nil, d.w.bin.meshhost, "-config", d.config)
}

// up starts the daemon and waits until its plugins serve and its mesh is open.
func (d *daemon) up() {
	d.w.t.Helper()
	d.launch()
	d.ready()
}

func (d *daemon) ready() {
	d.w.t.Helper()
	await(d.w.t, 20*time.Second, d.name+" is ready", func() error {
		var st status
		if _, err := d.call("GET", "/v1/status", nil, &st); err != nil {
			return err
		}
		for _, p := range st.Plugins {
			if p.State != "ready" {
				return fmt.Errorf("plugin %s is %s: %s", p.Name, p.State, p.LastError)
			}
		}
		for _, m := range st.Meshes {
			if m.State != "open" {
				return fmt.Errorf("mesh %s is %s: %s", m.Name, m.State, m.Detail)
			}
		}
		return nil
	})
}

// status is the part of GET /v1/status that tests read.
type status struct {
	PID     int `json:"pid"`
	Plugins []struct {
		Kind      string `json:"kind"`
		Name      string `json:"name"`
		State     string `json:"state"`
		PID       int    `json:"pid"`
		LastError string `json:"last_error"`
	} `json:"plugins"`
	Meshes []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Detail string `json:"detail"`
	} `json:"meshes"`
}

// pluginPID is the process of a block; 0 if it has none now.
func (d *daemon) pluginPID(kind, name string) int {
	var st status
	if _, err := d.call("GET", "/v1/status", nil, &st); err != nil {
		return 0
	}
	for _, p := range st.Plugins {
		if p.Kind == kind && p.Name == name {
			return p.PID
		}
	}
	return 0
}

// call makes one request; out gets the body of an answer below 300.
func (d *daemon) call(method, path string, body, out any) (int, error) {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = strings.NewReader(string(raw))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, r)
	if err != nil {
		return 0, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, raw)
	}
	if out == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(raw, out)
}

// sendBody is POST /v1/send.
type sendBody struct {
	To              string `json:"to"`
	Message         string `json:"message"`
	ClientMessageID string `json:"client_message_id"`
}

// inbox reads what a daemon's inbox plugin stored, straight from its database:
// body by client_message_id.
func (d *daemon) inbox() map[string]string {
	d.w.t.Helper()
	out := map[string]string{}
	path := filepath.Join(d.dir, "data", "plugins", "push-inbox", "inbox.db")
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return out
	}
	conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		d.w.t.Fatalf("open the inbox: %v", err)
	}
	defer conn.Close()
	conn.SetBlockOnBusy()
	err = sqlitex.ExecuteTransient(conn, "SELECT client_message_id, body FROM messages", &sqlitex.ExecOptions{
		ResultFunc: func(s *sqlite.Stmt) error {
			out[s.ColumnText(0)] = s.ColumnText(1)
			return nil
		},
	})
	if err != nil && !strings.Contains(err.Error(), "no such table") {
		d.w.t.Fatalf("read the inbox: %v", err)
	}
	return out
}
