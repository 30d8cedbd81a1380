package main

import "github.com/meshhost/meshhost/sdk"

func main() {
	var box outbox
	sdk.Serve(box.plugin())
}
