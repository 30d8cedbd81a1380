package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/meshhost/meshhost/sdk"
	"go.uber.org/goleak"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testApp = 0x1234

func testSpec(t *testing.T) Spec {
	return Spec{
		Path: filepath.Join(t.TempDir(), "sub", "box.db"), What: "box", ApplicationID: testApp,
		Steps: []string{"CREATE TABLE item (n INTEGER PRIMARY KEY, v TEXT UNIQUE NOT NULL);"},
	}
}

func mustOpen(t *testing.T, spec Spec) *File {
	t.Helper()
	f, err := Open(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func put(f *File, v string) error {
	return f.Write(context.Background(), func(conn *sqlite.Conn) error {
		return Run(conn, "INSERT INTO item (v) VALUES (?1)", v)
	})
}

func count(t *testing.T, f *File) (n int64) {
	t.Helper()
	err := f.Read(context.Background(), func(conn *sqlite.Conn) error {
		_, err := One(conn, "SELECT count(*) FROM item", func(s *sqlite.Stmt) { n = s.ColumnInt64(0) })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	spec := testSpec(t)
	f := mustOpen(t, spec)
	if err := put(f, "a"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, f); n != 1 {
		t.Fatalf("a read after a write sees %d rows", n)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := put(f, "b"); !errors.Is(err, ErrClosed) {
		t.Fatalf("write after close: %v", err)
	}
	if n := count(t, mustOpen(t, spec)); n != 1 {
		t.Fatalf("%d rows after reopening", n)
	}
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	spec := testSpec(t)
	f := mustOpen(t, spec)
	if err := put(f, "a"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(spec.Path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", info.Name(), info.Mode().Perm())
		}
	}
}

// refused opens spec and wants an error with every word.
func refused(t *testing.T, spec Spec, words ...string) {
	t.Helper()
	f, err := Open(context.Background(), spec)
	if err == nil {
		f.Close()
		t.Fatal("opened")
	}
	for _, word := range append(words, spec.Path) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func TestTheSecondOpenerIsToldWhoHasTheFile(t *testing.T) {
	spec := testSpec(t)
	f := mustOpen(t, spec)
	refused(t, spec, "in use", fmt.Sprintf("process %d", os.Getpid()))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, spec)
}

func TestAFileThatIsNotOursIsLeftAlone(t *testing.T) {
	write := func(t *testing.T, path, script string) {
		t.Helper()
		conn, err := sqlite.OpenConn(path, sqlite.OpenReadWrite, sqlite.OpenCreate)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(sqlitex.ExecuteScript(conn, script, nil), conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make  func(t *testing.T, path string)
		words []string
	}{
		"a text": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("dear diary"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a SQLite database", "set path"}},
		"another program's database": {func(t *testing.T, path string) {
			write(t, path, "CREATE TABLE cookies (a); PRAGMA application_id=7;")
		}, []string{"another program"}},
		"a database without a name": {func(t *testing.T, path string) {
			write(t, path, "CREATE TABLE cookies (a);")
		}, []string{"another program"}},
		"a newer schema": {func(t *testing.T, path string) {
			write(t, path, fmt.Sprintf("CREATE TABLE x (a); PRAGMA application_id=%d; PRAGMA user_version=9;", testApp))
		}, []string{"schema version 9", "newer plugin"}},
		"a header without the rest": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, append([]byte(magic), make([]byte, 5000)...), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"damaged", ".recover"}},
		"a directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, []string{"not a regular file"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := testSpec(t)
			spec.Path = filepath.Join(t.TempDir(), "box.db")
			c.make(t, spec.Path)
			before, _ := os.ReadFile(spec.Path)
			refused(t, spec, c.words...)
			if after, _ := os.ReadFile(spec.Path); string(after) != string(before) {
				t.Error("the file changed")
			}
		})
	}
}

func TestALostFileWhoseJournalIsThereIsNotReplacedByAnEmptyOne(t *testing.T) {
	spec := testSpec(t)
	spec.Path = filepath.Join(t.TempDir(), "box.db")
	if err := os.WriteFile(spec.Path+"-wal", []byte("frames"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, spec, "is missing")
	if _, err := os.Stat(spec.Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a file was made: %v", err)
	}
}

func TestItDoesNotServeUnlessWALAndFull(t *testing.T) {
	spec := testSpec(t)
	for name, pragma := range map[string]string{
		"rollback journal": "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;",
		"normal":           "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
		"off":              "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := sqlite.OpenConn(filepath.Join(t.TempDir(), "x.db"), sqlite.OpenReadWrite, sqlite.OpenCreate)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, p := range strings.SplitAfter(pragma, ";") {
				if err := sqlitex.ExecuteTransient(conn, strings.Trim(p, " ;"), nil); err != nil && p != "" {
					t.Fatal(err)
				}
			}
			if err := verify(spec, conn); err == nil || !strings.Contains(err.Error(), "FULL") {
				t.Fatalf("got %v", err)
			}
		})
	}
	if err := verify(spec, mustOpen(t, spec).writer); err != nil {
		t.Fatalf("a file as we open it: %v", err)
	}
}

func TestCallsThatArriveDuringACommitShareTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits := 0
		spec := testSpec(t)
		spec.Commit = func(*sqlite.Conn) error { commits++; return nil }
		f := mustOpen(t, spec)
		held := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			if err := f.Write(t.Context(), func(*sqlite.Conn) error { <-held; return nil }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		for i := range 50 {
			all.Go(func() {
				if err := put(f, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(held)
		all.Wait()
		if commits != 2 {
			t.Errorf("%d commits for 1 and 50 calls, want 2", commits)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestACallThatFailsTakesNoOtherWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		undone := 0
		spec := testSpec(t)
		spec.Undo = func() { undone++ }
		f := mustOpen(t, spec)
		held := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() { _ = f.Write(t.Context(), func(*sqlite.Conn) error { <-held; return nil }) })
		synctest.Wait()
		errs := make([]error, 20)
		for i := range errs {
			all.Go(func() {
				v := fmt.Sprint(i)
				if i%5 == 0 {
					v = "the same"
				}
				errs[i] = put(f, v)
			})
		}
		synctest.Wait()
		close(held)
		all.Wait()
		failed := 0
		for i, err := range errs {
			if err != nil {
				failed++
				if i%5 != 0 {
					t.Errorf("call %d failed with another's error: %v", i, err)
				}
			}
		}
		if n := count(t, f); failed != 3 || n != 17 || undone != 4 {
			t.Errorf("%d failed, %d rows, %d undone; want 3, 17, 4", failed, n, undone)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFullDiskIsAnErrorAndItWorksAgainWhenThereIsRoom(t *testing.T) {
	f := mustOpen(t, testSpec(t))
	pages := func(n string) {
		t.Helper()
		err := f.Write(context.Background(), func(conn *sqlite.Conn) error {
			return sqlitex.ExecuteTransient(conn, "PRAGMA max_page_count="+n, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages("5")
	var err error
	wrote := int64(0)
	for i := 0; err == nil && i < 10; i++ {
		if err = put(f, strings.Repeat(fmt.Sprint(i), 4000)); err == nil {
			wrote++
		}
	}
	if !errors.Is(err, sdk.ErrUnavailable) || !strings.Contains(err.Error(), "free space") {
		t.Fatalf("got %v", err)
	}
	pages("100000")
	if err := put(f, "room"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, f); n != wrote+1 {
		t.Fatalf("%d rows, want %d", n, wrote+1)
	}
}

func TestDamageIsAnErrorThatNamesTheFile(t *testing.T) {
	spec := testSpec(t)
	f := mustOpen(t, spec)
	for i := range 200 {
		if err := put(f, strings.Repeat(fmt.Sprintf("%03d", i), 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(spec.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := file.Stat()
	for at := int64(4 * 4096); at < info.Size(); at += 4096 { // behind the first page of each table
		if _, err := file.WriteAt([]byte(strings.Repeat("garbage!", 64)), at); err != nil {
			t.Fatal(err)
		}
	}
	file.Close()
	f = mustOpen(t, spec)
	err = f.Read(context.Background(), func(conn *sqlite.Conn) error {
		return Each(conn, "SELECT v FROM item", func(*sqlite.Stmt) (bool, error) { return true, nil })
	})
	if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), spec.Path) {
		t.Fatalf("got %v", err)
	}
}

func TestAReadStopsWithItsContext(t *testing.T) {
	f := mustOpen(t, testSpec(t))
	ctx, cancel := context.WithCancel(context.Background())
	err := f.Read(ctx, func(conn *sqlite.Conn) error {
		n := 0
		return Each(conn, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c", func(*sqlite.Stmt) (bool, error) {
			if n++; n == 10 {
				cancel()
			}
			return true, nil
		})
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if n := count(t, f); n != 0 {
		t.Fatal("the connection is of no use any more")
	}
}

func TestTheNameOfANewFileIsSyncedInEveryDirectoryThatMayBeNew(t *testing.T) {
	spec := testSpec(t)
	var synced []string
	sync := func(dir string) error {
		synced = append(synced, dir)
		if dir == "/" {
			return os.ErrPermission // of another user
		}
		return nil
	}
	dir := filepath.Dir(spec.Path)
	for _, when := range []string{"new", "left without rows by a start that was killed"} {
		synced = nil
		if err := create(spec, sync); err != nil {
			t.Fatal(err)
		}
		if len(synced) < 3 || synced[0] != dir || synced[1] != filepath.Dir(dir) || synced[len(synced)-1] != "/" {
			t.Errorf("%s: synced %q", when, synced)
		}
	}
	synced = nil
	if err := create(spec, func(string) error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a sync that fails: %v", err)
	}
	if err := mustOpen(t, spec).Close(); err != nil {
		t.Fatal(err)
	}
	if err := create(spec, sync); err != nil || synced != nil {
		t.Errorf("a file in use is synced again: %q, %v", synced, err)
	}
}

func TestAPanicIsItsCallersAndLeavesTheFileAsItWas(t *testing.T) {
	f := mustOpen(t, testSpec(t))
	panics := func(call func(func(*sqlite.Conn) error) error, query string) {
		t.Helper()
		defer func() {
			if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "a defect") {
				t.Errorf("got %v", r)
			}
		}()
		_ = call(func(conn *sqlite.Conn) error {
			stmt, err := Bind(conn, query)
			if err == nil {
				_, err = stmt.Step()
			}
			if err != nil {
				return err
			}
			panic("a defect")
		})
		t.Error("no panic")
	}
	if err := put(f, "before"); err != nil {
		t.Fatal(err)
	}
	for range readConns + 1 {
		panics(func(fn func(*sqlite.Conn) error) error { return f.Read(context.Background(), fn) }, "SELECT v FROM item")
		panics(func(fn func(*sqlite.Conn) error) error { return f.Write(context.Background(), fn) }, "INSERT INTO item (v) VALUES ('half')")
	}
	for i := range readConns + 1 {
		if err := put(f, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if n := count(t, f); n != int64(i)+2 {
			t.Fatalf("%d rows after %d and one before", n, i+1)
		}
	}
}
