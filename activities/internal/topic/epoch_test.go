package topic

import (
	"errors"
	"testing"
	"time"
)

func TestATopicThatWasMadeAgainIsToldByItsEpochs(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 2)
	want := Topic{Name: name, Partitions: 2, Replication: 1, MinISR: 1, Retention: time.Hour}
	if err := c.Began(t.Context(), name, 1); !errors.Is(err, ErrStreamChanged) {
		t.Errorf("before any epoch: %v", err)
	}
	if err := c.Begin(t.Context(), name, 3); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Check(t.Context(), want), c.Began(t.Context(), name, 3)); err != nil {
		t.Error(err)
	}
	if err := c.Began(t.Context(), name, 4); !errors.Is(err, ErrStreamChanged) {
		t.Errorf("a later epoch: %v", err)
	}
	missing := want
	missing.Name += ".other"
	if err := c.Check(t.Context(), missing); !errors.Is(err, ErrTopicMissing) {
		t.Errorf("no topic: %v", err)
	}
	// It was not made by that, and somebody's is empty.
	if _, _, err := c.layout(t.Context(), missing.Name); !errors.Is(err, ErrTopicMissing) {
		t.Errorf("no topic: %v", err)
	}
	for topic, partitions := range map[string]int{missing.Name: 2, SchemasTopic(missing.Name): 1} {
		rules := missing.rules()
		if partitions == 1 {
			rules = missing.schemasRules()
		}
		for i := range rules {
			if rules[i].name == "max.message.bytes" {
				rules[i].set = "1048576"
			}
		}
		if err := c.create(t.Context(), topic, partitions, 1, rules); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Check(t.Context(), missing); !errors.Is(err, ErrTopicMissing) {
		t.Errorf("an empty topic: %v", err)
	}
}
