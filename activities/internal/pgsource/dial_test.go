package pgsource

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A deadline sooner than patience ends must not hide bytes that lie there.
func TestPatientReaderReturnsWhatLiesThereAtAShortDeadline(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := listener.Accept()
		accepted <- c
	}()
	conn, err := dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := <-accepted
	defer peer.Close()
	patient(conn)

	buf := make([]byte, wireBuffer)
	read := func(want int) {
		t.Helper()
		begin := time.Now()
		for got := 0; got < want; {
			_ = conn.SetReadDeadline(time.Now().Add(patience / 2))
			n, err := conn.Read(buf)
			got += n
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) > 10*time.Second {
				t.Fatalf("after %d of %d bytes: %v", got, want, err)
			}
		}
	}
	for range 3 {
		for _, size := range []int{lowWater * 2, busy, busy * 2, lowWater - 1, 1} {
			if _, err := peer.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			read(size)
		}
	}
}
