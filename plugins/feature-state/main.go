package main

import "github.com/meshhost/meshhost/sdk"

func main() {
	sdk.Serve((&state{}).plugin())
}
