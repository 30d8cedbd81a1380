package bridge_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// processEnv makes this test binary a plugin process.
const processEnv = "MESHHOST_BRIDGE_TEST_PLUGIN"

// bulky answers a reason as long as the body that it got.
func bulky(_ context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	return []sdk.Outcome{{Decision: sdk.Drop, Reason: strings.Repeat("x", pushes[0].Attempt)}}, nil
}

// go-plugin's client sets no limit of its own that lasts: what it dials with is
// the greatest number there is.
func TestAProcessIsServedThroughGoPluginWithOurLimits(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"=1")
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  bridge.Handshake(),
		Plugins:          bridge.Plugins(),
		Cmd:              cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  bridge.DialOptions(),
		Logger:           hclog.NewNullLogger(),
	})
	defer client.Kill()
	protocol, err := client.Client()
	noError(t, err)
	raw, err := protocol.Dispense(bridge.PluginSet)
	noError(t, err)
	c := raw.(*bridge.Client)
	ctx := t.Context()
	d, err := c.Describe(ctx)
	noError(t, err)
	if d.Name != "bulky" || !d.Has(sdk.KindPushHandler) {
		t.Errorf("described %+v", d)
	}
	noError(t, c.Health(ctx))
	diags, err := c.Configure(ctx, bridge.ConfigureRequest{Name: "bulky", DataDir: t.TempDir()})
	if err != nil || diags != nil {
		t.Fatal(diags, err)
	}
	send := func(body, reply int) error {
		_, err := c.PushHandler().Handle(ctx, []sdk.Push{{Kind: sdk.PushDirect, Body: make([]byte, body), Attempt: reply}})
		return err
	}
	noError(t, send(5<<20, 1))
	noError(t, send(1, 5<<20))
	if err := send(bridge.MaxMessageBytes+1, 1); !errors.Is(err, sdk.ErrFull) {
		t.Errorf("too much to the plugin: %v", err)
	}
	if err := send(1, bridge.MaxMessageBytes+1); !errors.Is(err, sdk.ErrFull) {
		t.Errorf("too much from the plugin: %v", err)
	}
	noError(t, c.Drain(ctx))
}
