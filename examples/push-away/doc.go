// Command meshhost-push-away is an example of a push handler that sends: it
// answers direct messages while you are away. Copy the directory and change
// handler.go.
//
//	go build -o bin/plugins/meshhost-push-away ./examples/push-away
//
// In mesh.hcl, beside the inbox (every handler gets every message):
//
//	push_handler "away" {
//	  allow = ["send"] # without it the daemon refuses what this plugin sends
//
//	  config {
//	    text  = "Away until Monday."
//	    every = "24h"
//	  }
//	}
//
// One sender gets one answer in a period; who was answered when is in the
// plugin's store at the host and outlives restarts. Two daemons that are both
// away answer each other once and stop.
//
// The answer's client_message_id comes from the message, so that a message that
// is handed over twice, as after a crash, is answered once.
package main
