// Command meshhost-filter-rules hides peers by patterns. It is the plugin of the cases in testdata/validate: it has a
// required option, a block that may repeat, and a mistake that only it can find.
package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/meshhost/meshhost/sdk"
)

type config struct {
	Label string `mesh:"label,required" doc:"the word that lists show for what these rules hide"`
	Rules []rule `mesh:"rule,block" doc:"a pattern; what one of them matches is hidden"`
}

type rule struct {
	Field   string `mesh:"field,required" doc:"display_name or hostname"`
	Pattern string `mesh:"pattern,required" doc:"a regular expression"`
}

// rules is the filter.
type rules struct {
	mu    sync.RWMutex
	label string
	match []func(sdk.Peer) bool
}

func compile(c config) ([]func(sdk.Peer) bool, sdk.Diagnostics) {
	var match []func(sdk.Peer) bool
	var diags sdk.Diagnostics
	for i, r := range c.Rules {
		at := func(name string) []string { return []string{"rule", strconv.Itoa(i), name} }
		re, err := regexp.Compile(r.Pattern)
		if err != nil {
			what := strings.Replace(err.Error(), "error parsing regexp", "pattern is not a regular expression", 1)
			diags = append(diags, sdk.Invalid(at("pattern"), what, `Close the character class, such as "build-[0-9]", or write \\[ for a bracket as such.`))
			continue
		}
		switch r.Field {
		case "display_name":
			match = append(match, func(p sdk.Peer) bool { return re.MatchString(p.DisplayName) })
		case "hostname":
			match = append(match, func(p sdk.Peer) bool { return re.MatchString(p.Hostname) })
		default:
			diags = append(diags, sdk.Invalid(at("field"), fmt.Sprintf("there is no field %q", r.Field), "Use display_name or hostname."))
		}
	}
	return match, diags
}

func (r *rules) configure(_ context.Context, c config, _ sdk.Env) error {
	match, diags := compile(c)
	if diags.HasErrors() {
		return diags.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.label, r.match = c.Label, match
	return nil
}

// Filter hides what any rule matches.
func (r *rules) Filter(_ context.Context, _ sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]sdk.Verdict, len(rows))
	for i, p := range rows {
		for _, m := range r.match {
			if m(p) {
				out[i] = sdk.Verdict{Hide: true, Reason: r.label}
			}
		}
	}
	return out, nil
}

func main() {
	r := &rules{}
	sdk.Serve(sdk.Plugin{
		Name: "rules", Version: sdk.Version, Doc: "hides peers by patterns", PeerFilter: r,
		Config: sdk.Configured(r.configure, func(_ context.Context, c config) sdk.Diagnostics { _, d := compile(c); return d }),
	})
}
