package plugin

import (
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// State is where a plugin is in its life.
type State string

// The states of a plugin (ARCHITECTURE 4).
const (
	StateStarting    State = "starting"
	StateReady       State = "ready"
	StateDraining    State = "draining"    // about to stop or to be replaced
	StateBackoff     State = "backoff"     // exited; starts again at Status.NextStart
	StateQuarantined State = "quarantined" // not started again until Replace; see Status.Reason
	StateStopped     State = "stopped"
)

// The values of Status.Reason while a plugin is quarantined.
const (
	ReasonCrashes   = "crashes"   // too many in the window
	ReasonPermanent = "permanent" // the same start would fail again
)

// Status is a snapshot of a plugin.
type Status struct {
	Kind  sdk.Kind
	Name  string
	State State
	// Reason says why the plugin is quarantined.
	Reason string
	// Err is the last failure: a start that failed or a crash. Nil once ready.
	Err error
	// Pid is the process; 0 while there is none.
	Pid int
	// Since is when the state began, StartedAt when the process did.
	Since, StartedAt time.Time
	// NextStart is when a plugin in backoff starts again.
	NextStart time.Time
	// Starts counts processes started, Crashes those that ended unasked or
	// failed to become ready.
	Starts, Crashes int
	// LastCrash is the crash report: how the last process that ended unasked
	// did so, its uptime and its last words. Empty: none did.
	LastCrash string
	// Description is what the plugin last said of itself; zero before that.
	Description sdk.Description
}

// Broken reports whether the plugin will stay down until someone acts.
func (s *Status) Broken() bool { return s.State == StateQuarantined || s.State == StateStopped }
