// Package outboxtest is what every outbox backend must do (sdk.Outbox,
// ARCHITECTURE 5). An author writes one test:
//
//	func TestConformance(t *testing.T) {
//		outboxtest.Run(t, outboxtest.Driver{Durable: true, Open: open})
//	}
//
// Each case is a promise and opens stores of its own through the Driver. Time
// is the suite's: a backend under test must take its clock from Options.Now.
// The last case compares random ops, with reopening in between, to a model.
// The suite says nothing of power loss and of speed.
package outboxtest
