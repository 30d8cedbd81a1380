package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/meshhost/meshhost/sdk"
)

// roles are all that a row can have.
var roles = []string{sdk.RoleControlPlane, sdk.RoleSession, sdk.RoleService}

// config is the block of mesh.hcl.
type config struct {
	Hide []string `mesh:"hide" default:"[\"control-plane\"]" doc:"the roles to hide: control-plane, session, service"`
}

// filter hides rows by role. The SDK lets no call run beside Configure, so hide
// needs no lock.
type filter struct {
	hide map[string]bool
}

func newFilter() *filter { return &filter{} }

func (f *filter) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:       "role",
		Version:    sdk.Version,
		Doc:        "hides peers by their role, the control plane unless told otherwise",
		Config:     sdk.Configured(f.configure, validate),
		PeerFilter: f,
	}
}

// validate refuses roles that no row can have: they would hide nothing, and
// silently.
func validate(_ context.Context, c config) sdk.Diagnostics {
	var diags sdk.Diagnostics
	for i, role := range c.Hide {
		if !slices.Contains(roles, role) {
			diags = append(diags, sdk.Invalid([]string{"hide", strconv.Itoa(i)},
				fmt.Sprintf("There is no role %q.", role),
				"Roles are "+strings.Join(roles, ", ")+"."))
		}
	}
	return diags
}

func (f *filter) configure(_ context.Context, c config, _ sdk.Env) error {
	f.hide = make(map[string]bool, len(c.Hide))
	for _, role := range c.Hide {
		f.hide[role] = true
	}
	return nil
}

// Filter is sdk.PeerFilter.
func (f *filter) Filter(_ context.Context, _ sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	verdicts := make([]sdk.Verdict, len(rows))
	for i := range rows {
		if role := rows[i].Role; f.hide[role] {
			verdicts[i] = sdk.Verdict{Hide: true, Reason: role}
		}
	}
	return verdicts, nil
}
