package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Free ports are taken from below the range that systems give to outgoing
// connections. A port from that range could be taken by any client while its
// server restarts, even by one that dials the server and reaches itself.
const (
	firstPort = 18000
	lastPort  = 31999
)

// errPortTaken means that something listens on a port.
var errPortTaken = errors.New("something listens on it already")

// choosePort returns port, or a free one when it is zero.
func choosePort(port int) (int, error) {
	if port != 0 {
		return port, nil
	}
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if portFree(port) == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on 127.0.0.1 between %d and %d", firstPort, lastPort)
}

func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d: %w", port, errPortTaken)
	}
	return l.Close()
}
