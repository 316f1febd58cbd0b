package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
)

// KafkaOptions says how a broker is started. The zero value is good for tests.
type KafkaOptions struct {
	// Dir holds topics, offsets and log, which are kept. Empty means a
	// temporary folder.
	Dir string
	// Port on 127.0.0.1. Zero means a free one.
	Port int
	// Settings are broker settings beside and above the defaults, which are a
	// real broker's.
	Settings map[string]string
}

// Kafka is one broker, so topics can have one replica only.
type Kafka struct {
	*Process
	Brokers []string // addresses, host:port
}

// StartKafka starts a broker and waits until it takes connections.
func StartKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	k, err := newKafka(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("prepare Kafka: %w", err)
	}
	if err := k.Start(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func newKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	place, err := findPlace()
	if err != nil {
		return nil, err
	}
	p, port, err := place.process(ctx, "Kafka", o.Dir, o.Port)
	if err != nil {
		return nil, err
	}
	p.args = []string{"kafka", "--dir", filepath.Join(p.cwd, "data"), "--port", strconv.Itoa(port)}
	for name, value := range o.Settings {
		p.args = append(p.args, "--set", name+"="+value)
	}
	k := &Kafka{Process: p, Brokers: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}}
	p.probe = k.probe
	return k, nil
}

// apiVersions asks a broker, in version 0 of the request, which requests it
// knows; the client has no name.
var apiVersions = []byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff}

// probe is nil when the broker answers.
func (k *Kafka) probe(ctx context.Context) error {
	return exchange(ctx, k.Brokers[0], apiVersions, make([]byte, 8))
}
