package plugin

import (
	"testing"
	"time"
)

func TestRestartIsImmediateThenDoublesWithJitterToItsBound(t *testing.T) {
	r := restarts{Restart: Restart{Initial: 250 * time.Millisecond, Max: 30 * time.Second, Crashes: 0}}
	now := time.Unix(0, 0)
	ms := time.Millisecond
	for i, want := range []time.Duration{
		0, 250 * ms, 500 * ms, time.Second, 2 * time.Second, 4 * time.Second,
		8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second,
	} {
		low, q1 := (&restarts{Restart: r.Restart, inRow: r.inRow}).ended(now, 0, 0)
		got, q2 := r.ended(now, 0, 0.999999999)
		if q1 || q2 {
			t.Fatal("quarantined though crashes = 0")
		}
		if low != want/2 || got > want || got < want-time.Microsecond {
			t.Fatalf("end %d waits %s to %s, want %s to %s", i+1, low, got, want/2, want)
		}
	}
	if wait, _ := r.ended(now, 59*time.Second, 0); wait == 0 {
		t.Fatal("59 s of health must not be enough to forget")
	}
	if wait, _ := r.ended(now, 60*time.Second, 0); wait != 0 {
		t.Fatalf("after 60 s of health the first restart waits %s", wait)
	}
}

func TestCrashesWithinTheWindowQuarantineExceptForAnOutbox(t *testing.T) {
	policy := defaultRestart()
	at := func(r *restarts, minutes ...float64) (quarantined bool) {
		for _, m := range minutes {
			_, quarantined = r.ended(time.Unix(0, 0).Add(time.Duration(m*float64(time.Minute))), 2*time.Minute, 0)
		}
		return quarantined
	}
	if at(&restarts{Restart: policy}, 0, 1, 2, 3) {
		t.Fatal("four crashes quarantined")
	}
	if !at(&restarts{Restart: policy}, 0, 1, 2, 3, 9.9) {
		t.Fatal("five crashes within ten minutes did not quarantine")
	}
	if at(&restarts{Restart: policy}, 0, 1, 2, 3, 10.1) {
		t.Fatal("five crashes in more than ten minutes quarantined")
	}
	if at(&restarts{Restart: policy, never: true}, 0, 0, 0, 0, 0, 0, 0, 0) {
		t.Fatal("an outbox was quarantined")
	}
}
