package pgsource

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// lowWater is how many bytes should lie in the socket before a busy reader
	// wakes. Most of a walsender's work is waking its reader for every row.
	lowWater = 128 << 10
	// patience is how long fewer bytes may lie there.
	patience = 10 * time.Millisecond
	// busy is how many bytes must come within patience for more of it.
	busy = 16 << 10
)

// dialer finds a server that is gone within a minute.
var dialer = net.Dialer{
	Timeout: connectTimeout,
	KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 6,
	},
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &patientConn{TCPConn: tcp}, nil
	}
	return conn, nil
}

// patientConn is a TCP connection whose reader, once patient was called, sleeps
// while little comes and takes much at a time while much comes: the server
// wakes it less often and so gets faster. It delays bytes by at most patience.
type patientConn struct {
	*net.TCPConn
	socket socket // nil: never patient
	mark   int    // the low water mark that the socket has; 0 before patient

	mu sync.Mutex
	// deadline is the one that was asked for; zero is none.
	deadline time.Time
}

// socket is what patience needs of the operating system.
type socket interface {
	// setLowWater sets the number of bytes that wake a reader.
	setLowWater(n int) error
	// queued returns how many bytes can be read now.
	queued() (int, error)
	// wait returns once the low water mark is reached, or with the error of the
	// read deadline.
	wait() error
}

// patient makes the TCP connection below conn patient, where the operating
// system can.
func patient(conn net.Conn) {
	for {
		switch c := conn.(type) {
		case *patientConn:
			if c.mark == 0 {
				c.socket, c.mark = newSocket(c.TCPConn), 1
			}
			return
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return
		}
	}
}

// Read is that of net.Conn.
func (c *patientConn) Read(p []byte) (int, error) {
	if c.socket == nil {
		return c.TCPConn.Read(p)
	}
	if c.mark > 1 && c.await() {
		// A deadline that passed meanwhile must not hide what lies there.
		_ = c.TCPConn.SetReadDeadline(time.Time{})
		defer c.limit(time.Time{})
	}
	n, err := c.TCPConn.Read(p)
	if c.mark == 1 && n >= busy {
		c.setMark(lowWater)
	}
	return n, err
}

// await returns when the mark is reached or patience ends, having lowered the
// mark in case that little came. It tells whether anything can be read at once.
func (c *patientConn) await() bool {
	n, err := c.socket.queued()
	if err == nil && n < lowWater {
		c.limit(time.Now().Add(patience))
		_ = c.socket.wait()
		c.limit(time.Time{})
		n, err = c.socket.queued()
	}
	if err != nil || n < busy {
		c.setMark(1)
	}
	return err == nil && n > 0
}

// setMark sets the low water mark, and gives patience up where it cannot.
func (c *patientConn) setMark(n int) {
	if c.socket.setLowWater(n) != nil {
		if c.mark > 1 {
			_ = c.socket.setLowWater(1)
		}
		c.socket = nil
		return
	}
	c.mark = n
}

// limit sets the read deadline to at, or the one that was asked for where that
// is sooner or at is zero.
func (c *patientConn) limit(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.IsZero() || !c.deadline.IsZero() && c.deadline.Before(at) {
		at = c.deadline
	}
	_ = c.TCPConn.SetReadDeadline(at)
}

// SetReadDeadline is that of net.Conn.
func (c *patientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.TCPConn.SetReadDeadline(t)
}

// SetDeadline is that of net.Conn.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.TCPConn.SetDeadline(t)
}
