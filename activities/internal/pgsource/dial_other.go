//go:build !linux

package pgsource

import "net"

// newSocket returns nil: readers here take what comes when it comes.
func newSocket(*net.TCPConn) socket { return nil }
