package bridge

import (
	"fmt"

	"github.com/meshhost/meshhost/sdk"
)

// Fault is a reply that the contract does not allow: the plugin has a defect.
// It unwraps to an sdk.Error with CodeInternal and Reason "plugin_fault".
type Fault struct {
	// Call is the call that was answered, such as "outbox.Apply".
	Call string
	// Problem is what was wrong with the reply.
	Problem string
}

// Error says which call and what was wrong.
func (f *Fault) Error() string {
	return fmt.Sprintf("the plugin answered %s against its contract: %s", f.Call, f.Problem)
}

// Unwrap is the fault as an sdk.Error.
func (f *Fault) Unwrap() error {
	return sdk.Errorf(sdk.CodeInternal, "plugin_fault", "%s", f.Error()).WithNext("report it to the plugin's author")
}

func fault(call, format string, args ...any) error {
	return &Fault{Call: call, Problem: fmt.Sprintf(format, args...)}
}

// count checks that a batch has one result for each item.
func count(call string, got, want int) error {
	if got != want {
		return fault(call, "%d results for %d items", got, want)
	}
	return nil
}
