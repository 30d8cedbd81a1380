// Package plugintest runs a plugin's implementation behind the real wire, in
// memory: the same gRPC services, converters, limits and checks as between two
// processes, without a process.
//
//	func TestHides(t *testing.T) {
//		p := plugintest.Start(t, role.Plugin())
//		p.MustConfigure(`{"hide":["service"]}`)
//		verdicts, err := p.PeerFilter().Filter(t.Context(), query, rows)
//		…
//	}
//
// The plugin's Env.Host is a fake Host that records what it is asked and answers
// what the test says. When the test ends the plugin is drained and stopped, and
// every goroutine of the kit is gone.
package plugintest
