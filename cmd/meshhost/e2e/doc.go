// Package e2e runs the built binaries as an operator would, over real sockets,
// and breaks them: it kills daemons, plugins and brokers and counts what
// arrived. Counts come from the driver's own record of what was accepted and
// from the stores, read directly; never from the program under test.
package e2e
