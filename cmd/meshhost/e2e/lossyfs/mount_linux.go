package lossyfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Device is what Mount needs; it takes root as well.
const Device = "/dev/fuse"

// Mounted is a disk that processes can use.
type Mounted struct {
	dir    string
	server *fuse.Server
}

// Mount shows the disk at dir, an empty directory.
func (d *Disk) Mount(dir string) (*Mounted, error) {
	forever := 24 * time.Hour // nobody but the kernel changes what it has cached
	server, err := fs.Mount(dir, &node{disk: d, o: d.root}, &fs.Options{
		EntryTimeout: &forever, AttrTimeout: &forever,
		RootStableAttr: &fs.StableAttr{Ino: d.root.ino, Mode: syscall.S_IFDIR},
		MountOptions:   fuse.MountOptions{DirectMountStrict: true, DisableReadDirPlus: true, FsName: "lossyfs", Name: "lossyfs"},
	})
	if err != nil {
		return nil, fmt.Errorf("mount lossyfs at %s: %w", dir, err)
	}
	return &Mounted{dir: dir, server: server}, nil
}

// Unmount ends the mount. Nobody may have a file of it open.
func (m *Mounted) Unmount() error {
	if err := m.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	m.server.Wait()
	return nil
}

// Require skips a test on a machine that can't mount, and says how to get there.
// In CI that is a failure.
func Require(t testing.TB) {
	t.Helper()
	err := missing()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// missing says what keeps this machine from mounting.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root: run the tests as root")
	}
	f, err := os.OpenFile(Device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: load it with `modprobe fuse`, or start the container with `--device /dev/fuse --cap-add SYS_ADMIN`", err)
	}
	return f.Close()
}

// node is an object in one mount.
type node struct {
	fs.Inode
	disk *Disk
	o    *object
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
)

func (n *node) child(ctx context.Context, o *object, out *fuse.EntryOut) *fs.Inode {
	o.attr(&out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, o: o}, fs.StableAttr{Ino: o.ino, Mode: o.kind()})
}

func (o *object) kind() uint32 {
	if o.dir {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

func (o *object) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Size, out.Nlink = o.ino, o.kind()|o.mode, uint64(len(o.data)), 1
	out.Blksize, out.Blocks = PageSize, (out.Size+511)/512
}

// Lookup implements fs.NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	if errno != 0 {
		return nil, errno
	}
	o := n.o.entries[name]
	if o == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, o, out), 0
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	if errno == 0 {
		n.o.attr(&out.Attr)
	}
	return errno
}

// Setattr implements fs.NodeSetattrer. Times are not kept; permissions are
// durable at once.
func (n *node) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		errno := n.disk.request(request{Event: Event{OpTruncate, n.o.name}, target: n.o, act: func() syscall.Errno {
			n.o.truncate(int64(size))
			return 0
		}})
		if errno != 0 {
			return errno
		}
	}
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	if errno != 0 {
		return errno
	}
	if mode, ok := in.GetMode(); ok {
		n.o.mode = mode & 0o7777
	}
	n.o.attr(&out.Attr)
	return 0
}

// add makes a new entry.
func (n *node) add(ctx context.Context, name string, dir bool, mode uint32, out *fuse.EntryOut) (inode *fs.Inode, errno syscall.Errno) {
	errno = n.disk.request(request{Event: Event{OpCreate, name}, act: func() syscall.Errno {
		if n.o.entries[name] != nil {
			return syscall.EEXIST
		}
		o := n.disk.object(name, dir, mode&0o7777)
		n.o.undo = append(n.o.undo, change{name: name})
		n.o.entries[name] = o
		inode = n.child(ctx, o, out)
		return 0
	}})
	return inode, errno
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, errno := n.add(ctx, name, false, mode, out)
	return inode, nil, fuse.FOPEN_KEEP_CACHE, errno
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, true, mode, out)
}

// Open implements fs.NodeOpener. The kernel keeps its pages: a file that one
// connection maps would lose them with each open of another.
func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	return nil, fuse.FOPEN_KEEP_CACHE, errno
}

// Read implements fs.NodeReader.
func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	if errno != 0 {
		return nil, errno
	}
	if off >= int64(len(n.o.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.o.data[off:])]), 0
}

// Write implements fs.NodeWriter.
func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	errno := n.disk.request(request{
		Event: Event{OpWrite, n.o.name}, target: n.o, end: off + int64(len(data)),
		act: func() syscall.Errno {
			n.o.write(data, off)
			return 0
		},
	})
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

// Fsync implements fs.NodeFsyncer, for directories too.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	op := OpSync
	if n.o.dir {
		op = OpSyncDir
	}
	return n.disk.request(request{Event: Event{op, n.o.name}, target: n.o, act: func() syscall.Errno {
		n.o.sync()
		n.o.syncDir()
		return 0
	}})
}

// Unlink implements fs.NodeUnlinker.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.disk.request(request{Event: Event{OpRemove, name}, act: func() syscall.Errno {
		o := n.o.entries[name]
		if o == nil {
			return syscall.ENOENT
		}
		if len(o.entries) > 0 {
			return syscall.ENOTEMPTY
		}
		n.o.undo = append(n.o.undo, change{name: name, was: o})
		delete(n.o.entries, name)
		return 0
	}})
}

// Rmdir implements fs.NodeRmdirer.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno { return n.Unlink(ctx, name) }

// Rename implements fs.NodeRenamer, within one directory.
func (n *node) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if parent, ok := newParent.(*node); !ok || parent.o != n.o || flags != 0 {
		return syscall.EXDEV
	}
	return n.disk.request(request{Event: Event{OpRename, newName}, act: func() syscall.Errno {
		o := n.o.entries[name]
		if o == nil {
			return syscall.ENOENT
		}
		n.o.undo = append(n.o.undo, change{name: name, was: o, next: &change{name: newName, was: n.o.entries[newName]}})
		delete(n.o.entries, name)
		n.o.entries[newName], o.name = o, newName
		return 0
	}})
}

// Readdir implements fs.NodeReaddirer.
func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	errno := n.disk.enter()
	defer n.disk.mu.Unlock()
	if errno != 0 {
		return nil, errno
	}
	list := make([]fuse.DirEntry, 0, len(n.o.entries))
	for name, o := range n.o.entries {
		list = append(list, fuse.DirEntry{Name: name, Ino: o.ino, Mode: o.kind()})
	}
	return fs.NewListDirStream(list), 0
}
