package topic

import (
	"context"
	"fmt"
)

// Begin begins an epoch in a topic before its slot exists, so that the topic can
// be told from one that was made later and lacks what the slot has passed. What
// was written in earlier epochs may be gone, or of no form that is known.
func (c *Client) Begin(ctx context.Context, topic string, epoch uint32) error {
	p, err := c.Publisher(ctx, PublisherConfig{Topic: topic, Epoch: epoch, begins: true})
	if err != nil {
		return err
	}
	return p.Close(ctx)
}

// Ends returns where each partition of a topic ends now.
func (c *Client) Ends(ctx context.Context, topic string) ([]Resume, error) {
	partitions, _, err := c.layout(ctx, topic)
	if err != nil {
		return nil, err
	}
	spans, err := c.spans(ctx, topic, partitions)
	if err != nil {
		return nil, err
	}
	ends := make([]Resume, partitions)
	for p, s := range spans {
		ends[p].Offset = s.End
	}
	return ends, nil
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
