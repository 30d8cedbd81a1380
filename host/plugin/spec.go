package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// Spec is one block of mesh.hcl: one process with one configuration. The zero
// value of each optional field means the default that is named at it.
type Spec struct {
	// Kind and Name identify the block; Name is unique per kind. Kind may be
	// empty for Probe and Validate only: then any kind is right.
	Kind sdk.Kind
	Name string
	// Path is the binary, absolute. It and the directories above it must not be
	// writable by others.
	Path string
	// SHA256 is the binary's checksum in hex, checked before each start; empty:
	// not checked.
	SHA256 string
	Args   []string
	// Env is added to the short list of variables that a plugin inherits.
	Env map[string]string

	// StartTimeout bounds the time from the start to a finished handshake; 10 s.
	StartTimeout time.Duration
	// CallTimeout overrides the time that a method has; see Method.
	CallTimeout map[Method]time.Duration
	Restart     Restart
	Health      Health

	// DataDir is the plugin's own directory, made with mode 0700 if absent.
	DataDir string
	// RuntimeDir is where each incarnation gets a short directory for its
	// sockets. Empty: the directory for temporary files.
	RuntimeDir string

	// Config returns the values for Configure once the plugin has described
	// itself, from the plugin's own goroutine: for several plugins at once. An
	// error is permanent: it says that mesh.hcl must change. Nil: no values.
	Config func(ctx context.Context, d sdk.Description) (jsontext.Value, error)
	// Explain leads what the plugin says of its values back to mesh.hcl and takes
	// secrets out of it, before it gets into a log, an error or a Status; called
	// from the plugin's own goroutine. Nil: its words are taken as they are.
	Explain func(d sdk.Description, said sdk.Diagnostics) sdk.Diagnostics
	// Allow lists what the plugin may ask of the host beyond what it declared:
	// "send", and frame types such as "kick" or "vault_*".
	Allow []string
	// Services answers the plugin's calls to the host. Nil: every call is
	// answered as unavailable.
	Services Services

	// Logger takes the plugin's log and our words about it. Nil: nothing is
	// logged.
	Logger hclog.Logger
	// OnState is called by the owner goroutine on each change of state, in
	// order; it must not block, nor call back into the Plugin's Stop or Replace.
	OnState func(Status)
}

// Restart is how a plugin that exits comes back: at once the first time, then
// after Initial, doubling to Max, with jitter; forgotten after 60 s of health.
type Restart struct {
	Initial time.Duration // 250 ms
	Max     time.Duration // 30 s
	// Crashes within Window quarantine the plugin; 0: never. An outbox is never
	// quarantined by crashes. The zero Restart means five in ten minutes.
	Crashes int
	Window  time.Duration // 10 min
}

// defaultRestart is what the zero Restart stands for.
func defaultRestart() Restart {
	return Restart{Initial: 250 * time.Millisecond, Max: 30 * time.Second, Crashes: 5, Window: 10 * time.Minute}
}

// Health is how a plugin that is alive but silent is found: Misses checks in a
// row without an answer within Timeout end the process.
type Health struct {
	Interval time.Duration // 10 s
	Timeout  time.Duration // 1 s
	Misses   int           // 3
}

// maxSocketPath keeps every socket under the 104 bytes of sun_path on macOS and
// the 108 of Linux.
const maxSocketPath = 100

// socketNameMax is the longest name that appears below RuntimeDir: our
// directory of an incarnation and go-plugin's socket in it.
const socketNameMax = len("/p4294967295/plugin4294967295")

// Check reports what is wrong with a Spec before anything is started: names,
// paths, lengths and numbers. It reads no file.
func (s *Spec) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Name == "" {
		fail("a plugin needs a name")
	}
	if s.Kind != "" && s.Kind.Prefix() == "" {
		fail("no kind %q of plugin", s.Kind)
	}
	if !filepath.IsAbs(s.Path) {
		fail("path %q of the plugin is not absolute", s.Path)
	}
	if s.SHA256 != "" && !isSHA256(s.SHA256) {
		fail("sha256 %q is not 64 hex digits", s.SHA256)
	}
	if s.RuntimeDir != "" {
		if n := len(s.RuntimeDir) + socketNameMax; n > maxSocketPath {
			fail("runtime directory %s is too long: a socket in it would have a path of %d bytes, and %d are possible; choose a shorter one", s.RuntimeDir, n, maxSocketPath)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Env)) {
		if !validEnvName(k) {
			fail("%q is not a name of an environment variable", k)
		}
		if reservedEnv(k) {
			fail("environment variable %s belongs to the plugin protocol; remove it from env", k)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(s.CallTimeout)) {
		if _, ok := defaultTimeouts[m]; !ok {
			fail("no method %q to give a timeout to; there are %v", m, Methods())
		} else if s.CallTimeout[m] <= 0 {
			fail("the timeout of %s must be more than 0", m)
		}
	}
	r := s.Restart
	if r.Initial < 0 || r.Max < 0 || r.Crashes < 0 || r.Window < 0 || s.StartTimeout < 0 {
		fail("restart and start timeout must not be negative")
	}
	if r.Initial > 0 && r.Max > 0 && r.Initial > r.Max {
		fail("restart: initial %s is more than max %s", r.Initial, r.Max)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", s.id(), err)
	}
	return nil
}

// withDefaults returns a copy whose optional numbers are filled in.
func (s Spec) withDefaults() Spec {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&s.StartTimeout, 10*time.Second)
	if s.Restart == (Restart{}) {
		s.Restart = defaultRestart()
	}
	or(&s.Restart.Initial, 250*time.Millisecond)
	or(&s.Restart.Max, max(30*time.Second, s.Restart.Initial))
	or(&s.Restart.Window, 10*time.Minute)
	or(&s.Health.Interval, 10*time.Second)
	or(&s.Health.Timeout, time.Second)
	if s.Health.Misses == 0 {
		s.Health.Misses = 3
	}
	if s.Logger == nil {
		s.Logger = hclog.NewNullLogger()
	}
	return s
}

// id is how the plugin is named in errors and logs: outbox(sqlite).
func (s *Spec) id() string {
	if s.Kind == "" {
		return "plugin(" + s.Name + ")"
	}
	return string(s.Kind) + "(" + s.Name + ")"
}

// sameProcess reports whether t would start the same process as s, so that a
// new configuration can go to the one that runs.
func (s *Spec) sameProcess(t *Spec) bool {
	return s.Kind == t.Kind && s.Name == t.Name && s.Path == t.Path && s.SHA256 == t.SHA256 &&
		slices.Equal(s.Args, t.Args) && maps.Equal(s.Env, t.Env) &&
		s.DataDir == t.DataDir && s.RuntimeDir == t.RuntimeDir && slices.Equal(s.Allow, t.Allow)
}
