package sdk

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// processEnv makes this test binary a plugin process, see process_test.go.
const processEnv = "MESHHOST_SDK_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		Serve(processPlugin())
	}
	goleak.VerifyTestMain(m)
}
