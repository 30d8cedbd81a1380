package main

import (
	"context"

	"github.com/meshhost/meshhost/plugins/internal/sqlitefile"
	"github.com/meshhost/meshhost/sdk"
)

// Watch implements sdk.Outbox. The file is locked: nobody else changes it.
func (s *store) Watch(ctx context.Context, tell func(sdk.WatchEvent) error) error {
	if err := tell(sdk.WatchEvent{Kind: sdk.WatchGap}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.file.Closing():
		return sqlitefile.ErrClosed
	}
}
