package bridge_test

import (
	"context"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		sdk.Serve(sdk.Plugin{Name: "bulky", Version: "1", PushHandler: answer(bulky)})
	}
	goleak.VerifyTestMain(m)
}

// serveRaw runs a server in memory, such as a plugin that answers nonsense, and
// returns a client of it.
func serveRaw(t testing.TB, register func(*grpc.Server)) *bridge.Client {
	t.Helper()
	g := grpc.NewServer(grpc.MaxRecvMsgSize(1<<30), grpc.MaxSendMsgSize(1<<30))
	register(g)
	listener := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///raw", append(bridge.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		<-done
	})
	return bridge.NewClient(conn)
}

// words are values for types that take only some.
var words = map[reflect.Type]string{
	reflect.TypeFor[sdk.EntryState](): string(sdk.StateWaiting),
	reflect.TypeFor[sdk.OpKind]():     string(sdk.OpRequeue),
	reflect.TypeFor[sdk.OpCode]():     string(sdk.OpExists),
	reflect.TypeFor[sdk.WatchKind]():  string(sdk.WatchChanged),
	reflect.TypeFor[sdk.PushKind]():   string(sdk.PushWebhook),
	reflect.TypeFor[sdk.Decision]():   string(sdk.Retry),
	reflect.TypeFor[sdk.Kind]():       string(sdk.KindPeerFilter),
	reflect.TypeFor[sdk.TypeName]():   string(sdk.TypeObject),
	reflect.TypeFor[sdk.Severity]():   string(sdk.SeverityWarning),
}

// full is a T none of whose fields is zero, so that one that a converter forgets
// shows. Skipped fields are those that no wire carries.
func full[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n, 0)
	return v
}

func fill(v reflect.Value, n *int, depth int) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.UnixMilli(1_700_000_000_000 + int64(*n)).UTC()))
		return
	case v.Type() == reflect.TypeFor[jsontext.Value]():
		v.SetBytes([]byte(`{"n":1}`))
		return
	case words[v.Type()] != "":
		v.SetString(words[v.Type()])
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("s" + string(rune('a'+*n%26)) + string(rune('0'+*n%10)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{byte(*n), 0xff})
			return
		}
		if depth > 4 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n, depth+1)
	case reflect.Map:
		key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n, depth+1)
		fill(val, n, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, val)
	case reflect.Pointer:
		if depth > 4 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n, depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n, depth+1)
			}
		}
	}
}

// same fails the test unless got is want.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s came across as\n%+v, not\n%+v", what, got, want)
	}
}
