package plugin

import (
	"io"
	"log"

	"github.com/hashicorp/go-hclog"
)

// libraryLogger is the logger that go-plugin gets. What go-plugin says of its
// own we say better; what it says of a plugin's stderr it must not even parse,
// so any logger that it derives is off.
type libraryLogger struct{ hclog.Logger }

func newLibraryLogger() hclog.Logger {
	return libraryLogger{hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard})}
}

func (l libraryLogger) Named(string) hclog.Logger      { return l }
func (l libraryLogger) ResetNamed(string) hclog.Logger { return l }
func (l libraryLogger) With(...any) hclog.Logger       { return l }
func (l libraryLogger) GetLevel() hclog.Level          { return hclog.Off }
func (l libraryLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
