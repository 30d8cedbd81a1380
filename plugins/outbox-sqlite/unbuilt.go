package main

import (
	"context"

	"github.com/meshhost/meshhost/sdk"
)

var errUnbuilt = sdk.Errorf(sdk.CodeInternal, "unbuilt", "not built")

// Scan implements sdk.Outbox.
func (s *store) Scan(context.Context, sdk.ScanRequest, func(sdk.ScanPage) error) error {
	return errUnbuilt
}

// Watch implements sdk.Outbox.
func (s *store) Watch(context.Context, func(sdk.WatchEvent) error) error { return errUnbuilt }

// Import implements sdk.Outbox.
func (s *store) Import(context.Context, sdk.ImportRequest) ([]sdk.OpResult, error) {
	return nil, errUnbuilt
}
