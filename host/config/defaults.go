package config

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
)

// defaultDataDir is data_dir where the configuration has none: $XDG_STATE_HOME/meshhost, else ~/.local/state/meshhost; without $HOME,
// ~ is what the user database says.
// An XDG variable counts only if it is absolute, as its specification says.
func defaultDataDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshhost"), nil
	}
	home := os.Getenv("HOME")
	if home == "" { // as under some service managers: the user database knows it
		u, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("find the user's state directory: $HOME is not set, and %w", err)
		}
		home = u.HomeDir
	}
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("find the user's state directory: the home directory is %q, want an absolute path", home)
	}
	return filepath.Join(home, ".local", "state", "meshhost"), nil
}

// DefaultSocket is the local API's socket where neither flag nor configuration names one, for the daemon and its clients:
// $XDG_RUNTIME_DIR/meshhost/meshhost.sock, else run/meshhost.sock under the user's state directory.
func DefaultSocket() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshhost", "meshhost.sock"), nil
	}
	dir, err := defaultDataDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "run", "meshhost.sock"), nil
}

// defaultPluginDir is "plugins" beside the executable.
func defaultPluginDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find plugins beside the executable: %w", err)
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real // a link in ~/bin leads to where the plugins were installed
	}
	return filepath.Join(filepath.Dir(exe), "plugins"), nil
}
