// Package lossyfs is a disk in memory, for tests, that behaves at a power cut
// as a real one may: what was written and not synced is gone, or half of it is.
// It also fails on demand: no space, errors of writes and of syncs, syncs that
// take long, read-only.
//
// A Disk holds the files; Mount shows it as a FUSE file system to the processes
// under test, which notice nothing. Arm names the moment of the cut. From then
// on every request hangs, as in a machine without power; the test kills the
// processes, calls Release so that the kernel can bury them, unmounts, calls Cut,
// and mounts again. The new mount has a page cache of its own, so that nothing
// of the old one hides a loss.
//
// The disk is as strict as POSIX allows and stricter than most: a sync of a file
// makes its pages and its size durable but not its name, which needs a sync of
// the directory; a sync that failed leaves its pages clean for the kernel and
// not on the disk, so that a second sync does not save them.
//
// The process that serves a mount must not use it, or it may wait for itself:
// neither map its files nor make one of its directories that of a new process.
// It reads them by ReadFile. The package lies here since only tests import it.
package lossyfs
