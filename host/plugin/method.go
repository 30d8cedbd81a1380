package plugin

import (
	"maps"
	"slices"
	"time"
)

// Method names a call that the host makes to a plugin; Spec.CallTimeout and
// errors use it.
type Method string

// The methods, in groups of lifecycle, outbox, push handler, peer filter and
// rpc feature.
const (
	MethodDescribe  Method = "describe"
	MethodValidate  Method = "validate"
	MethodConfigure Method = "configure"
	MethodDrain     Method = "drain"

	MethodApply   Method = "apply"
	MethodAcquire Method = "acquire"
	MethodRelease Method = "release"
	MethodFetch   Method = "fetch"
	MethodLookup  Method = "lookup"
	MethodGet     Method = "get"
	MethodList    Method = "list"
	MethodStats   Method = "stats"
	MethodPrune   Method = "prune"
	MethodScan    Method = "scan"
	MethodWatch   Method = "watch"
	MethodImport  Method = "import"

	MethodHandle Method = "handle"

	MethodFilter Method = "filter"

	MethodCall      Method = "call"
	MethodOnConnect Method = "on_connect"
	MethodOnFrame   Method = "on_frame"
)

// defaultTimeouts is how long a method has where Spec.CallTimeout is silent;
// scan and watch, which answer streams, have no limit of their own. A
// timeout is for a plugin that hangs, not for one that is slow; only a filter
// has a budget (ARCHITECTURE 4: 250 ms a list).
var defaultTimeouts = map[Method]time.Duration{
	MethodDescribe:  5 * time.Second,
	MethodValidate:  10 * time.Second,
	MethodConfigure: 30 * time.Second,
	MethodDrain:     5 * time.Second,

	MethodApply:   10 * time.Second,
	MethodAcquire: 5 * time.Second,
	MethodRelease: 5 * time.Second,
	MethodFetch:   10 * time.Second,
	MethodLookup:  10 * time.Second,
	MethodGet:     10 * time.Second,
	MethodList:    10 * time.Second,
	MethodStats:   10 * time.Second,
	MethodPrune:   30 * time.Second,
	MethodImport:  30 * time.Second,

	MethodHandle: 30 * time.Second,

	MethodFilter: 250 * time.Millisecond,

	MethodCall:      30 * time.Second,
	MethodOnConnect: 10 * time.Second,
	MethodOnFrame:   10 * time.Second,
}

// Methods lists the names that Spec.CallTimeout takes, sorted.
func Methods() []Method {
	return slices.Sorted(maps.Keys(defaultTimeouts))
}

// timeout is how long m has.
func (s *Spec) timeout(m Method) time.Duration {
	if d, ok := s.CallTimeout[m]; ok {
		return d
	}
	return defaultTimeouts[m]
}
