package devbroker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/go-hclog"
)

func TestTheDataFileOutlivesAnAbruptStop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.data")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{DataFile: file})
		a, b := w.join("a"), w.join("b")
		a.send(obj{"type": "set_state", "key": "build", "value": obj{"n": 1}})
		a.send(dm(w.keys["b"], "acked"))
		b.take()
		b.send(obj{"type": "client_ack", "clientMessageId": "acked"})
		b.send(obj{"type": "set_summary", "summary": "busy"})
		b.take()
		b.hang()
		a.take()
		queued := a.ask(dm(w.keys["b"], "waiting"))
		id, _ := queued[0]["messageId"].(string)
		if id == "" {
			t.Fatalf("no ack: %v", queued)
		}
		a.ask(obj{"type": "ban", "target": w.keys["c"].pub})

		// What a kill leaves: whatever was written up to the last ack. Nothing of the first broker's end gets in.
		left, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.b.Abort(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(left, `{"op":"queued","mesh":"`+w.mesh.MeshID...), 0o600); err != nil {
			t.Fatal(err)
		}
		w.open(Options{DataFile: file})

		a = w.join("a")
		if got := a.ask(obj{"type": "get_state", "key": "build"}); fmt.Sprint(got[0]["value"]) != "map[n:1]" {
			t.Errorf("state: %v", got)
		}
		if got := a.ask(obj{"type": "message_status", "messageId": id}); got[0]["delivered"] != false {
			t.Errorf("status of the waiting one: %v", got)
		}
		b = connect(t, w.b)
		got := b.ask(w.hello("b"))
		wantFrames(t, "the claim of the dead lease holds on", got, "hello_ack")
		if got[0]["restored"] != true || got[0]["lastSummary"] != "busy" {
			t.Errorf("saved member state: %v", got[0])
		}
		time.Sleep(31 * time.Second)
		a.send(dm(w.keys["b"], "new"))
		wantFrames(t, "the queue", b.take(), "push:waiting push:new")
		banned := connect(t, w.b)
		wantFrames(t, "the ban", banned.ask(w.hello("c")), "error:revoked")
	})
}

func TestCompactionKeepsWhatCounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.data")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{DataFile: file})
		a, b := w.join("a"), w.join("b")
		var ids []string
		for i := range 200 {
			got := a.ask(dm(w.keys["b"], fmt.Sprint(i)))
			ids = append(ids, got[len(got)-1]["messageId"].(string))
			if i < 150 {
				b.send(obj{"type": "client_ack", "brokerMessageId": ids[i]})
			}
		}
		b.take()
		before, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice: the second start replays a compacted file
			if err := w.b.Abort(); err != nil {
				t.Fatal(err)
			}
			w.open(Options{DataFile: file})
		}
		after, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if after.Size() >= before.Size() || after.Mode().Perm() != 0o600 {
			t.Errorf("%d bytes before, %d after, mode %v", before.Size(), after.Size(), after.Mode())
		}
		time.Sleep(time.Minute)
		a, b = w.join("a"), connect(t, w.b)
		got := b.ask(w.hello("b"))
		if len(got) != 51 || got[1]["client_message_id"] != "150" || got[50]["client_message_id"] != "199" {
			t.Errorf("%d frames after the restart: %s", len(got), summary(got))
		}
		if got := a.ask(obj{"type": "message_status", "messageId": ids[0]}); got[len(got)-1]["delivered"] != true {
			t.Errorf("the first is no longer known as delivered: %v", got)
		}
	})
}

func TestADataFileServesOneBrokerAtATime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.data")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{DataFile: file})
		a := w.join("a")
		if _, err := New(Options{Seed: Seed{Meshes: []SeedMesh{w.mesh}}, DataFile: file}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second broker on one data file: %v", err)
		}
		// What the first one acks still lands in the file that the next one reads.
		a.send(obj{"type": "set_state", "key": "k", "value": 1})
		a.take()
		if err := w.b.Abort(); err != nil {
			t.Fatal(err)
		}
		w.open(Options{DataFile: file})
		if got := w.join("a").ask(obj{"type": "get_state", "key": "k"}); got[0]["value"] != 1.0 {
			t.Errorf("state: %v", got)
		}
	})
}

