package pgsource

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// linuxSocket reads a TCP socket's queue and sets SO_RCVLOWAT.
type linuxSocket struct{ raw syscall.RawConn }

// newSocket returns nil where patience is not to be had.
func newSocket(c *net.TCPConn) socket {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return linuxSocket{raw}
}

func (s linuxSocket) setLowWater(n int) error {
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
	}); e != nil {
		return e
	}
	return err
}

func (s linuxSocket) queued() (n int, err error) {
	if e := s.raw.Control(func(fd uintptr) {
		n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	}); e != nil {
		return 0, e
	}
	return n, err
}

func (s linuxSocket) wait() error {
	waited := false
	return s.raw.Read(func(uintptr) bool {
		ready := waited
		waited = true
		return ready
	})
}
