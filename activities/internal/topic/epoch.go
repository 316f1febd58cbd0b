package topic

import (
	"context"
	"fmt"
)

// Begin begins an epoch in a topic before its slot exists, so that the topic can
// be told from one that was made later and lacks what the slot has passed.
func (c *Client) Begin(ctx context.Context, topic string, epoch uint32) error {
	p, err := c.Publisher(ctx, PublisherConfig{Topic: topic, Epoch: epoch})
	if err != nil {
		return err
	}
	return p.Close(ctx)
}

// Began tells whether an epoch was begun in a topic. One that was not is
// [ErrStreamChanged]: the topic is another than the one that the epoch's slot was
// read into.
func (c *Client) Began(ctx context.Context, topic string, epoch uint32) error {
	s, err := c.LoadSchemas(ctx, topic)
	if err != nil {
		return err
	}
	return s.Began(epoch)
}

// Began is [Client.Began] of what was read.
func (s *Schemas) Began(epoch uint32) error {
	if last := s.LastEpoch(); last < epoch {
		return fmt.Errorf("topic %q knows no epoch %d, only those up to %d: %w", s.topic, epoch, last, ErrStreamChanged)
	}
	return nil
}

// LastEpoch returns the latest epoch that a publisher has begun in the topic,
// or 0 when none has.
func (s *Schemas) LastEpoch() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last uint32
	for _, r := range s.seeds {
		last = max(last, r.Epoch)
	}
	return last
}