func TestWhatTheDataFileDidNotTakeIsNotAcked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "broker.data")
	var said bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{DataFile: file, Logger: hclog.New(&hclog.LoggerOptions{Output: &said})})
		a, b := w.join("a"), w.join("b")
		a.take()
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		good := w.b.journal.f
		w.b.journal.f = full
		for range 3 {
			wantFrames(t, "a send onto a full disk", append(a.ask(dm(w.keys["b"], "x")), b.take()...), "")
		}
		wantFrames(t, "what needs no record", a.ask(obj{"type": "list_peers"}), "peers_list")
		if err := good.Close(); err != nil {
			t.Fatal(err)
		}
		if err := w.b.Abort(); err != nil {
			t.Fatal(err)
		}
		w.open(Options{DataFile: file})
		time.Sleep(time.Minute)
		wantFrames(t, "after a restart", w.join("b").take(), "")
	})
	if n := strings.Count(said.String(), "data file not written"); n != 1 {
		t.Errorf("said %d times: %s", n, &said)
	}
}

func TestADataFileThatIsNoneIsRefusedWithItsLine(t *testing.T) {
	dir := t.TempDir()
	seed := GenerateSeed("m", "a")
	for content, want := range map[string]string{
		"hello\n":                           "line 1 is no record",
		`{"op":"queued","mesh":"x"}` + "\n": "not in the seed",
	} {
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Seed: seed, DataFile: file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// lineWriter keeps each Write apart.
type lineWriter struct{ lines [][]byte }

func (w *lineWriter) Write(b []byte) (int, error) {
	w.lines = append(w.lines, bytes.Clone(b))
	return len(b), nil
}

func TestTheFrameLogHoldsOneWholeLinePerFrame(t *testing.T) {
	log := &lineWriter{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{LogWriter: log})
		a := w.join("a")
		for _, raw := range []string{`{"type": "list_peers",` + "\n" + `"_reqId":"r"}`, `{bad`, `[1]`, "\xff", `null`, "\u00a0{}"} {
			a.write(raw)
			a.take()
		}
		if err := w.b.Close(); err != nil {
			t.Fatal(err)
		}
	})
	var got []string
	last := int64(0)
	for _, raw := range log.lines {
		var l struct {
			MonoNS int64  `json:"mono_ns"`
			At     string `json:"at"`
			Conn   int    `json:"conn"`
			Dir    string `json:"dir"`
			Frame  any    `json:"frame"`
		}
		if err := json.Unmarshal(raw, &l, json.RejectUnknownMembers(true)); err != nil || bytes.Count(raw, []byte("\n")) != 1 {
			t.Fatalf("line %q: %v", raw, err)
		}
		if _, err := time.Parse(time.RFC3339, l.At); err != nil || l.MonoNS < last || l.MonoNS == 0 || l.Conn != 1 {
			t.Errorf("line %q: time %v", raw, err)
		}
		last = l.MonoNS
		if f, ok := l.Frame.(obj); ok {
			got = append(got, l.Dir+" "+fmt.Sprint(f["type"]))
		} else {
			got = append(got, l.Dir+" "+fmt.Sprintf("%q", l.Frame))
		}
	}
	want := `in hello|out hello_ack|in list_peers|out peers_list|in "{bad"|in "[1]"|in "�"|in "null"|in "\u00a0{}"`
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("log holds %s\nwant %s", s, want)
	}
}

// brokenWriter is a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAFrameLogThatCannotBeWrittenIsReportedOnceAndStopsNothing(t *testing.T) {
	var said bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{LogWriter: brokenWriter{}, Logger: hclog.New(&hclog.LoggerOptions{Output: &said})})
		a := w.join("a")
		wantFrames(t, "a request", a.ask(obj{"type": "list_peers"}), "peers_list")
		if err := w.b.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if n := strings.Count(said.String(), "no space left"); n != 1 {
		t.Errorf("said %d times: %s", n, &said)
	}
}
