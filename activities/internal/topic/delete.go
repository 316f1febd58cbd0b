package topic

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Delete deletes a topic and its schemas, and returns the names of those that
// were there. It may be called again after a failure.
func (c *Client) Delete(ctx context.Context, topic string) (deleted []string, err error) {
	for _, name := range []string{topic, SchemasTopic(topic)} {
		res, err := c.kafka.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
		if err != nil {
			return deleted, fmt.Errorf("delete topic %q: %w", name, c.unreachable(err))
		}
		switch err := res.Errors[name]; {
		case err == nil:
			deleted = append(deleted, name)
		case errors.Is(err, kafka.UnknownTopicOrPartition):
		case permanent(err) != nil:
			return deleted, fmt.Errorf("delete topic %q: %w", name, permanent(err))
		default:
			return deleted, fmt.Errorf("delete topic %q: %w", name, err)
		}
	}
	return deleted, nil
}
