// Command meshhost-push-exec is an example of a push handler: it runs a command
// for each message, with the text on its standard input. Copy the directory and
// change handler.go.
//
//	go build -o bin/plugins/meshhost-push-exec ./examples/push-exec
//
// In mesh.hcl, beside the inbox (every handler gets every message):
//
//	push_handler "exec" {
//	  config {
//	    command = ["/usr/bin/logger", "-t", "mesh"]
//	    timeout = "5s"
//	  }
//	}
//
// The command sees MESH_NAME, MESH_KIND, MESH_ID, MESH_SENDER (a key) and
// MESH_SENDER_NAME in its environment, and runs in the plugin's data directory.
// One runs at a time, in the order of arrival. Exit 0 is done; anything else is
// tried again by the host, ever more rarely and 20 times at most. What the
// command prints is dropped: it may hold the message, which belongs in no log.
// After a crash a command may run again for the same message; MESH_ID tells.
package main
