package sqlitefile

import (
	"errors"
	"fmt"

	"github.com/meshhost/meshhost/sdk"
	"zombiezen.com/go/sqlite"
)

// explain turns an error of SQLite into one that says what to do. Other errors
// pass as they are.
func (f *File) explain(err error) error {
	if err == nil {
		return nil
	}
	var known *sdk.Error
	if errors.As(err, &known) {
		return err
	}
	code := sqlite.ErrCode(err).ToPrimary()
	switch code {
	case sqlite.ResultError, sqlite.ResultOK:
		return fmt.Errorf("%s: %s: %w", f.spec.What, f.spec.Path, err)
	case sqlite.ResultCorrupt, sqlite.ResultNotADB:
		return f.fault(sdk.CodeInternal, "corrupt", err, "is damaged",
			"stop the daemon, keep a copy, and rescue what is readable with: sqlite3 "+f.spec.Path+" .recover")
	case sqlite.ResultFull:
		return f.fault(sdk.CodeUnavailable, "disk_full", err, "cannot grow", "free space on its disk")
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return f.fault(sdk.CodeUnavailable, "busy", err, "is locked by another program", "close the other program")
	case sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultCantOpen, sqlite.ResultAuth:
		return f.fault(sdk.CodeUnavailable, "no_access", err, "cannot be written", "make the file and its directory writable for this user")
	default:
		return f.fault(sdk.CodeUnavailable, "io", err, "failed", "look at the disk and the system log")
	}
}

// fault is an error that crosses the process boundary with its code.
func (f *File) fault(code sdk.Code, reason string, err error, what, next string) error {
	return sdk.Errorf(code, reason, "%s: %s %s: %v; %s", f.spec.What, f.spec.Path, what, err, next).WithNext(next)
}
