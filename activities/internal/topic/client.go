package topic

import (
	"context"
	"errors"
)

// Client is a connection to one Kafka cluster. It may be shared by any number
// of publishers and readers.
type Client struct{ cfg Config }

// Open checks cfg. It does not connect: the first request does.
func Open(cfg Config) (*Client, error) { return &Client{cfg: cfg}, nil }

// Close gives up all connections.
func (c *Client) Close() error { return nil }

// Ensure creates t and its schemas topic, or checks those that exist: all
// settings that are refused come back joined, each a [SettingError]. It waits
// until the topic can be written, and begins each empty partition with a
// stream id.
func (c *Client) Ensure(ctx context.Context, t Topic) error { return errors.ErrUnsupported }
