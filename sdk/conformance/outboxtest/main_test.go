package outboxtest

import (
	"testing"

	"go.uber.org/goleak"
)

// The suite itself is proved in plugins/outbox-memory, where ten faulty stores
// must each fail it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
