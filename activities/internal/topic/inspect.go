package topic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// State is how a topic is, or could be made.
type State struct {
	// Exists tells that the topic is there.
	Exists bool
	// Refused are the settings that Millrace refuses.
	Refused []*SettingError
	// MaxMessageBytes is the largest batch that the topic takes; 0 where it does
	// not exist or the broker does not say.
	MaxMessageBytes int64
}

// Inspect looks at t and its schemas topic and changes nothing. That a topic does
// not exist is no error: then the cluster is asked whether it could be made.
func (c *Client) Inspect(ctx context.Context, t Topic) (State, error) {
	var s State
	if t.MaxMessageBytes == 0 {
		t.MaxMessageBytes = defaultMessage
	}
	for _, one := range []struct {
		name       string
		partitions int
		rules      []rule
	}{{t.Name, t.Partitions, t.rules()}, {SchemasTopic(t.Name), 1, t.schemasRules()}} {
		err := c.ensureOne(ctx, one.name, one.partitions, t.Replication, one.rules, false)
		if refused := settingErrors(err); len(refused) > 0 {
			s.Refused = append(s.Refused, refused...)
			err = nil
		}
		switch {
		case errors.Is(err, ErrTopicMissing):
			continue
		case err != nil:
			return s, err
		}
		if one.name == t.Name {
			s.Exists = true
			settings, err := c.settings(ctx, t.Name)
			if err != nil {
				return s, err
			}
			s.MaxMessageBytes, _ = strconv.ParseInt(settings["max.message.bytes"], 10, 64)
		}
	}
	if s.Exists {
		return s, nil
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return s, err
	}
	if n := len(m.Brokers); n < t.Replication {
		s.Refused = append(s.Refused, &SettingError{t.Name, "replication", "not possible", strconv.Itoa(t.Replication), fmt.Sprintf("there are %d brokers: lower replication in the fleet file, or add brokers", n)})
	}
	return s, nil
}

// settingErrors are the settings that an error of ensureOne joins.
func settingErrors(err error) (list []*SettingError) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, e := range joined.Unwrap() {
		var s *SettingError
		if errors.As(e, &s) {
			list = append(list, s)
		}
	}
	return list
}
