package main

import (
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rows(roles ...string) []sdk.Peer {
	var peers []sdk.Peer
	for _, role := range roles {
		peers = append(peers, sdk.Peer{Mesh: "team", PubKey: "k-" + role, Role: role})
	}
	return peers
}

func TestHidesTheRolesOfItsConfig(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   []string // reasons of the rows control-plane, session, service; "" is shown
	}{
		"by default the control plane": {"", []string{"control-plane", "", ""}},
		"one role":                     {`{"hide":["service"]}`, []string{"", "", "service"}},
		"several":                      {`{"hide":["session","control-plane"]}`, []string{"control-plane", "session", ""}},
		"none":                         {`{"hide":[]}`, []string{"", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			p := plugintest.Start(t, newFilter().plugin()).MustConfigure(c.config)
			for _, all := range []bool{false, true} {
				verdicts, err := p.PeerFilter().Filter(t.Context(), sdk.PeerQuery{Mesh: "team", All: all}, rows(roles...))
				if err != nil {
					t.Fatal(err)
				}
				for i, v := range verdicts {
					if v.Hide != (c.want[i] != "") || v.Reason != c.want[i] {
						t.Errorf("all=%v: verdict of %s is %+v, want reason %q", all, roles[i], v, c.want[i])
					}
				}
			}
		})
	}
}

func TestRefusesARoleThatNoRowHas(t *testing.T) {
	p := plugintest.Start(t, newFilter().plugin())
	diags := p.Validate(`{"hide":["session","controlplane"]}`)
	if len(diags) != 1 || !slices.Equal(diags[0].Path, []string{"hide", "1"}) ||
		!strings.Contains(diags[0].Detail, "control-plane") {
		t.Errorf("got %+v", diags)
	}
}

func TestAFailedReconfigurationLeavesTheFilterAsItWas(t *testing.T) {
	p := plugintest.Start(t, newFilter().plugin()).MustConfigure(`{"hide":["service"]}`)
	if !p.Configure(`{"hide":["nobody"]}`).HasErrors() {
		t.Fatal("a wrong role was taken")
	}
	verdicts, err := p.PeerFilter().Filter(t.Context(), sdk.PeerQuery{}, rows("service", "control-plane"))
	if err != nil || !verdicts[0].Hide || verdicts[1].Hide {
		t.Errorf("got %+v, %v", verdicts, err)
	}
}

func TestAnEmptyListHasNoVerdicts(t *testing.T) {
	p := plugintest.Start(t, newFilter().plugin()).MustConfigure("")
	verdicts, err := p.PeerFilter().Filter(t.Context(), sdk.PeerQuery{}, nil)
	if err != nil || len(verdicts) != 0 {
		t.Errorf("got %v, %v", verdicts, err)
	}
}
