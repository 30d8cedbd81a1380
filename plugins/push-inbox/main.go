package main

import "github.com/meshhost/meshhost/sdk"

func main() {
	var box inbox
	sdk.Serve(box.plugin())
}
